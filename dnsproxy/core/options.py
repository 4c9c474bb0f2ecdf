"""EDNS options that belong to one hop over a stream: keepalive (RFC 7828) and padding (RFC 7830).

They are put into messages that were made already, so that nobody who asks over UDP pays for them.
"""

from __future__ import annotations

import struct
from typing import Final

from dnsproxy.core.wire import (
    COUNTS,
    HEADER,
    MAX_OPTIONS,
    OPT,
    RECORD,
    TCP_LIMIT,
    MalformedError,
    skip_name,
)

KEEPALIVE: Final = 11
PADDING: Final = 12
# Queries and responses are padded to multiples of these many octets (RFC 8467 §4.1).
QUERY_BLOCK: Final = 128
RESPONSE_BLOCK: Final = 468
# A query asks for the timeout with an option that is empty (RFC 7828 §3.2.1).
KEEPALIVE_ASKED: Final = struct.pack(">HH", KEEPALIVE, 0)
_KEEPALIVE_TOLD: Final = struct.pack(">HH", KEEPALIVE, 2)
_PADDING_HEAD: Final = struct.pack(">H", PADDING)
_PAIR: Final = struct.Struct(">HH")
_SHORT: Final = struct.Struct(">H")
# The root and the type of an OPT; bytes before its data; places that look like one that are tried.
_OPT_HEAD: Final = b"\0" + _SHORT.pack(OPT)
_OPT_FIXED: Final = 11
_MAX_LOOKS: Final = 8
# Records of a query that are looked at.
_MAX_RECORDS: Final = 16


def _find_asked(query: bytes) -> tuple[int, int] | None:
    """Return where the data of the OPT of ``query`` starts and ends; None without one.

    It is one of the first records: it has a TSIG beside it at most.

    Raises:
        IndexError, struct.error, MalformedError: a length leads out of the message.
    """
    _, questions, answers, authorities, additionals = COUNTS.unpack_from(query, 2)
    if questions != 1:
        return None
    position = skip_name(query, HEADER) + 4
    for _ in range(min(answers + authorities + additionals, _MAX_RECORDS)):
        position = skip_name(query, position)
        rtype, _, _, length = RECORD.unpack_from(query, position)
        position += 10
        if rtype == OPT:
            return position, position + length
        position += length
    return None


def read_options(query: bytes) -> dict[int, bytes]:
    """Return the options of the OPT of ``query`` by code; none when there is no OPT, or it is malformed.

    Malformed, as in `wire`, are more than `MAX_OPTIONS` as well.
    """
    try:
        return _read(query, _find_asked(query))
    except (IndexError, struct.error, MalformedError):
        return {}


def _read(message: bytes, place: tuple[int, int] | None) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    position, end = place or (0, 0)
    for _ in range(MAX_OPTIONS):
        if position >= end:
            break
        code, length = _PAIR.unpack_from(message, position)
        position += 4
        found[code] = message[position : position + length]
        position += length
    return found if position == end <= len(message) else {}


def _find_last(message: bytes) -> tuple[int, int] | None:
    """Return where the data of the OPT that ends ``message`` starts and ends; None without one.

    Found from the end: a response over TCP may have 4,000 records before it. In one that was made here
    nothing that follows the start of its OPT looks like another; in one of an upstream something may,
    so what is found there is taken for advice only.
    """
    end = len(message)
    position = end if end > HEADER and (message[10] or message[11]) else 0
    for _ in range(_MAX_LOOKS):
        position = message.rfind(_OPT_HEAD, HEADER, position)
        if position < 0:
            break
        start = position + _OPT_FIXED
        if start <= end and start + (message[start - 2] << 8 | message[start - 1]) == end:
            return start, end
        position += len(_OPT_HEAD) - 1
    return None


def with_option(message: bytes, option: bytes) -> bytes:
    """Return ``message``, made here, with ``option`` (code, length and data) added to its OPT.

    Without an OPT at its end, or without room for the option, ``message`` as it is.
    """
    place = _find_last(message)
    if place is None or len(message) + len(option) > TCP_LIMIT:
        return message
    start, end = place
    return b"".join([message[: start - 2], _SHORT.pack(end - start + len(option)), message[start:], option])


def padded(message: bytes, block: int) -> bytes:
    """Return ``message``, made here, padded to a multiple of ``block`` octets if it has an OPT."""
    length = min(-(len(message) + 4) % block, max(TCP_LIMIT - len(message) - 4, 0))
    return with_option(message, _PADDING_HEAD + _SHORT.pack(length) + bytes(length))


def with_keepalive(message: bytes, seconds: float) -> bytes:
    """Return a response that tells for how long an idle connection stays open (RFC 7828 §3.3.2)."""
    return with_option(message, _KEEPALIVE_TOLD + _SHORT.pack(min(int(seconds * 10), 0xFFFF)))


def keepalive_told(message: bytes) -> float | None:
    """Return the seconds that a responder keeps an idle connection; None when it does not tell."""
    if _KEEPALIVE_TOLD not in message:
        return None
    try:
        data = _read(message, _find_last(message)).get(KEEPALIVE, b"")
    except struct.error:
        return None
    return _SHORT.unpack(data)[0] / 10 if len(data) == 2 else None


def for_stream(query: bytes, response: bytes, idle_seconds: float) -> bytes:
    """Return ``response`` with the timeout of idle connections if ``query``, over TCP, asked for it."""
    if KEEPALIVE_ASKED in query and KEEPALIVE in read_options(query):
        return with_keepalive(response, idle_seconds)
    return response


def for_encrypted(query: bytes, response: bytes, idle_seconds: float | None) -> bytes:
    """Return ``response`` padded when ``query`` was, as it must be (RFC 7830 §4).

    ``idle_seconds`` as in `for_stream`; None where HTTP says how long connections stay.
    """
    asks = (idle_seconds is not None and KEEPALIVE_ASKED in query) or _PADDING_HEAD in query
    asked = read_options(query) if asks else {}
    if idle_seconds is not None and KEEPALIVE in asked:
        response = with_keepalive(response, idle_seconds)
    return padded(response, RESPONSE_BLOCK) if PADDING in asked else response
