"""The rules that make findings of facts about addresses, ports, certificates and services. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from dnsproxy.core.challenge import Bearer, judge_bearer, parse_challenges
from dnsproxy.errors import DiscoverError
from dnsproxy.ops.doctor_findings import DnsReply, Finding, fail, ok, skip

HTTP_PORT = 80
# Any suffix: whether the host may be used is judged by the names that are owned, not by its domain.
_ANY = (".",)


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """One address. ``routed`` is that of `guard.is_routed`; ``error`` the kernel's, ``source`` its choice."""

    address: str
    routed: bool | None
    error: str | None
    source: str | None


@dataclass(frozen=True, slots=True)
class Reached:
    """What came of a connection to an address; ``detail`` tells more of a good one."""

    address: str
    error: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A response, or the ``error`` in place of one. ``body`` is its beginning."""

    status: int = 0
    challenges: tuple[str, ...] = ()
    body: bytes = b""
    error: str | None = None

    @property
    def seen(self) -> str:
        """The reply in a few words."""
        return self.error if self.error is not None else f"status {self.status}"


@dataclass(frozen=True, slots=True)
class Registry:
    """What ``/v2/`` of a registry tells: where tokens come from, if anywhere."""

    finding: Finding
    bearer: Bearer | None = None
    problem: str | None = field(default=None)


def judge_route(name: str, facts: Sequence[RouteFacts]) -> Finding:
    """Judge whether the addresses of a name can be reached from here, as far as tables tell."""
    for fact in facts:
        if fact.error is not None:
            return fail(
                "route",
                name,
                f"{fact.address}: the kernel has no route ({fact.error})",
                "add a route to it on this host or its gateway; see `dnsproxy routes`",
            )
    for fact in facts:
        if fact.routed is False:
            return fail(
                "route",
                name,
                f"{fact.address} is not in network.routed",
                "add it to the route tables (`dnsproxy routes --format terraform`), then to network.routed",
            )
    stated = "" if all(fact.routed for fact in facts) else "; network.routed states nothing"
    shown = ", ".join(f"{fact.address} from {fact.source}" for fact in facts)
    return ok("route", name, f"{shown}{stated}")


def judge_port(name: str, port: int, facts: Sequence[Reached], *, required: bool) -> Finding:
    """Judge TCP connections to every address of a name."""
    hop = f"TCP {port}"
    for fact in facts:
        if fact.error is None:
            continue
        seen = f"{fact.address}: {fact.error}"
        if not required:
            return skip(hop, name, f"{seen}; needed only where blobs are redirected to http")
        advice = "is it the right address, do security groups and the way back allow it?"
        return fail(hop, name, seen, advice)
    return ok(hop, name, f"{', '.join(fact.address for fact in facts)} open")


def judge_tls(name: str, facts: Sequence[Reached]) -> Finding:
    """Judge the certificates at every address of a name."""
    for fact in facts:
        if fact.error is not None:
            advice = "does the address belong to this name? is learn.verify.ca_file the right authority?"
            return fail("TLS", name, f"{fact.address}: {fact.error}", advice)
    return ok("TLS", name, f"certificate for the name, {facts[0].detail}")


def judge_v2(name: str, port: int, reply: HttpReply) -> Registry:
    """Judge ``GET /v2/``; with a Bearer challenge the token service stands in the result."""
    if reply.error is not None:
        return Registry(fail("/v2/", name, reply.seen, "does a registry answer at this address?"))
    if reply.status == 200:
        return Registry(ok("/v2/", name, "200, no token is asked for"))
    if reply.status != 401:
        return Registry(fail("/v2/", name, f"{reply.seen} in place of 401", "is it a registry of API v2?"))
    try:
        challenges = parse_challenges(reply.challenges)
    except DiscoverError as exc:
        return Registry(fail("/v2/", name, f"401, {exc}", "is a proxy in the way?"))
    if not challenges:
        return Registry(fail("/v2/", name, "401 without a challenge", "is a proxy in the way?"))
    seen = f"401 with {', '.join(entry.scheme for entry in challenges)}"
    try:
        bearer = judge_bearer(challenges, name, port, _ANY)
    except DiscoverError as exc:
        return Registry(ok("/v2/", name, seen), problem=str(exc))
    return Registry(ok("/v2/", name, seen), bearer)


def judge_realm(
    name: str,
    registry: Registry,
    owned: bool,  # noqa: FBT001 - facts of one call
    reply: DnsReply | None,
    elsewhere: str = "",
) -> Finding:
    """Judge where the registry sends clients for tokens; ``reply`` is what the resolver says of that host.

    ``elsewhere`` says where clients of a provider without token service get their passwords.
    """
    advice = "set `auth` of the registry to this host, or to discover"
    if registry.problem is not None:
        return fail("realm", name, registry.problem, "mend the token service's address in the registry")
    bearer = registry.bearer
    if bearer is None:
        more = f"; {elsewhere}" if elsewhere else ""
        return skip("realm", name, f"no Bearer challenge: no token service is needed{more}")
    host = bearer.host.removesuffix(".")
    if bearer.taken_over:
        return ok("realm", name, f"{host}: the registry itself")
    if not owned:
        return fail("realm", name, f"{host} is not among the owned names", advice)
    if reply is None or reply.error is not None or not reply.addresses:
        seen = reply.seen if reply else "not asked"
        return fail("realm", name, f"{host} does not resolve: {seen}", advice)
    return ok("realm", name, f"{host} → {', '.join(reply.addresses)}")


def judge_token(host: str, reply: HttpReply) -> Finding:
    """Judge the token service: anonymous clients get a token, or are asked who they are."""
    advice = "does the auth name lead to the token service?"
    if reply.error is not None:
        return fail("token service", host, reply.seen, advice)
    if reply.status == 200:
        if _has_token(reply.body):
            return ok("token service", host, "200, an anonymous token")
        return fail("token service", host, "200 without a token", advice)
    if reply.status in {400, 401, 403}:
        return ok("token service", host, f"{reply.seen}: it asks for credentials")
    return fail("token service", host, reply.seen, advice)


def _has_token(body: bytes) -> bool:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and bool(document.get("token") or document.get("access_token"))


def judge_storage(name: str, reply: HttpReply) -> Finding:
    """Judge the storage host: without a signed URL a refusal is what a storage service gives."""
    if reply.error is not None or reply.status >= 500:
        return fail("storage", name, reply.seen, "does the address belong to the storage service?")
    return ok("storage", name, f"{reply.seen} without a signed URL")
