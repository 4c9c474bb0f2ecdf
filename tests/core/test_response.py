from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import names, response
from dnsproxy.core.response import Age, read_name, scan_response, with_ttls
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
    assert not scanned.opt_inside
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
    assert [read_name(data, at) for at in scanned.cnames] == [names.to_key("cdn.example")]


def test_a_ttl_with_the_top_bit_is_zero() -> None:
    data = bytearray(reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1"], edns=False))
    data[-10] = 0x80
    assert scan_response(bytes(data), END).ttl == 0


def test_records_after_the_opt_are_told() -> None:
    plain = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1"], edns=False)
    extra = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4"
    opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    data = plain[:10] + b"\0\2" + plain[12:] + opt + extra
    assert scan_response(data, END).opt_inside


@pytest.mark.parametrize("cut", range(1, 40))
def test_p10_a_response_cut_anywhere_is_refused(cut: int) -> None:
    data = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1"])
    with pytest.raises(WireError):
        scan_response(data[: max(END, len(data) - cut)], END)


def test_garbage_and_double_opt_are_refused() -> None:
    data = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1"])
    with pytest.raises(WireError):
        scan_response(data + b"\0", END)
    with pytest.raises(WireError):
        scan_response(data[:11] + b"\2" + data[12:] + data[-11:], END)


@pytest.fixture(params=["as loaded", "Python's"])
def aged(request: pytest.FixtureRequest) -> Age:
    """What this build has, and what one that is not compiled has."""
    return response.aged if request.param == "as loaded" else response._aged


def test_p18_ttls_age_and_stop_at_zero(aged: Age) -> None:
    data = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1", "x.example. 10 IN A 192.0.2.2"], edns=False)
    scanned = scan_response(data, END)
    older = read(data[:END] + aged(scanned.sections, scanned.ttl_offsets, 25))
    assert [rrset.ttl for rrset in older.answer] == [35, 0]
    doubled = read(data[:END] + with_ttls(scanned.sections, scanned.ttl_offsets, lambda ttl: ttl * 2))
    assert [rrset.ttl for rrset in doubled.answer] == [120, 20]


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


@pytest.mark.parametrize(
    "data",
    [
        b"\xc0\x00",
        b"\xc0\x02\0",
        b"\x03ab",
        b"\x40" + b"a" * 64 + b"\0",
        (b"\x3f" + b"a" * 63) * 4 + b"\0",
        b"\xc0",
    ],
    ids=["self", "forward", "cut", "label", "name", "half pointer"],
)
def test_p10_names_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(WireError):
        read_name(data, 0)


def test_a_long_chain_of_pointers_ends() -> None:
    chain = b"\x01a\0\0" + b"".join((0xC000 | at).to_bytes(2, "big") for at in (0, *range(4, 4000, 2)))
    assert read_name(chain, len(chain) - 2) == b"\x01a\0"
