"""The query log: one line of JSON for each query, with as much of the client and the name as is wanted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final

from dnsproxy.core import names, wire
from dnsproxy.core.message import TYPE_NAMES
from dnsproxy.core.seen import DROPPED, Seen, outcome
from dnsproxy.core.stats import SOURCES
from dnsproxy.core.wire import Query, rcode_name, scan_query
from dnsproxy.errors import WireError

# How much of a client's address is kept with ``prefix``: what one site has of IPv4, and of IPv6 (RFC 6177).
IPV4_PREFIX: Final = 24
IPV6_PREFIX: Final = 56
FULL, PREFIX, OMIT = "full", "prefix", "omit"

FIELDS = (
    *("time", "client", "protocol", "name", "type", "rcode", "source", "upstream"),
    *("duration", "size", "ede", "reason"),
)


def truncated(address: bytes) -> bytes:
    """Return a packed address with what is behind the prefix of its site put to zero."""
    kept = (IPV4_PREFIX if len(address) == 4 else IPV6_PREFIX) // 8
    return address[:kept] + bytes(len(address) - kept)


@lru_cache(maxsize=4096)
def client_text(address: bytes, clients: str) -> str:
    """Return a client as the log has it: an address, or the prefix of its site."""
    if clients == PREFIX:
        length = IPV4_PREFIX if len(address) == 4 else IPV6_PREFIX
        return str(ip_network((truncated(address), length)))
    return str(ip_address(address))


def type_text(qtype: int) -> str:
    """Return ``AAAA`` for 28, and ``TYPE65280`` for one that has no name (RFC 3597 §5)."""
    return TYPE_NAMES.get(qtype) or f"TYPE{qtype}"


class QueryLines:
    """Makes lines of ``fields``; ``clients`` is full, prefix or omit, ``names`` is full or omit."""

    def __init__(self, fields: Iterable[str] = FIELDS, clients: str = FULL, names: str = FULL) -> None:
        left_out = ({"client"} if clients == OMIT else set()) | ({"name"} if names == OMIT else set())
        wanted = set(fields) - left_out
        self._clients = clients
        # In the order of FIELDS, whatever that of the configuration.
        self._makers: list[tuple[str, Callable[[Seen, Query | None], Any]]] = [
            (field, self._maker(field)) for field in FIELDS if field in wanted
        ]

    def _maker(self, field: str) -> Callable[[Seen, Query | None], Any]:
        if field == "client":
            return lambda seen, _query: client_text(seen.client, self._clients)
        return _MAKERS[field]

    def line(self, seen: Seen) -> bytes:
        """Return the line of ``seen``, with its end; what does not apply is not in it."""
        try:
            query: Query | None = scan_query(seen.query)
        except WireError:
            query = None
        facts = {}
        for field, make in self._makers:
            value = make(seen, query)
            if value is not None:
                facts[field] = value
        return json.dumps(facts, separators=(",", ":")).encode() + b"\n"


def _time(seen: Seen, _query: Query | None) -> str:
    return datetime.fromtimestamp(seen.wall, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _name(_seen: Seen, query: Query | None) -> str | None:
    # What has no question that could be read has no name either.
    return None if query is None or query.question_end == wire.HEADER else names.to_text(query.key)


def _type(_seen: Seen, query: Query | None) -> str | None:
    return None if query is None or query.question_end == wire.HEADER else type_text(query.qtype)


def _rcode(seen: Seen, _query: Query | None) -> str | None:
    return rcode_name(outcome(seen.response)[0]) if seen.response else None


def _ede(seen: Seen, _query: Query | None) -> list[int] | None:
    return (outcome(seen.response)[1] or None) if seen.response else None


_MAKERS: Final[dict[str, Callable[[Seen, Query | None], Any]]] = {
    "time": _time,
    "protocol": lambda seen, _query: seen.protocol,
    "name": _name,
    "type": _type,
    "rcode": _rcode,
    "source": lambda seen, _query: "dropped" if seen.source == DROPPED else SOURCES[seen.source],
    "upstream": lambda seen, _query: seen.upstream or None,
    "duration": lambda seen, _query: round(seen.duration, 6),
    "size": lambda seen, _query: len(seen.response) or None,
    "ede": _ede,
    "reason": lambda seen, _query: seen.reason or None,
}
