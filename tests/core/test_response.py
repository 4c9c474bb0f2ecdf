from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import names, response
from dnsproxy.core.records import Names
from dnsproxy.core.response import (
    MAX_CNAMES,
    MAX_RECORDS,
    Age,
    TooManyRecordsError,
    errors_told,
    scan_response,
    with_ttls,
)
from dnsproxy.errors import WireError
from tests.messages import query, read, reply_to

ASKED = query("www.example.")
END = 12 + 13 + 4
SOA = "example. 900 IN SOA ns.example. host.example. 1 2 3 4 300"


def test_a_positive_response() -> None:
    data = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1", "www.example. 60 IN A 192.0.2.2"])
    scanned = scan_response(data, END)
    assert (scanned.rcode, scanned.counts, scanned.ttl, scanned.max_ttl) == (0, (2, 0, 0), 60, 60)
    assert scanned.edns
    assert not scanned.negative
    assert scanned.opt == len(data) - 11
    assert data[END:].startswith(scanned.sections)
    assert len(data) - END - len(scanned.sections) == 11


def test_p18_negative_lifetime_is_the_soas() -> None:
    scanned = scan_response(reply_to(ASKED, rcode=3, authority=[SOA]), END)
    assert (scanned.rcode, scanned.negative, scanned.ttl) == (3, True, 300)
    assert scan_response(reply_to(ASKED, authority=[SOA]), END).ttl == 300
    short = SOA.replace("900", "20")
    assert scan_response(reply_to(ASKED, authority=[short]), END).ttl == 20


def test_p18_negative_without_soa_has_no_lifetime() -> None:
    assert scan_response(reply_to(ASKED, rcode=3), END).ttl is None
    assert scan_response(reply_to(ASKED), END).ttl is None
    referral = scan_response(reply_to(ASKED, authority=["example. 60 IN NS ns.example."]), END)
    assert (referral.negative, referral.ttl) == (True, None)


def test_lifetime_is_the_shortest_and_cnames_are_noticed() -> None:
    data = reply_to(ASKED, ["www.example. 50 IN CNAME cdn.example.", "cdn.example. 5 IN A 192.0.2.1"])
    scanned = scan_response(data, END)
    assert (scanned.ttl, scanned.max_ttl) == (5, 50)
    assert [Names(data).read(at) for at in scanned.cnames] == [names.to_key("www.example")]


def test_a_ttl_with_the_top_bit_is_zero() -> None:
    data = bytearray(reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1"], edns=False))
    data[-10] = 0x80
    assert scan_response(bytes(data), END).ttl == 0


def behind_opt(before: list[bytes], after: list[bytes]) -> bytes:
    plain = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1"], edns=False)
    opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    count = len(before) + 1 + len(after)
    return plain[:10] + count.to_bytes(2, "big") + plain[12:] + b"".join([*before, opt, *after])


def test_addresses_after_the_opt_are_kept_and_age() -> None:
    address = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\1\2\3"
    written, last = b"\1x\0\0\x1c\0\1\0\0\0\x0a\0\x10" + bytes(16), address + b"\7"
    data = behind_opt([address + b"\4"], [address + b"\5", written, last])
    scanned = scan_response(data, END)
    assert (scanned.counts, scanned.ttl) == ((1, 0, 4), 10)
    head = data[:6] + b"\0\1\0\0\0\4" + data[12:END]
    whole = read(head + with_ttls(scanned.sections, scanned.ttl_offsets, 3, 3))
    assert {rrset.ttl for rrset in (*whole.answer, *whole.additional)} == {3}
    assert sum(map(len, whole.additional)) == 4
    with pytest.raises(WireError):
        scan_response(data[:-1], END)


def test_what_may_point_behind_the_opt_is_left_out() -> None:
    text = b"\0\0\x10\0\1\0\0\0\1\0\1\0"
    behind = len(behind_opt([], []))
    address = (0xC000 | behind).to_bytes(2, "big") + b"\0\1\0\1\0\0\0\1\0\4\1\2\3\4"
    scanned = scan_response(behind_opt([], [text, address]), END)
    assert (scanned.counts, len(scanned.ttl_offsets), len(scanned.sections)) == ((1, 0, 0), 1, 16)


def test_p29_not_all_of_thousands_after_the_opt_are_kept() -> None:
    address = b"\0\0\1\0\1\0\0\0\1\0\4\1\2\3\4"
    assert scan_response(behind_opt([], [address] * 4000), END).counts == (1, 0, 64)


def _of(count: int, record: bytes = b"\0\xff\1\0\1\0\0\0\0\0\0") -> bytes:
    """A response to ASKED of ``count`` records."""
    head = reply_to(ASKED, edns=False)
    return head[:6] + count.to_bytes(2, "big") + head[8:] + record * count


def test_p29_a_response_of_more_records_than_have_a_use_is_refused() -> None:
    assert scan_response(_of(MAX_RECORDS), END).counts == (MAX_RECORDS, 0, 0)
    with pytest.raises(TooManyRecordsError):
        scan_response(_of(MAX_RECORDS + 1), END)


def test_p29_cnames_are_noted_up_to_one_more_than_are_followed() -> None:
    record = b"\xc0\x0c\0\5\0\1\0\0\0\0\0\2\xc0\x0c"
    noted = scan_response(_of(4000, record), END).cnames
    assert noted == tuple(END + len(record) * index for index in range(MAX_CNAMES + 1))


def test_extended_errors_are_found_among_a_bounded_number_of_options() -> None:
    plain = reply_to(ASKED, rcode=2)
    for others, told in ((98, [22, 23]), (99, [22]), (100, [])):
        data = b"\xfd\xe9\0\0" * others + b"\0\x0f\0\2\0\x16" + b"\0\x0f\0\2\0\x17"
        message = plain[:-2] + len(data).to_bytes(2, "big") + data
        assert errors_told(message, scan_response(message, END).opt) == told
    assert errors_told(reply_to(ASKED, rcode=2, edns=False), 0) == []
    named = plain[: -len(b"\0\0\x29\4\xd0\0\0\0\0\0\0")] + b"\1a" + plain[-11:-2] + b"\0\6\0\x0f\0\2\0\x16"
    assert errors_told(named, scan_response(named, END).opt) == [22]


@pytest.mark.parametrize("cut", range(1, 40))
def test_p10_a_response_cut_anywhere_is_refused(cut: int) -> None:
    data = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1"])
    with pytest.raises(WireError):
        scan_response(data[: max(END, len(data) - cut)], END)


def test_a_double_opt_is_refused() -> None:
    data = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1"])
    with pytest.raises(WireError):
        scan_response(data[:11] + b"\2" + data[12:] + data[-11:], END)


def _record(rtype: int, rdata: bytes, owner: bytes = b"\xc0\x0c", rclass: int = 1) -> bytes:
    fixed = rtype.to_bytes(2, "big") + rclass.to_bytes(2, "big") + b"\0\0\0\x3c"
    return owner + fixed + len(rdata).to_bytes(2, "big") + rdata


TARGET = b"\4cdn2\xc0\x10"
SOA_DATA = TARGET + b"\xc0\x0c" + bytes(20)


@pytest.mark.parametrize(
    "record",
    [
        _record(1, bytes(3)),
        _record(1, bytes(5)),
        _record(1, b""),
        _record(28, bytes(4)),
        _record(5, TARGET + b"\0"),
        _record(5, TARGET[:-1]),
        _record(2, b""),
        _record(15, TARGET),
        _record(33, bytes(5) + TARGET),
        _record(6, SOA_DATA[:-1]),
        _record(6, SOA_DATA + b"\0"),
        _record(6, bytes(20)),
        _record(5, b"\xc0\xff"),
        _record(5, b"\xff\xff"),
        _record(12, b"\x40" + bytes(3)),
        _record(1, bytes(4), b"\xc0" + bytes((END,))),  # to itself
        _record(1, bytes(4), b"\xc0" + bytes((END + 4,))),  # forward
        _record(1, bytes(4), b"\xff\xff"),
        _record(1, bytes(4), b"\xc0\0"),  # into the header
        _record(1, bytes(4), b"\1a\xc0" + bytes((END,))),  # a loop through a label
        _record(1, bytes(4), b"\xc0\x0d"),  # into a label: too long, or no end
        _record(5, b"\xc0" + bytes((END + 12,))),  # its own data
    ],
    ids=lambda record: record.hex(),
)
def test_p31_a_malformed_record_is_refused(record: bytes) -> None:
    for whole in (_of(1, record), _of(2, record)):
        with pytest.raises(WireError):
            scan_response(whole, END)


@pytest.mark.parametrize(
    "record",
    [
        _record(1, bytes(4)),
        _record(1, bytes(4), b"\3www\xc0\x10"),
        _record(28, bytes(16), b"\xc0\x18"),  # the root
        _record(1, bytes(7), rclass=3),  # of another class
        _record(28, bytes(16), b"\0"),
        _record(5, TARGET),
        _record(5, b"\0"),
        _record(15, b"\0\1" + TARGET),
        _record(33, bytes(6) + b"\3abc\0"),
        _record(6, SOA_DATA),
        _record(65280, b"\xc0\xff\xff"),
        _record(16, b""),
    ],
    ids=lambda record: record.hex(),
)
def test_p31_records_that_fit_their_types_are_taken(record: bytes) -> None:
    scanned = scan_response(_of(1, record) + b"behind", END)
    assert scanned.sections == record


def test_p31_names_are_bounded_whatever_their_pointers_are() -> None:
    label = b"\x3f" + b"a" * 63
    long = _record(5, label * 3 + b"\xc0\x0c")
    at = END + 12
    assert scan_response(_of(1, long), END).counts == (1, 0, 0)
    longer = long + _record(1, bytes(4), b"\x34" + b"b" * 52 + b"\xc0" + bytes((at,)))
    with pytest.raises(WireError):
        scan_response(_of(2, b"")[:END] + longer, END)
    # Pointers that lead to pointers, more than any name needs.
    text = bytes(2) + b"".join((0xC000 | at + 2 * index).to_bytes(2, "big") for index in range(300))
    owner = (0xC000 | at + 600).to_bytes(2, "big")
    data = _of(2, b"")[:END] + _record(16, text) + _record(1, bytes(4), owner)
    with pytest.raises(WireError):
        scan_response(data, END)


@pytest.fixture(params=["as loaded", "Python's"])
def aged(request: pytest.FixtureRequest) -> Age:
    """What this build has, and what one that is not compiled has."""
    return response.aged if request.param == "as loaded" else response._aged


def test_p18_ttls_age_and_stop_at_zero(aged: Age) -> None:
    data = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1", "x.example. 10 IN A 192.0.2.2"], edns=False)
    scanned = scan_response(data, END)
    older = read(data[:END] + aged(scanned.sections, scanned.ttl_offsets, 25))
    assert [rrset.ttl for rrset in older.answer] == [35, 0]
    for bounds, expected in (((0, 30), [30, 10]), ((20, 99), [60, 20]), ((0, 99, 15), [45, 0])):
        changed = read(data[:END] + with_ttls(scanned.sections, scanned.ttl_offsets, *bounds))
        assert [rrset.ttl for rrset in changed.answer] == expected


@given(
    st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 2**32 - 1)), max_size=5),
    st.binary(max_size=20),
    st.integers(-(2**31), 2**40),
)
@pytest.mark.parametrize("change", [response.aged, response._aged], ids=["as loaded", "Python's"])
def test_p18_only_ttls_age_wherever_they_are(
    change: Age, fields: list[tuple[bytes, int]], end: bytes, elapsed: int
) -> None:
    sections, expected, offsets = b"", b"", []
    for before, ttl in fields:
        offsets.append(len(sections) + len(before))
        sections += before + ttl.to_bytes(4, "big")
        expected += before + max(ttl - max(elapsed, 0), 0).to_bytes(4, "big")
    kept = bytes(sections + end)
    assert change(kept, tuple(offsets), elapsed) == expected + end
    assert kept == sections + end


@pytest.mark.parametrize("offsets", [(1,), (0, 4), (2**31,)])
def test_nothing_is_changed_outside_of_the_sections(aged: Age, offsets: tuple[int, ...]) -> None:
    with pytest.raises(IndexError):
        aged(b"\0\0\0\1", offsets, 1)
