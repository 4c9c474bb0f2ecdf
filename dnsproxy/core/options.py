"""EDNS options that belong to one hop over a stream: keepalive (RFC 7828) and padding (RFC 7830).

They are put into messages that were made already, so that nobody who asks over UDP pays for them.
"""

from __future__ import annotations

import struct
from typing import Final

from dnsproxy.core.wire import COUNTS, HEADER, OPT, RECORD, TCP_LIMIT, MalformedError, skip_name

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


def _find_opt(message: bytes) -> tuple[int, int] | None:
    """Return where the data of the OPT starts and ends; None without one.

    Raises:
        IndexError, struct.error, MalformedError: a length leads out of the message.
    """
    _, questions, answers, authorities, additionals = COUNTS.unpack_from(message, 2)
    position = HEADER
    for _ in range(questions):
        position = skip_name(message, position) + 4
    for _ in range(answers + authorities + additionals):
        position = skip_name(message, position)
        rtype, _, _, length = RECORD.unpack_from(message, position)
        position += 10
        if rtype == OPT:
            return position, position + length
        position += length
    return None


def read_options(message: bytes) -> dict[int, bytes]:
    """Return the options of the OPT of ``message`` by code; none when there is none, or it is malformed."""
    found: dict[int, bytes] = {}
    try:
        place = _find_opt(message)
        position, end = place or (0, 0)
        while position < end:
            code, length = _PAIR.unpack_from(message, position)
            position += 4
            found[code] = message[position : position + length]
            position += length
    except (IndexError, struct.error, MalformedError):
        return {}
    return found if position == end <= len(message) else {}


def with_option(message: bytes, option: bytes) -> bytes:
    """Return ``message``, made here, with ``option`` (code, length and data) added to its OPT.

    Without an OPT at its end, or without room for the option, ``message`` as it is.
    """
    place = _find_opt(message)
    if place is None or place[1] != len(message) or len(message) + len(option) > TCP_LIMIT:
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
    data = read_options(message).get(KEEPALIVE, b"")
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
    if idle_seconds is not None:
        response = for_stream(query, response, idle_seconds)
    if _PADDING_HEAD in query and PADDING in read_options(query):
        return padded(response, RESPONSE_BLOCK)
    return response
