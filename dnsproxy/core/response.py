"""Scan the responses of upstreams, and change the TTLs in them.

As in `wire`, nothing is decoded: the scan notes where the TTLs, the OPT and the
CNAMEs are. A whole response is kept and passed on as the bytes it came
in, so unknown record types go through untouched (RFC 3597). What a resolver behind us would not read is
malformed: a name whose pointers do not end, or record data that does not fit its type. Each label of a
message is visited once, however many pointers lead to it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

from dnsproxy.core.names import MAX_LABEL, MAX_NAME
from dnsproxy.core.native import mypyc_attr
from dnsproxy.core.records import Names
from dnsproxy.core.wire import (
    AA,
    AAAA,
    ANY,
    CNAME,
    EXTENDED_ERROR,
    HEADER,
    HTTPS,
    IN,
    MAX_OPTIONS,
    NOERROR,
    NXDOMAIN,
    OPT,
    SOA,
    SVCB,
    A,
    MalformedError,
    skip_name,
)
from dnsproxy.errors import WireError

# Records of a response that is used: a set of so many addresses fills a message over TCP.
MAX_RECORDS: Final = 4096
# CNAMEs of an answer whose chain is followed. Real chains have two or three; BIND follows 11, unbound 12.
MAX_CNAMES: Final = 16
# Runs of address records with the same owner, other than the question, that are looked at.
MAX_STRAYS: Final = 128
# Owners of the type asked for that are compared with the question's, where they are written otherwise.
_MAX_OWNERS: Final = 8
# Records behind the OPT that may be kept; it is the last one of nearly every response.
_MAX_KEPT: Final = 64
_TTL: Final = struct.Struct(">I")
# More than any TTL, which has 31 bits.
_BEYOND: Final = 0x80000000
# Labels and pointers of one name: 127 labels, each followed by one pointer.
_MAX_RUNS: Final = 127
# Labels that pointers may lead to in any message, in a long one more (see `_follow`).
_FREE_LABELS: Final = 64
# Types whose data is one name, and the bytes before it: NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME; MX, AFSDB,
# RT, KX; SRV (RFC 1035 §3.3, RFC 1183, RFC 2230, RFC 2782, RFC 6672).
_BEFORE_NAME: Final = dict.fromkeys((2, 3, 4, 5, 7, 8, 9, 12, 39), 0) | {15: 2, 18: 2, 21: 2, 36: 2, 33: 6}
# Serial, refresh, retry, expire and minimum behind the two names of an SOA (RFC 1035 §3.3.13).
_SOA_NUMBERS: Final = 20
Age = Callable[[bytes, tuple[int, ...], int], bytes]
_OPTION: Final = struct.Struct(">HH")


@mypyc_attr(free_list_len=1)
class Response:
    """A scanned response from an upstream.

    ``rcode`` has the extended bits. ``counts`` are answer, authority and
    additional records without the OPT. ``sections`` is all after the question,
    without the OPT; ``ttl_offsets`` point into it. ``ttl`` is the lifetime in seconds by the
    records alone, None when nothing says one; ``max_ttl`` the longest TTL. ``cnames``
    are the offsets in the message of the first `MAX_CNAMES` CNAME records of the
    answer, and of one more if there is one; ``strays`` those of `MAX_STRAYS` records with addresses, and of
    one more, in any section, whose owner is written neither as the question's nor as the one before, and of
    HTTPS and SVCB records for another name.
    ``negative`` tells that no record is of the type asked for, whatever the authority section holds, or that
    it is NXDOMAIN. ``opt`` is the offset of the OPT, 0 without one.
    """

    # Defaults live on the class: most responses set half of these.
    counts = (0, 0, 0)
    sections = b""
    ttl: int | None = None
    max_ttl = 0
    ttl_offsets: tuple[int, ...] = ()
    cnames: tuple[int, ...] = ()
    strays: tuple[int, ...] = ()
    edns = False
    opt = 0
    negative = False

    def __init__(self, flags: int, question_end: int) -> None:
        self.flags = flags
        self.question_end = question_end
        self.rcode = flags & 0xF

    @property
    def is_referral(self) -> bool:
        """Whether a response without a lifetime has servers to ask in place of an answer."""
        answers, authorities, _ = self.counts
        return not answers and authorities > 0 and not self.flags & AA and self.rcode == NOERROR


class TooManyRecordsError(WireError):
    """A response that costs more to use than any that has a purpose."""


def scan_response(data: bytes, question_end: int) -> Response:
    """Scan a response whose question, which ends at ``question_end``, has been matched already.

    Raises:
        TooManyRecordsError: more than `MAX_RECORDS`.
        WireError: a length or a name leads out of the message, a name does not end, or record data does not
            fit its type. What follows the last record is ignored.
    """
    flags = data[2] << 8 | data[3]
    answers = data[6] << 8 | data[7]
    authorities = data[8] << 8 | data[9]
    additionals = data[10] << 8 | data[11]
    if answers + authorities + additionals > MAX_RECORDS:
        raise TooManyRecordsError(f"more than {MAX_RECORDS} records")
    response = Response(flags, question_end)
    try:
        _scan_records(response, data, answers, authorities, additionals)
    except (IndexError, struct.error, MalformedError) as exc:
        raise WireError("a record that does not end inside the message, or does not fit its type") from exc
    return response


# One pass over up to 4,096 records, where a call for each costs more than the rest.
def _scan_records(  # noqa: C901, PLR0912, PLR0915 - see above
    response: Response, data: bytes, answers: int, authorities: int, additionals: int
) -> None:
    start = position = response.question_end
    before_additional = answers + authorities
    ttl, longest = 0x7FFFFFFF, 0
    soa_minimum: int | None = None
    opt = opt_end = 0
    qtype = data[start - 4] << 8 | data[start - 3]
    has_type = qtype == ANY and answers > 0
    others = 0
    names: Names | None = None
    owner = b""
    offsets: list[int] = []
    # Where labels start that lead to the end of a name, with its length from there; most messages need none.
    known: dict[int, int] | None = None
    for index in range(before_additional + additionals):
        record = position
        # The owner of nearly every record is a pointer, two bytes, or the root.
        first = data[position]
        if first == 0xC0 and data[position + 1] == HEADER:
            position += 2
        elif first:
            known = {} if known is None else known
            position = _name_end(data, position, known)
        else:
            position += 1
        rtype = data[position] << 8 | data[position + 1]
        record_ttl = data[position + 4] << 24 | data[position + 5] << 16 | data[position + 6] << 8
        record_ttl |= data[position + 7]
        length = data[position + 8] << 8 | data[position + 9]
        end = position + 10 + length
        if rtype == OPT:
            if opt or index < before_additional:
                raise MalformedError
            opt, opt_end = record, end
            response.rcode |= record_ttl >> 24 << 4
            position = end
            continue
        if rtype == A:
            if length != 4 and _is_internet(data, position):
                raise MalformedError
        elif rtype == AAAA:
            if length != 16 and _is_internet(data, position):
                raise MalformedError
        elif rtype in _BEFORE_NAME:
            known = {} if known is None else known
            if _name_end(data, position + 10 + _BEFORE_NAME[rtype], known) != end:
                raise MalformedError
        elif rtype == SOA:
            known = {} if known is None else known
            _check_soa(data, position + 10, end, known)
        if record_ttl & 0x80000000:
            record_ttl = 0  # RFC 2181 §8
            longest = _BEYOND  # so that it is changed in what clients get
        # Not by `min` and `max`: a call of each takes as long as all of this.
        if record_ttl < ttl:  # noqa: PLR1730 - see above
            ttl = record_ttl
        if record_ttl > longest:  # noqa: PLR1730 - see above
            longest = record_ttl
        offsets.append(position + 4 - start)
        if rtype == qtype and index < answers and not has_type:
            # Nearly every owner is C0 0C, the question's, or the end of an alias.
            if (first == 0xC0 and data[record + 1] == HEADER) or response.cnames:
                has_type = True
            elif others < _MAX_OWNERS:
                names = names or Names(data)
                has_type = names.read(record).lower() == names.read(HEADER).lower()
                others += not has_type
        if rtype == A or rtype == AAAA or rtype == HTTPS or rtype == SVCB:  # noqa: PLR1714, SIM109 - takes a set
            # An owner C0 0C is the question's.
            is_other = first != 0xC0 or data[record + 1] != HEADER
            # Not an address, but a name with its addresses, unless that is the owner.
            if rtype != A and rtype != AAAA and length > 2 and data[position + 12]:  # noqa: PLR1714 - takes a set
                if len(response.strays) <= MAX_STRAYS:
                    response.strays += (record,)
                owner = b""
            elif is_other and len(response.strays) <= MAX_STRAYS and data[record:position] != owner:
                owner = data[record:position]
                response.strays += (record,)
        elif rtype == CNAME and index < answers:
            if len(response.cnames) <= MAX_CNAMES:
                response.cnames += (record,)
        elif rtype == SOA and answers <= index < before_additional:
            minimum: int
            (minimum,) = _TTL.unpack_from(data, end - 4)
            soa_minimum = minimum if soa_minimum is None else min(minimum, soa_minimum)
        position = end
    if position > len(data):
        raise MalformedError
    if others and not has_type:
        if not response.cnames:
            raise MalformedError  # of another name, to which nothing leads
        has_type = True
    all_end = position
    if opt:
        response.edns = True
        response.opt = opt
        additionals -= 1
        position = opt
    response.sections = data[start:position]
    response.counts = (answers, authorities, additionals)
    response.ttl_offsets = tuple(offsets)
    response.max_ttl = longest
    if opt_end and opt_end != all_end:
        _keep_after_opt(response, data, opt_end)
    response.negative = response.rcode == NXDOMAIN or not has_type
    # A negative response lives as long as its SOA says, and without one not at all (RFC 2308 §5).
    if not response.negative:
        response.ttl = ttl
    elif soa_minimum is not None:
        response.ttl = min(ttl, soa_minimum)


def scan_cut(data: bytes, question_end: int) -> Response:
    """Return what is known of a truncated response: where the CNAMEs are that are left of its answer."""
    response = Response(data[2] << 8 | data[3], question_end)
    position = question_end
    try:
        for _ in range(min(data[6] << 8 | data[7], MAX_RECORDS)):
            record = position
            position = skip_name(data, position)
            rtype = data[position] << 8 | data[position + 1]
            position += 10 + (data[position + 8] << 8 | data[position + 9])
            if position > len(data) or len(response.cnames) > MAX_CNAMES:
                break
            if rtype == CNAME:
                response.cnames += (record,)
    except (IndexError, MalformedError):
        pass  # where it was cut
    return response


def _is_internet(data: bytes, position: int) -> bool:
    """Return whether the record with its type at ``position`` has the class IN."""
    return data[position + 3] == IN and not data[position + 2]


def _check_soa(data: bytes, position: int, end: int, known: dict[int, int]) -> None:
    position = _name_end(data, _name_end(data, position, known), known)
    if position + _SOA_NUMBERS != end:
        raise MalformedError


def _name_end(data: bytes, position: int, known: dict[int, int]) -> int:
    """Return the offset after the name at ``position``, whose pointer has been followed to its end."""
    start = position
    while length := data[position]:
        if length >= 0xC0:
            led = (length & 0x3F) << 8 | data[position + 1]
            if led >= start:
                raise MalformedError
            tail = known[led] if led in known else _follow(data, led, known)
            if position - start + tail > MAX_NAME:
                raise MalformedError
            return position + 2
        position += length + 1
        if length > MAX_LABEL or position - start >= MAX_NAME:
            raise MalformedError
    return position + 1


def _follow(data: bytes, position: int, known: dict[int, int]) -> int:
    """Return the length of the name that starts in the middle of another one, at ``position``."""
    # A label of real names has 5 bytes on average, and is followed once.
    if len(known) > _FREE_LABELS + len(data) // 4:
        raise MalformedError
    # Offsets of labels and of the pointer behind them, and the end of these labels; the first ones first.
    runs: list[tuple[list[int], int]] = []
    tail = known.get(position, 0)
    while not tail:
        if position < HEADER or len(runs) > _MAX_RUNS:
            raise MalformedError
        offsets, end = _labels(data, position, known)
        runs.append((offsets, end))
        length = data[end]
        if end in known:
            tail = known[end]
        elif length:
            led = (length & 0x3F) << 8 | data[end + 1]
            # Each run starts before the last one, so the walk ends.
            if length < 0xC0 or led >= position:
                raise MalformedError
            position = led
            tail = known.get(led, 0)
        else:
            tail = 1
    for offsets, end in reversed(runs):
        behind = end + tail
        for offset in offsets:
            known[offset] = behind - offset
        known[end] = tail
        tail = behind - offsets[0] if offsets else tail
        if tail > MAX_NAME:
            raise MalformedError
    return tail


def _labels(data: bytes, position: int, known: dict[int, int]) -> tuple[list[int], int]:
    """Return the offsets of the labels from ``position`` on, and that of what ends them."""
    offsets: list[int] = []
    longest = position + MAX_NAME
    while position not in known and 0 < (length := data[position]) <= MAX_LABEL:
        offsets.append(position)
        position += length + 1
        if position > longest:
            raise MalformedError
    return offsets, position


def _keep_after_opt(response: Response, data: bytes, position: int) -> None:
    """Put what is behind the OPT, from ``position`` on, behind what is before it.

    Names there may point to what is behind the OPT, which is then elsewhere. So only the first
    address records are kept, with owners that point to what is before it; others are additional anyway.
    """
    start = response.question_end
    before = [offset for offset in response.ttl_offsets if start + offset < response.opt]
    answers, authorities, additionals = response.counts
    additionals -= len(response.ttl_offsets) - len(before)
    kept: list[bytes] = []
    length = response.opt - start
    for _ in range(min(len(response.ttl_offsets) - len(before), _MAX_KEPT)):
        record = position
        position = skip_name(data, record)
        owner = position - record
        led = data[position - 2] << 8 | data[position - 1]
        rtype = data[position] << 8 | data[position + 1]
        position += 10 + (data[position + 8] << 8 | data[position + 9])
        # What looks like a pointer may be the end of a label: all the same.
        if rtype in {A, AAAA} and led < 0xC000 | response.opt:
            kept.append(data[record:position])
            before.append(length + owner + 4)
            length += position - record
    response.sections += b"".join(kept)
    response.counts = (answers, authorities, additionals + len(kept))
    response.ttl_offsets = tuple(before)


def errors_told(data: bytes, opt: int) -> list[int]:
    """Return the Extended DNS Error codes of a response that has its OPT at ``opt``; none when that is 0.

    The response has been scanned. No more than `MAX_OPTIONS` options are looked at.
    """
    found: list[int] = []
    if not opt:
        return found
    position = skip_name(data, opt) + 10
    end = position + (data[position - 2] << 8 | data[position - 1])
    for _ in range(MAX_OPTIONS):
        if position + 4 > end:
            break
        code: int
        length: int
        code, length = _OPTION.unpack_from(data, position)
        position += 4
        if code == EXTENDED_ERROR and length >= 2 and position + 2 <= end:
            found.append(data[position] << 8 | data[position + 1])
        position += length
    return found


def with_ttls(sections: bytes, offsets: Sequence[int], low: int, high: int, less: int = 0) -> bytes:
    """Return ``sections`` with ``less`` seconds taken off each TTL, which then is ``low`` to ``high``."""
    pieces: list[bytes] = []
    start = 0
    lowest, highest = low.to_bytes(4, "big"), high.to_bytes(4, "big")
    for offset in offsets:
        held = sections[offset] << 24 | sections[offset + 1] << 16 | sections[offset + 2] << 8
        held |= sections[offset + 3]
        # RFC 2181 §8
        ttl = 0 if held & 0x80000000 else held - less
        if low <= ttl <= high and ttl == held:
            continue
        pieces.append(sections[start:offset])
        pieces.append(lowest if ttl < low else highest if ttl > high else ttl.to_bytes(4, "big"))
        start = offset + 4
    pieces.append(sections[start:])
    return b"".join(pieces)


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
