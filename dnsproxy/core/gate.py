"""What a client gets that may not ask, or that asks over its rate."""

from __future__ import annotations

from dnsproxy.core import answers, wire
from dnsproxy.core.limiter import SLIPS
from dnsproxy.core.stats import ERROR, Stats, response_number
from dnsproxy.errors import DropReason, WireError


def refuse_client(stats: Stats, data: bytes) -> bytes | DropReason:
    """Answer, or drop, what comes from where nobody may ask."""
    stats.drops[DropReason.REFUSED_CLIENT] += 1
    try:
        query = wire.scan_query(data)
    except WireError:
        return DropReason.REFUSED_CLIENT
    stats.count_response(response_number(wire.REFUSED, ERROR))
    return answers.refuse_stranger(query)


def limit_client(stats: Stats, data: bytes, verdict: int) -> bytes | DropReason:
    """Drop what a client asks over its rate; with `limiter.SLIPS` tell it to come over TCP."""
    stats.drops[DropReason.RATE_LIMITED] += 1
    if verdict == SLIPS:
        try:
            query = wire.scan_query(data)
        except WireError:
            return DropReason.RATE_LIMITED
        if not query.rcode:
            stats.count_response(response_number(wire.NOERROR, ERROR))
            return answers.truncated(query)
    return DropReason.RATE_LIMITED
