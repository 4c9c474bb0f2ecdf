"""Decide what to publish from what the resolvers said. No I/O, no clock.

`combine` puts the two address types of one resolver together, `observe` the
resolvers and what was published before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dnsproxy.core.learned import MAX_ADDRESSES, LearnedName, canonical_addresses
from dnsproxy.core.registry import Wanted
from dnsproxy.errors import ResolveError


@dataclass(frozen=True, slots=True)
class Answer:
    """The address set of one name and type.

    ``addresses`` is empty for NODATA (RFC 2308 §2.2). ``ttl`` is the smallest
    of the whole chain, in seconds. ``target`` is the name at the end of the
    CNAME chain, None without one.
    """

    addresses: tuple[str, ...]
    ttl: int
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What one resolver said about one name.

    ``error`` is None when it gave addresses. ``complete`` tells that it also
    answered for AAAA, if only to say that there are none.
    """

    resolver: str
    addresses: tuple[str, ...] = ()
    ttl: int = 0
    target: str | None = None
    complete: bool = True
    error: str | None = None


def combine(resolver: str, ipv4: Answer | ResolveError, ipv6: Answer | ResolveError) -> Look:
    """Put the outcomes for A and AAAA together.

    A failed A query fails the look, or an outage would turn a name into an
    IPv6-only one. A failed AAAA query does not: many internal resolvers drop them.
    """
    if isinstance(ipv4, ResolveError):
        return Look(resolver, error=str(ipv4))
    answers = [ipv4]
    if isinstance(ipv6, Answer):
        answers.append(ipv6)
    found = [answer for answer in answers if answer.addresses]
    if not found:
        suffix = f"; AAAA: {ipv6}" if isinstance(ipv6, ResolveError) else ""
        return Look(resolver, error=f"{resolver}: NODATA: the name has no address{suffix}")
    return Look(
        resolver,
        canonical_addresses(address for answer in found for address in answer.addresses),
        min(answer.ttl for answer in found),
        found[0].target,
        complete=isinstance(ipv6, Answer),
    )


def observe(
    previous: LearnedName | None,
    wanted: Wanted,
    looks: Sequence[Look],
    wall_now: float,
    seen_at: float | None = None,
) -> LearnedName:
    """Decide what to publish for ``wanted``: never fewer addresses because of a failure.

    ``previous`` is what was published before; ``wall_now`` is Unix time in
    seconds, ``seen_at`` that at which these looks had ended, which other names may have
    outlasted. The address sets of all resolvers that answered are united.
    """
    # Addresses of another CNAME target are not those of this name.
    known = previous if previous and previous.addresses and previous.cname == wanted.cname else None
    answered = [entry for entry in looks if entry.error is None and entry.addresses]
    if not answered:
        return LearnedName(
            name=wanted.name,
            role=wanted.role,
            registry=wanted.registry,
            addresses=known.addresses if known else (),
            cname=wanted.cname,
            ttl=known.ttl if known else 0,
            # A later time is from a clock that has been set back since; no proxy could tell this name's age.
            observed_at=min(known.observed_at, int(wall_now)) if known else 0,
            resolvers=known.resolvers if known else (),
            status="stale" if known else "failed",
            changed_at=known.changed_at if known else None,
        )
    addresses = {address for entry in answered for address in entry.addresses}
    if known and not any(entry.complete for entry in answered):
        addresses.update(address for address in known.addresses if ":" in address)
    # A proxy takes no snapshot that has more for one name.
    now_seen = canonical_addresses(addresses)[:MAX_ADDRESSES]
    changed_at = known.changed_at if known and known.addresses == now_seen else None
    return LearnedName(
        name=wanted.name,
        role=wanted.role,
        registry=wanted.registry,
        addresses=now_seen,
        cname=wanted.cname,
        ttl=min(entry.ttl for entry in answered),
        observed_at=int(wall_now),
        resolvers=tuple(entry.resolver for entry in answered),
        status="ok",
        changed_at=round(wall_now if seen_at is None else seen_at, 3) if changed_at is None else changed_at,
    )
