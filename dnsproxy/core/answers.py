"""The response to one query from what is known: a cached entry, fresh or stale, or a failure."""

from __future__ import annotations

from functools import lru_cache
from math import floor
from typing import Final

from dnsproxy.core import wire
from dnsproxy.core.cache import Entry
from dnsproxy.core.response import aged, with_ttls
from dnsproxy.core.wire import Query

# Extended DNS Errors (RFC 8914 §4).
EDE_STALE: Final = 3
EDE_CACHED_ERROR: Final = 13
EDE_NOT_READY: Final = 14
EDE_PROHIBITED: Final = 18
EDE_STALE_NXDOMAIN: Final = 19
EDE_NOT_AUTHORITATIVE: Final = 20
EDE_NOT_SUPPORTED: Final = 21
EDE_NO_REACHABLE_AUTHORITY: Final = 22
EDE_NETWORK_ERROR: Final = 23
# RFC 8767 §4: stale data goes out with a TTL of at most 30 s, and 30 s is what it recommends.
STALE_TTL: Final = 30
_NO_RECORDS: Final = (0, 0, 0)


def error(query: Query, rcode: int, *reasons: int) -> bytes:
    """Return an empty response with ``rcode`` and the Extended DNS Errors ``reasons``."""
    options = b"".join([wire.error_option(reason) for reason in reasons])
    return wire.respond(query, wire.RA, rcode, _NO_RECORDS, b"", options)


def refuse_stranger(query: Query) -> bytes:
    """Return REFUSED, with the reason if that makes it no larger than the query, which may be forged."""
    response = error(query, wire.REFUSED, EDE_PROHIBITED)
    return response if len(response) <= len(query.data) else error(query, wire.REFUSED)


def truncated(query: Query) -> bytes:
    """Return an empty response that tells the client to ask over TCP."""
    return wire.respond(query, wire.RA | wire.TC, wire.NOERROR, _NO_RECORDS, b"")


def from_entry(query: Query, entry: Entry, now: float) -> bytes:
    """Return the response from a fresh ``entry``."""
    elapsed = floor(now - entry.stored)
    sections = entry.sections
    # What will be truncated is not changed before: a short query must not cost 5,000 TTLs.
    if elapsed and len(sections) <= query.limit:
        sections = aged(sections, entry.ttl_offsets, elapsed)
    # AD is for a client that has said it understands it (RFC 6840 §5.7, §5.8).
    flags = wire.RA
    if entry.flags and (query.do or query.flags & wire.AD):
        flags |= entry.flags
    return wire.respond(query, flags, entry.rcode, entry.counts, sections)


def from_stale(query: Query, entry: Entry) -> bytes:
    """Return the response from an expired ``entry``, without AD: its signatures may have expired too."""
    sections = entry.sections
    if len(sections) <= query.limit:  # else it is truncated
        sections = _stale_sections(entry)
    reason = EDE_STALE_NXDOMAIN if entry.rcode == wire.NXDOMAIN else EDE_STALE
    return wire.respond(query, wire.RA, entry.rcode, entry.counts, sections, wire.error_option(reason))


@lru_cache(maxsize=4)
def _stale_sections(entry: Entry) -> bytes:
    """Return the sections with short TTLs: made once for all clients that wait when an upstream fails."""
    return with_ttls(entry.sections, entry.ttl_offsets, STALE_TTL, STALE_TTL)


def ttl_offsets(query: Query, entry: Entry, response: bytes) -> tuple[int, ...]:
    """Return where the TTLs of ``entry`` are in ``response`` without its id; nowhere after truncation."""
    start = query.question_end - 2
    return () if response[2] & wire.TC_OCTET else tuple([start + offset for offset in entry.ttl_offsets])
