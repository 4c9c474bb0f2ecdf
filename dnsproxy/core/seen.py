"""One query as those who write queries down see it: who asked what, when, and what they got from where."""

from __future__ import annotations

import struct
from typing import Any, Final

from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.stats import ERROR, FORWARD, STALE
from dnsproxy.core.wire import (
    COUNTS,
    EXTENDED_ERROR,
    HEADER,
    OPT,
    RECORD,
    SERVFAIL,
    MalformedError,
    skip_name,
    without_cookie,
)
from dnsproxy.errors import DropReason

# In place of a number of `stats.SOURCES`: nothing was sent.
DROPPED: Final = -1
_PAIR: Final = struct.Struct(">HH")


class Seen:
    """A query that is to be written down, complete once it has its ``source``.

    ``client`` and ``server`` are packed addresses; ``server`` is empty where the socket is bound to all.
    ``arrived`` is monotonic and ``wall`` Unix seconds, both of the arrival; ``duration`` is seconds until the
    response was sent. ``upstream`` is the name of the one that had told, if any; ``told`` is the exchange
    with its reply, for the first only of those that waited for it. ``writers`` belongs to the shell: who is
    to write it. ``source`` is a number of `stats.SOURCES`, or `DROPPED` with a ``reason`` and without a
    ``response``.
    """

    __slots__ = (
        *("arrived", "client", "client_port", "duration", "protocol", "query", "reason", "response"),
        *("server", "server_port", "source", "told", "upstream", "wall", "writers"),
    )

    def __init__(
        self,
        writers: list[Any],
        protocol: str,
        client: bytes,
        client_port: int,
        query: bytes,
        arrived: float,
    ) -> None:
        self.writers = writers
        self.protocol = protocol
        self.client = client
        self.client_port = client_port
        self.server = b""
        self.server_port = 0
        self.query = query
        self.arrived = arrived
        self.wall = 0.0
        self.duration = 0.0
        self.response = b""
        self.source = DROPPED
        self.reason = ""
        self.upstream = ""
        self.told: Exchange | None = None


def receive_counted(
    engine: Engine, data: bytes, source: bytes, now: float, *, tcp: bool
) -> tuple[bytes | Forward | DropReason, int]:
    """Return what `Engine.receive` does, and what a response was made from (a number of `stats.SOURCES`).

    The engine says that only by counting it. So it counts into an empty table here, in which its own
    number is the first: hits of the prepared table that are settled meanwhile come after it.
    """
    stats = engine.stats
    held = stats.answered
    counted: dict[int, int] = {}
    stats.answered = counted
    try:
        step = engine.receive(data, source, now, tcp=tcp)
    finally:
        stats.answered = held
        for number, count in counted.items():
            held[number] = held.get(number, 0) + count
    if not isinstance(step, bytes):
        return step, DROPPED
    for number in counted:
        return step, number & 7
    # A hit of the prepared table is counted in the table alone.
    return step, engine.prepared.entries[without_cookie(data)].response & 7


def forwarded(exchange: Exchange, other: Exchange | None, response: bytes) -> tuple[int, Exchange | None]:
    """Return what ``response`` to a forwarded query was made from, and the exchange with the reply, if any.

    ``other`` is the partner that ``exchange`` had at its start: one of two that race ends the question.
    """
    if response[3] & 0xF == SERVFAIL:
        # An upstream's is never passed on: ours says that all have failed.
        return ERROR, None
    for one in (exchange, other):
        if one is not None and one.response is not None:
            return FORWARD, one
    return STALE, None


def outcome(response: bytes) -> tuple[int, list[int]]:
    """Return the RCODE, with its upper bits (RFC 6891 §6.1.3), and the Extended DNS Errors of ``response``.

    It was made here, or passed the scan of responses; of one that is malformed still, what can be read.
    """
    rcode = response[3] & 0xF
    errors: list[int] = []
    try:
        _, questions, answers, authorities, additionals = COUNTS.unpack_from(response, 2)
        if not additionals:
            return rcode, errors
        position = HEADER
        for _ in range(questions):
            position = skip_name(response, position) + 4
        for _ in range(answers + authorities + additionals):
            position = skip_name(response, position)
            rtype, _, ttl, length = RECORD.unpack_from(response, position)
            position += 10
            if rtype == OPT:
                rcode |= ttl >> 24 << 4
                errors = _extended_errors(response, position, position + length)
            position += length
    except (IndexError, struct.error, MalformedError):
        pass
    return rcode, errors


def _extended_errors(message: bytes, position: int, end: int) -> list[int]:
    found: list[int] = []
    while position < end:
        code, length = _PAIR.unpack_from(message, position)
        if code == EXTENDED_ERROR and length >= 2:
            found.append(message[position + 4] << 8 | message[position + 5])
        position += 4 + length
    return found
