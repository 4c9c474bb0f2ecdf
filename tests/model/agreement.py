"""Whether everything that a proxy tells is what the model says, and so the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.model.proxy import FIXED, Reply, Told, question
from tests.model.reference import NOT_OWNED, NOT_READY, Answer, Model
from tests.model.surroundings import FORWARDED
from tests.model.world import NAMES

STALE, NOT_READY_ERROR = 3, 14
PHASES = {"trial": "running", "refused": "rolled_back"}


def family(addresses: frozenset[str], kind: str) -> frozenset[str]:
    return frozenset(address for address in addresses if (":" in address) is (kind == "AAAA"))


def expected_reply(answer: Answer | str, kind: str) -> Reply:
    """What a client gets where the model says ``answer``."""
    if answer == NOT_OWNED:
        return Reply("NOERROR", family(frozenset({FORWARDED}), kind), None, None)
    if answer == NOT_READY:
        return Reply("SERVFAIL", frozenset(), None, NOT_READY_ERROR)
    assert isinstance(answer, Answer)
    return Reply("NOERROR", family(answer.addresses, kind), answer.cname, STALE if answer.stale else None)


def probe_gaps(status: Mapping[str, Any], wall: float, *, is_probed: bool) -> Iterator[str]:
    """What has not been probed since the wall clock was set to ``wall``, and sources not read since."""
    learned = [entry for entry in status["names"] if _plain(entry["name"]) not in FIXED.values()]
    for entry in learned if is_probed else ():
        for detail in entry["details"]:
            if detail["state"] != "refused" and detail["checked_at"] != wall:
                yield f"{entry['name']} {detail['address']}: probed at {detail['checked_at']}, not {wall}"
    for source in status["sources"]:
        if source["last_attempt"] != wall:
            yield f"source {source['url']}: read at {source['last_attempt']}, not {wall}"


def status_differences(model: Model, told: Told) -> Iterator[str]:
    """How answers and the status document differ from the model."""
    for (name, kind), reply in told.replies.items():
        expected = expected_reply(model.answer(name), kind)
        if reply != expected:
            yield f"DNS {name} {kind}: expected {expected}, got {reply}"
    status = told.status
    pins = {_plain(pin["name"]): frozenset(pin["addresses"]) for pin in status["pinned"]}
    yield from _differ("status, pinned", model.pins, pins)
    frozen = None if model.frozen is None else len(model.frozen)
    yield from _differ("status, frozen", frozen, status["frozen"] and status["frozen"]["names"])
    yield from _differ("status, state", None, status["state"]["failure"])
    entries = {_plain(entry["name"]): entry for entry in status["names"]}
    for fixed in FIXED.values():
        entries.pop(fixed, None)
    yield from _differ("status, names", set(model.managed()), set(entries))
    for name in entries.keys() & model.managed():
        yield from _name_differences(model, name, entries[name])


def _name_differences(model: Model, name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    where = f"status, {name}"
    answer = model.answer(name)
    if isinstance(answer, Answer):
        state = "pinned" if name in model.pins else "stale" if answer.stale else "ok"
        yield from _differ(f"{where}, addresses", set(answer.addresses), set(entry["addresses"]))
        yield from _differ(f"{where}, cname", answer.cname, entry["cname"] and _plain(entry["cname"]))
    else:
        state = "missing"
        yield from _differ(f"{where}, addresses", [], entry["addresses"])
    yield from _differ(f"{where}, status", state, entry["status"])
    # The age of a set that is no longer answered is still told: alerts refer to it.
    if isinstance(answer, Answer):
        yield from _differ(f"{where}, age", model.age(name), entry["age"])
    yield from _differ(f"{where}, frozen", name in (model.frozen or ()), entry["frozen"])
    known = {address for known, address in model.addresses if known == name}
    listed = {each["address"] for each in entry["details"] if each["state"] != "refused"}
    yield from _differ(f"{where}, details", known, listed)


def other_differences(model: Model, told: Told) -> Iterator[str]:
    """How metrics, explanations, history and trials differ from the model."""
    yield from _metric_differences(model, told.metrics)
    for name in NAMES:
        yield from _explain_differences(model, name, told.explain[name])
    yield from _differ("history", model_history(model), told_history(told.history))
    tried = {name: PHASES[phase] for name in NAMES if (phase := model.trial(name)) is not None}
    trials = told.canary["trials"] if told.canary is not None else []
    yield from _differ("canary", model.policy.canary is not None, told.canary is not None)
    yield from _differ("canary, trials", tried, {_plain(each["name"]): each["state"] for each in trials})


def _metric_differences(model: Model, metrics: Mapping[str, float]) -> Iterator[str]:
    for name in NAMES:
        label = f'name="{name}."'
        answer = model.answer(name)
        size = len(answer.addresses) if isinstance(answer, Answer) else None if answer == NOT_OWNED else 0
        yield from _differ(
            f"metrics, addresses of {name}", size, metrics.get(f"dnsproxy_learned_addresses{{{label}}}")
        )
        age = metrics.get(f"dnsproxy_learned_age_seconds{{{label}}}")
        if isinstance(answer, Answer):
            yield from _differ(f"metrics, age of {name}", model.age(name), age)
    frozen, pins = float(model.frozen is not None), float(len(model.pins))
    yield from _differ("metrics, frozen", frozen, metrics.get("dnsproxy_learned_frozen"))
    yield from _differ("metrics, pinned", pins, metrics.get("dnsproxy_learned_pinned"))
    if model.policy.ports:
        dead = {
            f'dnsproxy_learned_unreachable{{address="{address}",name="{name}."}}': float(
                model.alive(name, address) == "dead"
            )
            for name, address in model.addresses
        }
        found_dead = {
            key: value
            for key, value in metrics.items()
            if key.startswith("dnsproxy_learned_unreachable{") and not any(f in key for f in FIXED.values())
        }
        yield from _differ("metrics, unreachable", dead, found_dead)


def _explain_differences(model: Model, name: str, explained: Mapping[str, Any]) -> Iterator[str]:
    where = f"explain {question(name)}"
    answer = model.answer(name)
    owned = explained["owned"]
    if answer == NOT_OWNED:
        yield from _differ(f"{where}, owned", None, owned)
        return
    outcome = "not_ready"
    if isinstance(answer, Answer):
        outcome = "stale" if answer.stale else "learned" if family(answer.addresses, "A") else "nodata"
        yield from _differ(f"{where}, addresses", set(answer.addresses), set(owned["addresses"]))
        yield from _differ(f"{where}, cname", answer.cname, owned["cname"] and _plain(owned["cname"]))
    yield from _differ(f"{where}, outcome", outcome, explained["outcome"])
    if isinstance(answer, Answer):
        yield from _differ(f"{where}, age", model.age(name), explained["status"]["age"])
    trial = model.trial(name)
    state = explained["trial"] and explained["trial"]["state"]
    yield from _differ(f"{where}, trial", trial and PHASES[trial], state)


History = list[tuple[int, dict[str, frozenset[str]]]]


def model_history(model: Model) -> History:
    return [
        (serial, {name: held.addresses for name, held in sets.items()}) for serial, sets in model.history()
    ]


def told_history(document: Mapping[str, Any]) -> History:
    """Return the records, the oldest first, from the changes that each made."""
    found: History = []
    sets: dict[str, frozenset[str]] = {}
    for record in reversed(document["history"]):
        for change in record["changes"]:
            sets = {**sets, _plain(change["name"]): frozenset(change["new"])}
        sets = {name: addresses for name, addresses in sets.items() if addresses}
        found.append((record["serial"], sets))
    return found


def wrong_reply(
    name: str, kind: str, reply: Reply, allowed: set[Answer | str], reachable: frozenset[str]
) -> str | None:
    """What is wrong with an answer while the state changes; None when it may be given.

    ``allowed`` are the answers that the model gave since the change began. Where addresses become alive one
    after the other, the order is not defined: some of them are as good, as long as one is reachable.
    """
    expected = [expected_reply(answer, kind) for answer in allowed]
    if any((reply.rcode, reply.addresses) == (each.rcode, each.addresses) for each in expected):
        return None
    union = frozenset().union(*(each.addresses for each in expected))
    if reply.rcode == "NOERROR" and reply.addresses <= union:
        if reply.addresses & reachable:
            return None
        whole = frozenset().union(*(a.addresses for a in allowed if isinstance(a, Answer)))
        if not reply.addresses and any(
            family(whole - family(whole, kind), "A" if kind == "AAAA" else "AAAA")
        ):
            return None  # the addresses of the other family are answered
    return f"DNS {name} {kind}: {reply} is none of {sorted(map(str, expected))}"


def _plain(name: str) -> str:
    return name.removesuffix(".")


def _differ(what: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield f"{what}: expected {expected}, got {found}"
