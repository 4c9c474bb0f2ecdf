"""Scan the responses of upstreams, and change the TTLs in them.

As in `wire`, nothing is decoded: the scan notes where the TTLs, the OPT and the
CNAME targets are. A whole response is kept and passed on as the octets it came
in, so unknown record types go through untouched (RFC 3597).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

from dnsproxy.core.names import MAX_LABEL, MAX_NAME
from dnsproxy.core.native import mypyc_attr
from dnsproxy.core.wire import (
    CNAME,
    COUNTS,
    EXTENDED_ERROR,
    NXDOMAIN,
    OPT,
    RECORD,
    SOA,
    MalformedError,
    skip_name,
)
from dnsproxy.errors import WireError

_TTL: Final = struct.Struct(">I")
Age = Callable[[bytes, tuple[int, ...], int], bytes]
_OPTION: Final = struct.Struct(">HH")


@mypyc_attr(free_list_len=1)
class Response:
    """A scanned response from an upstream.

    ``rcode`` has the extended bits. ``counts`` are answer, authority and
    additional records without the OPT. ``sections`` is all after the question,
    without the OPT; ``ttl_offsets`` point into it. ``ttl`` is the lifetime in
    seconds by the records alone, None when nothing says one; ``max_ttl`` the longest
    TTL. ``cnames`` are the offsets of CNAME targets in the message. ``opt_inside``:
    records follow the OPT, so ``sections`` cannot be cut out (see `message.without_opt`).
    """

    # Defaults live on the class: most responses set half of these.
    counts = (0, 0, 0)
    sections = b""
    ttl: int | None = None
    max_ttl = 0
    ttl_offsets: tuple[int, ...] = ()
    cnames: tuple[int, ...] = ()
    edns = False
    negative = False
    opt_inside = False

    def __init__(self, flags: int, question_end: int) -> None:
        self.flags = flags
        self.question_end = question_end
        self.rcode = flags & 0xF


def scan_response(data: bytes, question_end: int) -> Response:
    """Scan a response whose question, which ends at ``question_end``, has been matched already.

    Raises:
        WireError: a length leads out of the message, or octets are left over.
    """
    flags = data[2] << 8 | data[3]
    answers = data[6] << 8 | data[7]
    authorities = data[8] << 8 | data[9]
    additionals = data[10] << 8 | data[11]
    response = Response(flags, question_end)
    try:
        _scan_records(response, data, answers, authorities, additionals)
    except (IndexError, struct.error, MalformedError) as exc:
        raise WireError("a record does not end inside the message") from exc
    return response


def _scan_records(response: Response, data: bytes, answers: int, authorities: int, additionals: int) -> None:
    start = position = response.question_end
    before_additional = answers + authorities
    ttl, longest = 0x7FFFFFFF, 0
    soa_minimum: int | None = None
    opt_start = opt_end = 0
    offsets: list[int] = []
    for index in range(before_additional + additionals):
        record = position
        # The owner of nearly every record is a pointer: two octets.
        position = position + 2 if data[position] >= 0xC0 else skip_name(data, position)
        rtype = data[position] << 8 | data[position + 1]
        record_ttl = data[position + 4] << 24 | data[position + 5] << 16 | data[position + 6] << 8
        record_ttl |= data[position + 7]
        length = data[position + 8] << 8 | data[position + 9]
        end = position + 10 + length
        if rtype == OPT:
            if opt_end or index < before_additional:
                raise MalformedError
            opt_start, opt_end = record, end
            response.rcode |= record_ttl >> 24 << 4
            position = end
            continue
        if record_ttl & 0x80000000:
            record_ttl = 0  # RFC 2181 §8
        ttl = min(ttl, record_ttl)
        longest = max(longest, record_ttl)
        offsets.append(position + 4 - start)
        if rtype == CNAME and index < answers:
            response.cnames += (position + 10,)
        elif rtype == SOA and answers <= index < before_additional:
            (soa_minimum,) = _TTL.unpack_from(data, end - 4)
        position = end
    if position != len(data):
        raise MalformedError
    if opt_end:
        response.edns = True
        response.opt_inside = opt_end != position
        additionals -= 1
        position = opt_start
    response.sections = data[start:position]
    response.counts = (answers, authorities, additionals)
    response.ttl_offsets = tuple(offsets)
    response.max_ttl = longest
    _set_lifetime(response, ttl, soa_minimum)


def _set_lifetime(response: Response, ttl: int, soa_minimum: int | None) -> None:
    """Negative responses live as long as their SOA says, and without one not at all (RFC 2308 §5)."""
    response.negative = response.rcode == NXDOMAIN or not response.counts[0] or soa_minimum is not None
    if soa_minimum is not None:
        response.ttl = min(ttl, soa_minimum)
    elif response.ttl_offsets and not response.negative:
        response.ttl = ttl


def error_told(data: bytes, question_end: int) -> int:
    """Return the first Extended DNS Error code in a response that has been scanned, 0 when there is none."""
    found = 0
    try:
        position = question_end
        rtype: int
        length: int
        for _ in range(sum(COUNTS.unpack_from(data, 2)[2:])):
            position = skip_name(data, position)
            rtype, _, _, length = RECORD.unpack_from(data, position)
            position += 10 + length
            if rtype == OPT:
                found = _error_option(data, position - length, position)
    except (IndexError, struct.error, MalformedError):
        return 0
    return found


def _error_option(data: bytes, position: int, end: int) -> int:
    code: int
    length: int
    while position < end:
        code, length = _OPTION.unpack_from(data, position)
        position += 4
        if code == EXTENDED_ERROR and length >= 2 and position + 2 <= end:
            return data[position] << 8 | data[position + 1]
        position += length
    return 0


def read_name(data: bytes, position: int) -> bytes:
    """Return the key of the name at ``position``, following compression pointers.

    Each pointer must lead to before the name it stands in, so the walk ends.

    Raises:
        WireError: the name is too long, leaves the message or points forward.
    """
    wire = bytearray()
    before = position
    try:
        while length := data[position]:
            if length >= 0xC0:
                position = (length & 0x3F) << 8 | data[position + 1]
                if position >= before:
                    raise WireError("a pointer that does not lead back")
                before = position
                continue
            if length > MAX_LABEL or len(wire) + length + 2 > MAX_NAME:
                raise WireError("a label or name that is too long")
            wire += data[position : position + 1 + length]
            position += 1 + length
    except IndexError as exc:
        raise WireError("a name that does not end inside the message") from exc
    return bytes(wire).lower() + b"\x00"


def with_ttls(sections: bytes, offsets: Sequence[int], change: Callable[[int], int]) -> bytes:
    """Return ``sections`` with each TTL put through ``change``."""
    patched = bytearray(sections)
    for offset in offsets:
        (ttl,) = _TTL.unpack_from(patched, offset)
        _TTL.pack_into(patched, offset, change(0 if ttl & 0x80000000 else ttl))
    return bytes(patched)


def _aged(sections: bytes, offsets: tuple[int, ...], elapsed: int) -> bytes:
    pieces: list[bytes] = []
    start = 0
    elapsed = max(elapsed, 0)
    for offset in offsets:
        ttl = sections[offset] << 24 | sections[offset + 1] << 16 | sections[offset + 2] << 8
        ttl |= sections[offset + 3]
        pieces.append(sections[start:offset])
        pieces.append((ttl - elapsed if ttl > elapsed else 0).to_bytes(4, "big"))
        start = offset + 4
    pieces.append(sections[start:])
    return b"".join(pieces)


def _load_aged() -> Age:
    try:
        compiled: Age = import_module("dnsproxy.core._octets").aged
    except ImportError:
        return _aged
    return compiled


aged: Final[Age] = _load_aged()
"""Returns sections with so many seconds taken off the TTLs at the offsets; they stop at 0.

A prepared response comes by here when it is first asked for in a second: at 20,000 queries per second
for 10,000 names every other time. It was a third of what `Engine.receive` then does.
"""
