"""The path that a query would take through the engine, found without taking it.

Nothing is counted, no rotation turns, no cache entry is marked as used and no upstream's
turn to be tried again is spent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from math import floor

from dnsproxy.core import message, names, wire
from dnsproxy.core.cache import Cache, Entry
from dnsproxy.core.engine import Engine
from dnsproxy.core.policy import STALE_TTL, Owned
from dnsproxy.core.question import is_refused_type
from dnsproxy.core.upstreams import Upstream

_CODES = {name: code for code, name in message.TYPE_NAMES.items()}
_UNKNOWN_TYPE = re.compile(r"TYPE([0-9]{1,5})")  # RFC 3597 §5
_MAX_VARIANTS = 256


class Outcome(StrEnum):
    """What the client would get."""

    REFUSED_CLIENT = "refused_client"
    REFUSED_TYPE = "refused_type"
    LEARNED = "learned"
    STALE = "stale"
    NODATA = "nodata"
    NOT_READY = "not_ready"
    CACHE = "cache"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class OwnedView:
    """The owned name that answers: ``rule`` as configured, ``given`` its addresses for the type asked."""

    rule: str
    addresses: tuple[str, ...]
    given: tuple[str, ...]
    cname: str | None
    ttl: int
    stale: bool


@dataclass(frozen=True, slots=True)
class CachedView:
    """A fresh entry. ``variant`` is ``plain``, or the flags of the queries it is for; times are seconds."""

    variant: str
    rcode: str
    age: int
    ttl: int


@dataclass(frozen=True, slots=True)
class UpstreamView:
    """One upstream in the order to try; ``rtt`` in seconds."""

    name: str
    up: bool
    rtt: float | None
    sent: int
    failures: dict[str, int]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``allowed`` is the verdict on a client, None when none was given."""

    key: bytes
    qtype: int
    allowed: bool | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole path; ``zone`` and ``upstreams`` are where it would be forwarded, if it is.

    ``worker`` is the one that was asked, None where one process does everything.
    """

    outcome: Outcome
    owned: OwnedView | None
    cached: tuple[CachedView, ...]
    zone: str
    upstreams: tuple[UpstreamView, ...]
    worker: int | None = None


def type_code(text: str) -> int:
    """Return the code of ``AAAA``, ``https`` or ``TYPE65``.

    Raises:
        ValueError: it is no type.
    """
    word = text.upper()
    code: int | None = _CODES.get(word)
    if code is None and (match := _UNKNOWN_TYPE.fullmatch(word)):
        code = int(match[1])
    if code is None or not 0 < code <= 0xFFFF:
        raise ValueError(f"{text!r} is not a type; write for example A, AAAA or TYPE65")
    return code


def explain(engine: Engine, question: Question, now: float) -> Explanation:
    """Return what ``engine`` would do with ``question`` at ``now`` (monotonic seconds)."""
    owned = engine.rules.find_owned(question.key)
    view = _owned(owned, question.qtype, now) if owned is not None else None
    cached = _cached(engine.cache, question, now)
    zone = engine.rules.find_zone(question.key)
    return Explanation(
        _outcome(question, view, cached),
        view,
        cached,
        names.to_text(zone),
        tuple(_upstream(upstream) for upstream in _order(engine.groups[zone])),
    )


def _outcome(question: Question, owned: OwnedView | None, cached: tuple[CachedView, ...]) -> Outcome:
    if question.allowed is False:
        return Outcome.REFUSED_CLIENT
    if is_refused_type(question.qtype):
        return Outcome.REFUSED_TYPE
    if owned is not None:
        return _owned_outcome(owned)
    # A query of `dig` or of a stub resolver has neither DO nor CD.
    return Outcome.CACHE if any(entry.variant == "plain" for entry in cached) else Outcome.FORWARD


def _owned_outcome(owned: OwnedView) -> Outcome:
    if not owned.addresses:
        return Outcome.NOT_READY
    if owned.stale:
        return Outcome.STALE
    return Outcome.LEARNED if owned.given else Outcome.NODATA


def _owned(owned: Owned, qtype: int, now: float) -> OwnedView:
    gone = not owned.ready or now >= owned.gone_at
    stale = not gone and now >= owned.stale_at
    addresses = () if gone else owned.addresses
    return OwnedView(
        rule=owned.name,
        addresses=addresses,
        given=tuple(address for address in addresses if qtype in (_family(address), wire.ANY)),
        cname=owned.cname,
        ttl=min(owned.ttl, STALE_TTL) if stale else owned.ttl,
        stale=stale,
    )


def _family(address: str) -> int:
    return wire.AAAA if ":" in address else wire.A


def _cached(cache: Cache, question: Question, now: float) -> tuple[CachedView, ...]:
    head = question.key + question.qtype.to_bytes(2, "big") + wire.IN.to_bytes(2, "big")
    found = []
    for variant in range(_MAX_VARIANTS):
        entry = cache._entries.get(head + bytes((variant,)))  # noqa: SLF001 - get() would mark it as used
        if entry is not None and entry.expires > now:
            found.append(_cached_view(entry, variant, now))
    return tuple(found)


def _cached_view(entry: Entry, variant: int, now: float) -> CachedView:
    flags = [name for name, held in (("CD", variant & wire.CD), ("DO", variant & ~wire.CD)) if held]
    return CachedView(
        "+".join(flags) or "plain",
        wire.rcode_name(entry.rcode),
        floor(now - entry.stored),
        floor(entry.expires - now),
    )


def _order(group: tuple[Upstream, ...]) -> list[Upstream]:
    """Return ``group`` as `upstreams.order` would, but for the turn of one that is down to be tried first."""
    return sorted(group, key=lambda upstream: not upstream.stats.up)


def _upstream(upstream: Upstream) -> UpstreamView:
    stats = upstream.stats
    return UpstreamView(upstream.name, stats.up, stats.rtt, stats.sent, dict(stats.failures))
