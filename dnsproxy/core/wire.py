"""Scan queries without decoding them, and put messages together from bytes.

A scan reads the header, the question and the fixed part of each record, and
checks that every length stays inside the message. Names in record data are never
followed, so a message cannot make the scan loop; what it accepts costs time
linear in its length. Formats: RFC 1035 §4, RFC 6891 §6.1. Responses of upstreams
are scanned in `response`.
"""

from __future__ import annotations

import struct
from typing import Final

from dnsproxy.core.names import MAX_LABEL, MAX_NAME
from dnsproxy.core.native import mypyc_attr
from dnsproxy.errors import DropReason, WireError

# Final, each on its own: the compiler puts such numbers in place, and looks all others up by name.
HEADER: Final = 12
QR: Final = 0x8000
AA: Final = 0x0400
TC: Final = 0x0200
TC_OCTET: Final = 0x02  # the same in the third octet of a message, which is the first of its flags
RD: Final = 0x0100
RA: Final = 0x0080
AD: Final = 0x0020
CD: Final = 0x0010
OPCODE: Final = 0x7800
DO: Final = 0x8000
DO_OCTET: Final = 0x80  # the same in the first octet of the flags

A: Final = 1
NS: Final = 2
CNAME: Final = 5
PTR: Final = 12
SOA: Final = 6
TXT: Final = 16
AAAA: Final = 28
OPT: Final = 41
DS: Final = 43
SVCB: Final = 64
HTTPS: Final = 65
ANY: Final = 255
IN: Final = 1
CH: Final = 3
COOKIE: Final = 10
EXTENDED_ERROR: Final = 15

# What we tell peers that we can receive, and the most we send over UDP: fits the
# smallest IPv6 MTU without fragments (RFC 9715 §3.1).
UDP_SIZE: Final = 1232
UDP_MINIMUM: Final = 512
TCP_LIMIT: Final = 65535
# Options of one OPT. A query with more is at fault: they have no use but to cost time, 5 ms over TCP.
MAX_OPTIONS: Final = 100

COUNTS: Final = struct.Struct(">HHHHH")
RECORD: Final = struct.Struct(">HHIH")
_OPT: Final = struct.Struct(">xHHBBHH")
_OPTION: Final = struct.Struct(">HH")
# Option code 10 with the 8 octets of a client cookie (RFC 7873 §4).
COOKIE_LENGTH: Final = 8
COOKIE_HEAD: Final = _OPTION.pack(COOKIE, COOKIE_LENGTH)
# A header, the root, type and class, an OPT and the cookie.
_SHORTEST_WITH_COOKIE: Final = HEADER + 5 + 11 + 4 + COOKIE_LENGTH - 1


# Response codes that are decided on here (RFC 1035 §4.1.1, RFC 6891 §9). Plain numbers: reading a
# member of an Enum costs 80 ns, and these are compared several times per query.
NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
YXDOMAIN: Final = 6
BADVERS: Final = 16
_RCODE_NAMES: Final = {
    NOERROR: "NOERROR",
    FORMERR: "FORMERR",
    SERVFAIL: "SERVFAIL",
    NXDOMAIN: "NXDOMAIN",
    NOTIMP: "NOTIMP",
    REFUSED: "REFUSED",
    BADVERS: "BADVERS",
}


def rcode_name(rcode: int) -> str:
    """Return ``NXDOMAIN`` for 3; ``RCODE11`` for one that has no name here."""
    return _RCODE_NAMES.get(rcode) or f"RCODE{rcode}"


def rcode_label(rcode: int) -> str:
    """Return ``NXDOMAIN`` for 3; ``other`` for one without a name, so that metric labels stay few."""
    return _RCODE_NAMES.get(rcode, "other")


@mypyc_attr(free_list_len=1)
class Query:
    """A scanned query. ``rcode`` is not NOERROR when the query itself is at fault.

    ``key`` is the question name in lower case. ``question_end`` is the offset
    after the question; 12 when there is none to echo. ``limit`` is the largest
    response that may be sent, in octets. ``cookie`` tells that the message ends
    with an 8-octet client cookie and nothing else depends on those octets.
    """

    # Defaults live on the class: most queries set four of these eleven.
    key = b"\x00"
    question_end = HEADER
    qtype = 0
    qclass = IN
    edns = False
    do = False
    cookie = False
    limit = UDP_MINIMUM
    rcode = NOERROR

    def __init__(self, data: bytes, flags: int) -> None:
        self.data = data
        self.flags = flags

    def head(self) -> bytes:
        """Return the id and the question as the client spelled it."""
        return self.data[:2] + self.data[HEADER : self.question_end]


def scan_query(data: bytes) -> Query:
    """Scan a message that a client sent.

    Faults that the client should hear of are in `Query.rcode`.

    Raises:
        WireError: nothing may be sent back: shorter than a header, or QR set.
    """
    if len(data) < HEADER:
        raise WireError("shorter than a header", DropReason.SHORT)
    flags = data[2] << 8 | data[3]
    questions = data[4] << 8 | data[5]
    answers = data[6] << 8 | data[7]
    authorities = data[8] << 8 | data[9]
    additionals = data[10] << 8 | data[11]
    if flags & QR:
        raise WireError("a response, not a query", DropReason.NOT_A_QUERY)
    query = Query(data, flags)
    try:
        if questions == 1:
            _scan_question(query, data)
        if questions == 1 and not flags & OPCODE:
            if answers or authorities or additionals:
                _scan_additional(query, answers + authorities, additionals)
            elif query.question_end != len(data):
                query.rcode = FORMERR
        else:
            # What it has of an OPT is answered by one (RFC 6891 §6.1.1). Not behind several questions.
            if questions < 2:
                _scan_additional(query, answers + authorities, additionals)
            query.rcode = NOTIMP if flags & OPCODE else FORMERR
    except (IndexError, MalformedError):
        # Messages of other opcodes may have another form (RFC 8490 §5.4).
        query.rcode = NOTIMP if flags & OPCODE else FORMERR
    return query


class MalformedError(Exception):
    """A length that leads out of the message, or a form that is not allowed at its place."""


def _scan_question(query: Query, data: bytes) -> None:
    end = HEADER
    while length := data[end]:
        end += length + 1
        # 0xC0 would be a pointer: there is nothing before the question to point to.
        if length > MAX_LABEL or end >= HEADER + MAX_NAME:
            raise MalformedError
    end += 1
    query.qtype = data[end] << 8 | data[end + 1]
    query.qclass = data[end + 2] << 8 | data[end + 3]
    query.key = data[HEADER:end].lower()
    query.question_end = end + 4


def _scan_additional(query: Query, before: int, additionals: int) -> None:
    """Read the records after the question; only OPT means anything to us (TSIG is hop by hop)."""
    data = query.data
    position = query.question_end
    for index in range(before + additionals):
        start = position
        position = skip_name(data, position)
        is_opt = data[position] == 0 and data[position + 1] == OPT
        position += 10 + (data[position + 8] << 8 | data[position + 9])
        if position > len(data):
            raise MalformedError
        if is_opt:
            if query.edns or index < before or data[start]:
                raise MalformedError
            _scan_opt(query, start, position)
    if position != len(data):
        raise MalformedError


def _scan_opt(query: Query, start: int, end: int) -> None:
    data = query.data
    query.edns = True
    query.do = data[start + 7] & DO_OCTET != 0
    query.limit = min(max(data[start + 3] << 8 | data[start + 4], UDP_MINIMUM), UDP_SIZE)
    if data[start + 6]:
        query.rcode = BADVERS
    position = last = start + 11
    count = 0
    while position < end:
        last = position
        position += 4 + (data[position + 2] << 8 | data[position + 3])
        count += 1
        if count > MAX_OPTIONS:
            raise MalformedError
    if position != end:
        raise MalformedError
    query.cookie = end == len(data) and last == end - 12 and data[last : last + 4] == COOKIE_HEAD


def without_cookie(data: bytes) -> bytes:
    """Return a message without its id and, if it seems to end with a client cookie, without its octets.

    A cookie changes with each query of dig and of unbound and means nothing to us (RFC 7873
    §5.2.1 lets a server ignore it).
    """
    size = len(data)
    if (
        size > _SHORTEST_WITH_COOKIE
        and data[size - 9] == COOKIE_LENGTH
        # The rest of `COOKIE_HEAD` by octets: a slice to compare takes twice the instructions.
        and data[size - 11] == COOKIE
        and not data[size - 10]
        and not data[size - 12]
    ):
        return data[2:-8]
    return data[2:]


def skip_name(data: bytes, position: int) -> int:
    """Return the offset after the name at ``position``; a pointer ends it.

    Raises:
        MalformedError: a label or the name is too long.
        IndexError: the name does not end inside ``data``.
    """
    longest = position + MAX_NAME - 1
    while length := data[position]:
        if length >= 0xC0:
            return position + 2
        position += length + 1
        if length > MAX_LABEL or position > longest:
            raise MalformedError
    return position + 1


def error_option(info_code: int) -> bytes:
    """Return an Extended DNS Error option (RFC 8914 §2) without text."""
    return struct.pack(">HHH", EXTENDED_ERROR, 2, info_code)


# Our OPT with neither options nor DO, which is nearly every one.
_PLAIN_OPT: Final = _OPT.pack(OPT, UDP_SIZE, 0, 0, 0, 0)
# The header of nearly every query to an upstream, after its id: one question, one OPT.
_USUAL_HEAD: Final = COUNTS.pack(RD | AD, 1, 0, 0, 1)


def respond(
    query: Query,
    flags: int,
    rcode: int,
    counts: tuple[int, int, int],
    sections: bytes,
    options: bytes = b"",
) -> bytes:
    """Return the response to ``query``, its id and question as the client sent them.

    ``flags`` may hold AA, AD and RA; QR, opcode, RD and CD are put in here. A
    response over `Query.limit` octets becomes TC with the question and the OPT
    alone (RFC 9715 §3). ``options`` are sent only to a client that sent an OPT; one that did not gets
    SERVFAIL for an RCODE that needs an OPT. RA and CD are clear with NOTIMP: they say nothing there.
    """
    data = query.data
    question = data[HEADER : query.question_end]
    copied = OPCODE | RD | CD
    if rcode > NXDOMAIN:
        if rcode > 0xF and not query.edns:
            rcode = SERVFAIL
        elif rcode == NOTIMP:
            copied = OPCODE | RD
            flags &= ~RA
    flags |= QR | query.flags & copied | rcode & 0xF
    answers, authorities, additionals = counts
    opt = b""
    if query.edns:
        additionals += 1
        opt = _PLAIN_OPT
        if query.do or options or rcode > 0xF:
            opt = _OPT.pack(OPT, UDP_SIZE, rcode >> 4, 0, DO if query.do else 0, len(options)) + options
    if HEADER + len(question) + len(sections) + len(opt) > query.limit:
        flags |= TC
        sections = b""
        answers = authorities = 0
        additionals = 1 if query.edns else 0
    head = _head(flags, 1 if question else 0, answers, authorities, additionals)
    return b"".join([data[:2], head, question, sections, opt])


# Headers after their id, by what is in them: few in practice, and packing one anew costs 0.3 us.
_HEADS: Final[dict[int, bytes]] = {}
_MAX_HEADS: Final = 4096
_MANY: Final = 1 << 11


def _head(flags: int, questions: int, answers: int, authorities: int, additionals: int) -> bytes:
    if answers >= _MANY or authorities >= _MANY or additionals >= _MANY:
        return COUNTS.pack(flags, questions, answers, authorities, additionals)
    key = flags << 34 | questions << 33 | answers << 22 | authorities << 11 | additionals
    head = _HEADS.get(key)
    if head is None:
        if len(_HEADS) >= _MAX_HEADS:
            _HEADS.clear()
        head = _HEADS[key] = COUNTS.pack(flags, questions, answers, authorities, additionals)
    return head


def upstream_query(question: bytes, flags: int, *, edns: bool, do: bool) -> bytes:
    """Return a query without its id: ``flags`` (RD, CD, AD), ``question``, and our own OPT when ``edns``."""
    if not edns:
        return COUNTS.pack(flags, 1, 0, 0, 0) + question
    if flags == RD | AD and not do:
        return _USUAL_HEAD + question + _PLAIN_OPT
    opt = _OPT.pack(OPT, UDP_SIZE, 0, 0, DO, 0) if do else _PLAIN_OPT
    return COUNTS.pack(flags, 1, 0, 0, 1) + question + opt
