from __future__ import annotations

import dns.edns
import dns.message
import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import names, wire
from dnsproxy.core.wire import respond, scan_query, upstream_query
from dnsproxy.errors import DropReason, WireError
from tests.messages import query, read

COOKIE = dns.edns.OptionType.COOKIE
PRIVATE = dns.edns.OptionType.make(65001)
PLAIN = query("www.Example.", use_edns=False)


def edns(*options: dns.edns.Option, payload: int = 1232, do: bool = False, version: int = 0) -> bytes:
    return query("www.example.", use_edns=version, payload=payload, options=list(options), want_dnssec=do)


def test_a_plain_query() -> None:
    scanned = scan_query(PLAIN)
    assert scanned.key == names.to_key("www.example")
    assert (scanned.qtype, scanned.qclass, scanned.rcode) == (1, 1, 0)
    assert scanned.question_end == len(PLAIN)
    assert (scanned.edns, scanned.do, scanned.limit, scanned.cookie) == (False, False, 512, False)


@pytest.mark.parametrize(("payload", "limit"), [(0, 512), (512, 512), (800, 800), (1232, 1232), (4096, 1232)])
def test_p15_limit_is_the_clients_size_within_ours(payload: int, limit: int) -> None:
    assert scan_query(edns(payload=payload)).limit == limit


def test_p14_do_and_version() -> None:
    assert scan_query(edns(do=True)).do
    assert scan_query(edns(version=1)).rcode == wire.BADVERS


def test_a_client_cookie_at_the_end_is_noticed() -> None:
    cookie = dns.edns.GenericOption(COOKIE, b"12345678")
    other = dns.edns.GenericOption(PRIVATE, b"x")
    assert scan_query(edns(cookie)).cookie
    assert scan_query(edns(other, cookie)).cookie
    assert not scan_query(edns(cookie, other)).cookie
    assert not scan_query(edns(dns.edns.GenericOption(COOKIE, b"12345678" * 2))).cookie
    # An option that merely ends in the octets of a cookie is none.
    assert not scan_query(edns(dns.edns.GenericOption(PRIVATE, b"\0\x0a\0\x0812345678"))).cookie


@pytest.mark.parametrize("length", range(12))
def test_p09_shorter_than_a_header_is_dropped(length: int) -> None:
    with pytest.raises(WireError) as caught:
        scan_query(PLAIN[:length])
    assert caught.value.reason is DropReason.SHORT


def test_p09_a_response_is_dropped() -> None:
    with pytest.raises(WireError) as caught:
        scan_query(PLAIN[:2] + b"\x81" + PLAIN[3:])
    assert caught.value.reason is DropReason.NOT_A_QUERY


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:4] + b"\0\0" + PLAIN[6:],
        PLAIN[:4] + b"\0\2" + PLAIN[6:],
        PLAIN[:-1],
        PLAIN[:12],
        PLAIN + b"\0",
        PLAIN[:12] + b"\xc0\x0c\0\1\0\1",
        PLAIN[:12] + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
        PLAIN[:12] + b"\x80abc\0\0\1\0\1",
        PLAIN[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
        PLAIN[:10] + b"\0\1" + PLAIN[12:],
        edns()[:-1],
        edns() + b"\0",
        edns()[:11] + b"\2" + edns()[12:] + edns()[-11:],
        edns(dns.edns.GenericOption(PRIVATE, b"abc"))[:-5] + b"\xff\xff" + b"abc",
    ],
    ids=[
        *("no question", "two questions", "cut type", "header only", "garbage", "pointer", "label over 63"),
        *("label type 10", "name over 255", "missing record", "cut OPT", "garbage after OPT", "two OPTs"),
        "option over its end",
    ],
)
def test_p10_malformed_queries_are_formerr(data: bytes) -> None:
    scanned = scan_query(data)
    assert scanned.rcode == wire.FORMERR
    assert read(respond(scanned, wire.RA, scanned.rcode, (0, 0, 0), b"")).rcode() == wire.FORMERR


# RFC 6891 §6.1.1: who sends an OPT gets one, with whatever error.
OPT_RECORD = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0"


@pytest.mark.parametrize("question", [b"", PLAIN[12:]], ids=["none", "one"])
@pytest.mark.parametrize("opcode", [0, 1, 2, 4, 5, 15])
def test_p14_an_error_has_an_opt_if_the_query_has(question: bytes, opcode: int) -> None:
    count = 1 if question else 0
    head = PLAIN[:2] + bytes((opcode << 3 | 1, 0, 0, count, 0, 0, 0, 0, 0, 1))
    scanned = scan_query(head + question + OPT_RECORD)
    expected = wire.NOTIMP if opcode else wire.NOERROR if question else wire.FORMERR
    assert (scanned.rcode, scanned.edns, scanned.do) == (expected, True, True)
    response = respond(scanned, wire.RA, scanned.rcode, (0, 0, 0), b"")
    assert (response[4:12], response[12:]) == (bytes((0, count, 0, 0, 0, 0, 0, 1)), question + OPT_RECORD)


@pytest.mark.parametrize(
    "rest",
    [
        b"\0\0\0\0\0\0\0\0" + b"\0\1\0\4\0\0\0\0",  # DSO: no record, but a TLV
        b"\0\1\0\0\0\0\0\0" + b"\xc0\x0c\0\1\0\1",
        b"\0\2\0\0\0\0\0\1" + PLAIN[12:] * 2 + OPT_RECORD,
        b"\0\0\0\0\0\0\0\1" + OPT_RECORD[:-1],
        b"\0\0\0\0\0\0\0\1" + OPT_RECORD[:6] + b"\1" + OPT_RECORD[7:],
    ],
    ids=["DSO", "pointer", "two questions", "cut", "version 1"],
)
def test_p09_other_opcodes_are_notimp_whatever_their_form(rest: bytes) -> None:
    scanned = scan_query(PLAIN[:2] + b"\x30\0" + rest)
    assert scanned.rcode == wire.NOTIMP
    assert read(respond(scanned, wire.RA, scanned.rcode, (0, 0, 0), b"")).rcode() == wire.NOTIMP


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6, 15])
def test_p09_other_opcodes_are_notimp_with_opcode_and_question_echoed(opcode: int) -> None:
    scanned = scan_query(PLAIN[:2] + bytes((opcode << 3 | 1,)) + PLAIN[3:])
    response = respond(scanned, wire.RA, scanned.rcode, (0, 0, 0), b"")
    assert response[2] == 0x80 | opcode << 3 | 1
    assert (response[3] & 0xF, response[:2]) == (wire.NOTIMP, PLAIN[:2])
    assert response[12:] == PLAIN[12:]


def test_p11_names_of_any_octets_are_kept_apart() -> None:
    def scan(name: bytes) -> bytes:
        return scan_query(PLAIN[:12] + name + b"\0\1\0\1").key

    dotted, labels = b"\x0bwww.example\0", b"\x03www\x07example\0"
    assert scan(dotted) == dotted
    assert scan(labels) == labels
    assert scan(b"\x03\xff\0A\0") == b"\x03\xff\0a\0"


def test_other_records_of_a_query_are_skipped() -> None:
    message = dns.message.from_wire(edns())
    message.use_tsig(dns.tsig.Key("key.", "c2VjcmV0"))
    assert scan_query(message.to_wire()).rcode == 0


def test_response_copies_id_question_rd_cd_and_opcode() -> None:
    data = query("wWw.ExAmPlE.", flags=wire.RD | wire.CD, use_edns=False)
    response = respond(scan_query(data), wire.AA | wire.RA, 0, (0, 0, 0), b"")
    assert response[:2] == data[:2]
    assert response[12:] == data[12:]
    flags = read(response).flags
    assert flags == wire.QR | wire.AA | wire.RD | wire.RA | wire.CD


def test_p14_opt_only_for_clients_that_sent_one() -> None:
    assert read(respond(scan_query(PLAIN), 0, 0, (0, 0, 0), b"")).edns == -1
    response = read(respond(scan_query(edns(do=True)), 0, 0, (0, 0, 0), b"", wire.error_option(3)))
    assert (response.edns, response.payload) == (0, 1232)
    assert response.ednsflags & wire.DO
    assert [option.to_text() for option in response.options] == ["EDE 3 (Stale Answer)"]


def test_p14_badvers_has_its_upper_bits_in_the_opt() -> None:
    scanned = scan_query(edns(version=9))
    response = read(respond(scanned, wire.RA, scanned.rcode, (0, 0, 0), b""))
    assert (response.rcode(), response.edns) == (wire.BADVERS, 0)


def test_p15_too_large_is_truncated_to_question_and_opt() -> None:
    record = b"\xc0\x0c\0\x10\0\1\0\0\0\x1e\x01\x00" + b"\xff" * 256
    for data, opts in ((PLAIN, 0), (edns(payload=1232), 1)):
        response = respond(scan_query(data), wire.RA, 0, (5, 0, 0), record * 5)
        message = read(response)
        assert message.flags & wire.TC
        assert not message.answer
        assert len(message.question) == 1
        assert response[10:12] == bytes((0, opts))


def test_what_fits_exactly_is_sent_whole() -> None:
    scanned = scan_query(PLAIN)
    room = 512 - len(PLAIN) - 12
    record = b"\xc0\x0c\xff\x00\0\1\0\0\0\x1e" + room.to_bytes(2, "big") + b"x" * room
    assert len(respond(scanned, 0, 0, (1, 0, 0), record)) == 512
    assert read(respond(scanned, 0, 0, (1, 0, 0), record)).answer
    scanned.limit = 511
    assert read(respond(scanned, 0, 0, (1, 0, 0), record)).flags & wire.TC


@pytest.mark.parametrize("do", [False, True])
@pytest.mark.parametrize("with_edns", [False, True])
def test_upstream_query_is_well_formed(do: bool, with_edns: bool) -> None:
    made = b"\0\1" + upstream_query(PLAIN[12:], wire.RD | wire.CD, edns=with_edns, do=do)
    message = read(made)
    assert message.flags == wire.RD | wire.CD
    assert message.question[0].name == dns.name.from_text("www.Example.")
    assert message.edns == (0 if with_edns else -1)
    assert bool(message.ednsflags & wire.DO) == (do and with_edns)


def test_rcode_names() -> None:
    assert [wire.rcode_name(code) for code in (0, 3, 11)] == ["NOERROR", "NXDOMAIN", "RCODE11"]


def test_a_cookie_is_left_out_and_nothing_else() -> None:
    plain = query("www.example.", use_edns=0)
    cookie = dns.edns.CookieOption(b"8 octets", b"")
    with_cookie = query("www.example.", use_edns=0, options=[cookie])
    assert wire.without_cookie(plain) == plain[2:]
    assert wire.without_cookie(with_cookie) == with_cookie[2:-8]
    longer = dns.edns.CookieOption(b"8 octets", b"a server")
    with_server_cookie = query("www.example.", use_edns=0, options=[longer])
    assert wire.without_cookie(with_server_cookie) == with_server_cookie[2:]


@given(st.binary(max_size=40))
def test_a_short_message_only_loses_its_id(data: bytes) -> None:
    assert data[2:].startswith(wire.without_cookie(data))


@pytest.mark.parametrize("rcode", [16, 17, 23, 0xFFF])
def test_p38_an_extended_rcode_is_servfail_without_an_opt(rcode: int) -> None:
    for edns, expected in ((-1, wire.SERVFAIL), (0, rcode)):
        scanned = scan_query(query("www.example.", use_edns=edns))
        assert read(respond(scanned, wire.RA, rcode, (0, 0, 0), b"")).rcode() == expected


def test_p38_notimp_has_neither_ra_nor_cd() -> None:
    data = query("www.example.", flags=wire.RD | wire.CD)
    for rcode, others in ((wire.NOTIMP, 0), (wire.REFUSED, wire.RA | wire.CD)):
        response = respond(scan_query(data), wire.RA, rcode, (0, 0, 0), b"")
        assert int.from_bytes(response[2:4], "big") == wire.QR | wire.RD | others | rcode
