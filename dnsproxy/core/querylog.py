"""The query log: one line of JSON for each query, with as much of the client and the name as is wanted."""

from __future__ import annotations

import contextlib
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

FIELDS: Final = {
    "time": "when the query came, UTC, ISO 8601",
    "client": "who asked: an address, a prefix, or nothing, as `clients` says",
    "protocol": "udp, tcp, tls or https",
    "name": "the name that was asked for, in lower case; nothing when `names` says so, or it cannot be read",
    "type": "the type that was asked for; `TYPE65280` for one without a name (RFC 3597)",
    "rcode": "the response code; nothing when no response was sent",
    "source": "what the response was made from: learned, local, cache, stale, forward, error, or dropped",
    "upstream": "which upstream had told, with `source` forward",
    "duration": "seconds from arrival to response",
    "size": "octets of the response, before padding",
    "ede": "Extended DNS Errors in the response (RFC 8914)",
    "reason": "why it was dropped, as `dnsproxy_drops_total` has it",
}
# The same clients ask for the same names.
_REMEMBERED: Final = 4096
_encode = json.JSONEncoder(separators=(",", ":")).encode


def truncated(address: bytes) -> bytes:
    """Return a packed address with what is behind the prefix of its site put to zero."""
    kept = (IPV4_PREFIX if len(address) == 4 else IPV6_PREFIX) // 8
    return address[:kept] + bytes(len(address) - kept)


@lru_cache(maxsize=_REMEMBERED)
def client_text(address: bytes, clients: str) -> str:
    """Return a client as the log has it: an address, or the prefix of its site."""
    if clients == PREFIX:
        length = IPV4_PREFIX if len(address) == 4 else IPV6_PREFIX
        return str(ip_network((truncated(address), length)))
    return str(ip_address(address))


def type_text(qtype: int) -> str:
    """Return ``AAAA`` for 28, and ``TYPE65280`` for one that has no name (RFC 3597 §5)."""
    return TYPE_NAMES.get(qtype) or f"TYPE{qtype}"


@lru_cache(maxsize=_REMEMBERED)
def _name_text(key: bytes) -> str:
    return names.to_text(key)


class _Read:
    """What of a query and its response is read once for all fields."""

    __slots__ = ("errors", "query", "rcode", "seen")

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.query: Query | None = None
        self.rcode: int | None = None
        self.errors: list[int] = []
        with contextlib.suppress(WireError):
            query = scan_query(seen.query)
            # What has no question that could be read has no name either.
            self.query = None if query.question_end == wire.HEADER else query
        if seen.response:
            self.rcode, self.errors = outcome(seen.response)


_Maker = Callable[[_Read], Any]


class QueryLines:
    """Makes lines of ``fields``; ``clients`` is full, prefix or omit, ``names`` is full or omit."""

    def __init__(self, fields: Iterable[str] = FIELDS, clients: str = FULL, names: str = FULL) -> None:
        left_out = ({"client"} if clients == OMIT else set()) | ({"name"} if names == OMIT else set())
        makers = {**_MAKERS, "client": lambda read: client_text(read.seen.client, clients)}
        wanted = set(fields) - left_out
        # In the order of FIELDS, whatever that of the configuration.
        self._makers: list[tuple[str, _Maker]] = [
            (field, makers[field]) for field in FIELDS if field in wanted
        ]

    def line(self, seen: Seen) -> bytes:
        """Return the line of ``seen``, with its end; what does not apply is not in it."""
        read = _Read(seen)
        facts = {}
        for field, make in self._makers:
            value = make(read)
            if value is not None:
                facts[field] = value
        return _encode(facts).encode() + b"\n"


def _time(read: _Read) -> str:
    moment = datetime.fromtimestamp(read.seen.wall, UTC)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


_MAKERS: Final[dict[str, _Maker]] = {
    "time": _time,
    "protocol": lambda read: read.seen.protocol,
    "name": lambda read: None if read.query is None else _name_text(read.query.key),
    "type": lambda read: None if read.query is None else type_text(read.query.qtype),
    "rcode": lambda read: None if read.rcode is None else rcode_name(read.rcode),
    "source": lambda read: "dropped" if read.seen.source == DROPPED else SOURCES[read.seen.source],
    "upstream": lambda read: read.seen.upstream or None,
    "duration": lambda read: round(read.seen.duration, 6),
    "size": lambda read: len(read.seen.response) or None,
    "ede": lambda read: read.errors or None,
    "reason": lambda read: read.seen.reason or None,
}
