"""The path that a query would take through the engine, found without taking it.

Nothing is counted, no rotation turns, no cache entry is marked as used, and nothing is drawn
by lot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from math import floor

from dnsproxy.core import message, names, wire
from dnsproxy.core.cache import Entry
from dnsproxy.core.engine import Engine
from dnsproxy.core.policy import DEFAULT_ZONE, STALE_TTL, Owned
from dnsproxy.core.question import is_refused_type
from dnsproxy.core.upstreams import Upstream

_CODES = {name: code for code, name in message.TYPE_NAMES.items()}
_UNKNOWN_TYPE = re.compile(r"TYPE([0-9]{1,5})")  # RFC 3597 §5
_MAX_VARIANTS = 256


class Outcome(StrEnum):
    """What the client would get."""

    REFUSED_CLIENT = "refused_client"
    RATE_LIMITED = "rate_limited"
    REFUSED_TYPE = "refused_type"
    LEARNED = "learned"
    STALE = "stale"
    NODATA = "nodata"
    NOT_READY = "not_ready"
    CACHE = "cache"
    SPECIAL = "special"
    REVERSE = "reverse"
    MINIMAL_ANY = "minimal_any"
    NXDOMAIN_CUT = "nxdomain_cut"
    STALE_CACHE = "stale_cache"
    FAILED = "failed"
    JOIN = "join"
    NO_UPSTREAM = "no_upstream"
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
    """A cached answer. ``variant`` is ``plain``, or the flags of the queries it is for; times are seconds.

    ``ttl`` is 0 for one that has expired; ``stale_for`` is then for how much longer it is given when
    upstreams fail. ``prefetch_in`` is when the next hit has a busy one asked for anew; None when none does.
    """

    variant: str
    rcode: str
    age: int
    ttl: int
    stale_for: int = 0
    prefetch_in: int | None = None


@dataclass(frozen=True, slots=True)
class FailureView:
    """The question failed lately: ``ede`` says why, and it is not asked again for ``seconds``."""

    ede: int
    seconds: float


@dataclass(frozen=True, slots=True)
class UpstreamView:
    """One upstream in the order to try; ``rtt`` in seconds. One that is ``looped`` is not tried."""

    name: str
    up: bool
    rtt: float | None
    sent: int
    failures: dict[str, int]
    looped: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``allowed`` is the verdict on a client, None when none was given.

    ``client`` is its packed address.
    """

    key: bytes
    qtype: int
    allowed: bool | None = None
    client: bytes | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole path; ``zone`` and ``upstreams`` are where it would be forwarded, if it is.

    ``special`` is the special-use zone that holds the name, ``failure`` what is remembered of a
    failure, ``waiting`` how many clients wait for the same answer now (None: it is not being
    asked for), and ``policy`` how the upstreams are put in order. ``worker`` is the one that was
    asked, None where one process does everything.
    """

    outcome: Outcome
    owned: OwnedView | None
    cached: tuple[CachedView, ...]
    zone: str
    upstreams: tuple[UpstreamView, ...]
    worker: int | None = None
    special: str | None = None
    failure: FailureView | None = None
    waiting: int | None = None
    policy: str = "sequential"


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
    zone = engine.rules.find_zone(question.key)
    special = engine.special.find(question.key) if zone == DEFAULT_ZONE else None
    # A query of `dig` or of a stub resolver has neither DO nor CD.
    plain = _variants(question)[0]
    failed = engine.exchanges.failures.get(plain, now)
    group = engine.groups[zone]
    order = (*group.expected_order(), *(upstream for upstream in group.members if upstream.looped))
    found = Explanation(
        Outcome.FORWARD,
        _owned(owned, question.qtype, now) if owned is not None else None,
        _cached(engine, question, now),
        names.to_text(zone),
        tuple(_upstream(upstream) for upstream in order),
        special=None if special is None else names.to_text(special),
        failure=None if failed is None else FailureView(failed.ede, max(failed.until - now, 0.0)),
        waiting=engine.exchanges.waiting(plain),
        policy=group.policy,
    )
    return replace(found, outcome=_outcome(engine, question, found, now))


def _outcome(engine: Engine, question: Question, found: Explanation, now: float) -> Outcome:
    refused = _refused(engine, question, now)
    if refused is not None:
        return refused
    if found.owned is not None:
        return _owned_outcome(found.owned)
    if any(entry.ttl and entry.variant == "plain" for entry in found.cached):
        return Outcome.CACHE
    if found.special is not None:
        return Outcome.SPECIAL if engine.rules.find_reverse(question.key) is None else Outcome.REVERSE
    if engine.features.minimal_any and question.qtype == wire.ANY:
        return Outcome.MINIMAL_ANY
    cuts, zone = engine.exchanges.cuts, names.to_key(found.zone)
    if cuts is not None and cuts.find(zone, question.key, now) is not None:
        return Outcome.NXDOMAIN_CUT
    return _forwarded_outcome(found)


def _refused(engine: Engine, question: Question, now: float) -> Outcome | None:
    if question.allowed is False:
        return Outcome.REFUSED_CLIENT
    if engine.limiter is not None and question.client is not None:
        left = engine.limiter.left(question.client, now)
        if left is not None and left < 1.0:
            return Outcome.RATE_LIMITED
    return Outcome.REFUSED_TYPE if is_refused_type(question.qtype) else None


def _forwarded_outcome(found: Explanation) -> Outcome:
    stale = any(entry.stale_for and entry.variant == "plain" for entry in found.cached)
    usable = [upstream for upstream in found.upstreams if upstream.up and not upstream.looped]
    if stale and (found.failure is not None or not usable):
        return Outcome.STALE_CACHE
    if found.failure is not None and found.failure.seconds > 0:
        return Outcome.FAILED
    if found.waiting is not None:
        return Outcome.JOIN
    if all(upstream.looped for upstream in found.upstreams):
        return Outcome.NO_UPSTREAM
    return Outcome.FORWARD


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


def _variants(question: Question) -> list[bytes]:
    """Return the cache key of the question for every set of flags, for none first."""
    head = question.key + question.qtype.to_bytes(2, "big") + wire.IN.to_bytes(2, "big")
    return [head + bytes((variant,)) for variant in range(_MAX_VARIANTS)]


def _cached(engine: Engine, question: Question, now: float) -> tuple[CachedView, ...]:
    found = []
    for variant, key in enumerate(_variants(question)):
        entry = engine.cache.peek(key)
        if entry is not None and now < entry.expires + engine.cache.stale_for:
            found.append(_cached_view(engine, entry, variant, now))
    return tuple(found)


def _cached_view(engine: Engine, entry: Entry, variant: int, now: float) -> CachedView:
    flags = [name for name, held in (("CD", variant & wire.CD), ("DO", variant & ~wire.CD)) if held]
    fresh = now < entry.expires
    prefetch_at = engine.prefetch_at(entry)
    return CachedView(
        "+".join(flags) or "plain",
        wire.rcode_name(entry.rcode),
        floor(now - entry.stored),
        max(floor(entry.expires - now), 0),
        0 if fresh else floor(entry.expires + engine.cache.stale_for - now),
        max(floor(prefetch_at - now), 0) if fresh and prefetch_at < entry.expires else None,
    )


def _upstream(upstream: Upstream) -> UpstreamView:
    stats = upstream.stats
    return UpstreamView(
        upstream.name, stats.up, stats.rtt, stats.sent, dict(stats.failures), looped=stats.looped
    )
