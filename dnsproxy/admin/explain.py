"""``GET /api/v1/explain?name=&type=&client=``: what a running proxy would do with a query, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any, Protocol

from aiohttp import web

from dnsproxy.admin.status import Facts, canary_document, status_document
from dnsproxy.core import names
from dnsproxy.core.explain import Explanation, Outcome, type_code
from dnsproxy.errors import WorkerError

_ENDINGS = {
    Outcome.REFUSED_CLIENT: "REFUSED: serve.allow does not hold this client",
    Outcome.RATE_LIMITED: "dropped, or told to use TCP: the client is over serve.rate_limit",
    Outcome.REFUSED_TYPE: "REFUSED: not a type that a forwarder answers",
    Outcome.LEARNED: "answered from what was learned",
    Outcome.STALE: "answered from what was learned, marked stale (EDE 3): its snapshot has expired",
    Outcome.NODATA: "answered with no data: the name is owned and has no record of this type",
    Outcome.NOT_READY: "SERVFAIL (EDE 14): the name is owned and no address is known",
    Outcome.CACHE: "answered from the cache",
    Outcome.SPECIAL: "answered here: a special-use name that no zone of forward.zones holds",
    Outcome.REVERSE: "answered here: a private address of owned names, which no zone of forward.zones holds",
    Outcome.MINIMAL_ANY: "answered with HINFO (RFC 8482): forward.minimal_any is on",
    Outcome.NXDOMAIN_CUT: "NXDOMAIN: a name above it does not exist (cache.nxdomain_cut)",
    Outcome.STALE_CACHE: "answered from the cache, marked stale (EDE 3), and asked for anew",
    Outcome.FAILED: "SERVFAIL (EDE 13): it failed just now",
    Outcome.JOIN: "waits for the answer that is being asked for already",
    Outcome.NO_UPSTREAM: "SERVFAIL (EDE 22): every upstream leads back to this proxy",
    Outcome.FORWARD: "forwarded to the upstreams in this order",
}
_ASKING = frozenset({Outcome.FORWARD, Outcome.JOIN, Outcome.STALE_CACHE, Outcome.NO_UPSTREAM})


class Explains(Protocol):
    """What the handler needs of the running proxy."""

    def facts(self) -> Facts:
        """Return all that there is to tell."""

    async def explain(self, key: bytes, qtype: int, client: bytes | None) -> Explanation:
        """Return the path of a query; ``client`` is a packed address. Raises `WorkerError`."""


async def answer(operated: Explains, request: web.Request) -> web.Response:
    """Answer one request; 400 when it does not say what to explain, 503 when no worker answers."""
    asked = request.query
    try:
        key = names.to_key(asked.get("name", ""))
        qtype = type_code(asked.get("type") or "A")
        client = ip_address(asked["client"]) if asked.get("client") else None
    except ValueError as exc:
        return web.json_response({"error": str(exc)}, status=400)
    try:
        found = await operated.explain(key, qtype, client.packed if client else None)
    except WorkerError as exc:
        return web.json_response({"error": str(exc)}, status=503)
    document = explain_document(found, operated.facts())
    question = {
        "name": names.to_text(key),
        "type": (asked.get("type") or "A").upper(),
        "client": str(client) if client else None,
    }
    return web.json_response({**question, **document, "steps": list(steps({**question, **document}))})


def explain_document(found: Explanation, facts: Facts) -> dict[str, Any]:
    """Return the explanation as JSON, with what the status tells of the owned name."""
    return {
        "outcome": found.outcome.value,
        "worker": found.worker,
        "owned": asdict(found.owned) if found.owned else None,
        "status": _status_of(found.owned.rule, facts) if found.owned else None,
        "cached": [asdict(entry) for entry in found.cached],
        "zone": found.zone,
        "upstreams": [asdict(upstream) for upstream in found.upstreams],
        "policy": found.policy,
        "special": found.special,
        "failure": asdict(found.failure) if found.failure else None,
        "waiting": found.waiting,
        "trial": _trial_of(found.owned.rule, facts) if found.owned else None,
    }


def _status_of(rule: str, facts: Facts) -> dict[str, Any] | None:
    listed = status_document(facts)["names"]
    return next((entry for entry in listed if entry["name"] == rule), None)


def _trial_of(rule: str, facts: Facts) -> dict[str, Any] | None:
    canary = canary_document(facts.canary)
    listed = canary["trials"] if canary else []
    return next((trial for trial in listed if trial["name"] == rule), None)


def steps(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the path in words, one line a step, in the engine's order."""
    outcome = Outcome(document["outcome"])
    if document.get("worker") is not None:
        yield f"worker: {document['worker']} was asked; each has its own cache and view of the upstreams"
    if document["client"]:
        verdict = "may not ask" if outcome is Outcome.REFUSED_CLIENT else "may ask"
        yield f"client {document['client']}: {verdict}"
    if outcome in (Outcome.REFUSED_CLIENT, Outcome.RATE_LIMITED, Outcome.REFUSED_TYPE):
        yield _ENDINGS[outcome]
        return
    if document["owned"]:
        yield from _owned_steps(document["owned"], document["status"] or {})
        yield from _trial_steps(document)
        yield _ENDINGS[outcome]
        return
    yield "owned: no rule holds this name"
    yield from _cache_steps(document["cached"])
    if document["special"]:
        yield f"special use: {document['special'].removesuffix('.')}"
    if document["failure"]:
        seconds = document["failure"]["seconds"]
        yield f"failure: EDE {document['failure']['ede']}, not asked again for {seconds:.1f} s"
    if outcome in _ASKING:
        yield f"zone: {document['zone'].removesuffix('.') or 'the default one'}"
    if document["waiting"] is not None:
        yield f"in flight: asked already, {document['waiting']} clients wait"
    yield _ENDINGS[outcome]
    if outcome in _ASKING:
        yield from _upstream_steps(document["upstreams"], document["policy"])


def _owned_steps(owned: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[str]:
    where = f", registry {status['registry']} ({status['role']})" if status else ""
    yield f"owned: by {owned['rule'].removesuffix('.')}{where}"
    if owned["cname"]:
        yield f"alias: CNAME {owned['cname'].removesuffix('.')}"
    shown = ", ".join(owned["addresses"]) or "none"
    yield f"addresses: {shown}; TTL {owned['ttl']} s"
    if status.get("source") is not None:
        serial = f", serial {status['serial']}" if status.get("serial") is not None else ""
        age = f", confirmed {status['age']:.0f} s ago" if status.get("age") is not None else ""
        yield f"source: {status['source']}{serial}{age}; {status['status']}"
    for flag in ("pinned", "frozen"):
        if status.get(flag) is True:
            yield f"{flag}: by an operator"
    for detail in status.get("details") or ():
        yield f"address {detail['address']}: {_detail(detail)}"


def _trial_steps(document: Mapping[str, Any]) -> Iterator[str]:
    trial = document.get("trial")
    if trial is None:
        return
    new = ", ".join(trial["new"])
    if trial["state"] == "rolled_back":
        yield f"canary: {new} was rolled back ({trial['detail']}) and is not answered"
    elif trial["served_to"] == "all":
        yield f"canary: {new} is on trial, and this proxy is one of those that answer with it"
    else:
        yield f"canary: {new} is on trial, answered by other proxies first"


def _detail(detail: Mapping[str, Any]) -> str:
    words = [str(detail.get("state"))]
    if detail.get("reason"):
        words.append(str(detail["reason"]))
    routed = detail.get("routed")
    if routed is not None:
        words.append("routed" if routed else "NOT ROUTED")
    words += [f"port {port} {result}" for port, result in (detail.get("probe") or {}).items()]
    return ", ".join(words)


def _cache_steps(cached: list[Mapping[str, Any]]) -> Iterator[str]:
    if not cached:
        yield "cache: no fresh entry"
    for entry in cached:
        kind = "" if entry["variant"] == "plain" else f" for queries with {entry['variant']}"
        if entry["ttl"] or not entry["stale_for"]:
            life = f"fresh for {entry['ttl']} s more"
        else:
            life = f"expired, of use for {entry['stale_for']} s more when upstreams fail"
        if entry["prefetch_in"] is not None:
            life += f", asked for anew by hits from {entry['prefetch_in']} s on"
        yield f"cache: {entry['rcode']}{kind}, {entry['age']} s old, {life}"


def _upstream_steps(upstreams: Sequence[Mapping[str, Any]], policy: str) -> Iterator[str]:
    if len(upstreams) > 1:
        yield f"policy: {policy}"
    for place, upstream in enumerate(upstreams, start=1):
        rtt = f", {upstream['rtt'] * 1000:.1f} ms" if upstream["rtt"] is not None else ""
        failures = ", ".join(f"{count} {reason}" for reason, count in upstream["failures"].items())
        failed = f"; failures: {failures}" if failures else ""
        state = "LOOP, not asked" if upstream["looped"] else "up" if upstream["up"] else "DOWN"
        yield f"upstream {place}: {upstream['name']} {state}{rtt}{failed}"
