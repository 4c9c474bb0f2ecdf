from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import names
from dnsproxy.core.records import (
    MAX_ADDRESSES,
    MAX_POINTERS,
    MAX_STEPS,
    Names,
    addresses_in,
    negative_soa,
    read_records,
)
from dnsproxy.errors import WireError
from tests.messages import query, reply_to

ASKED = query("www.example.")


def pointers(*targets: int) -> bytes:
    return b"".join((0xC000 | target).to_bytes(2, "big") for target in targets)


@pytest.mark.parametrize(
    "data",
    [
        b"\xc0\x00",
        b"\xc0\x02\0",
        b"\x03ab",
        b"\x40" + b"a" * 64 + b"\0",
        (b"\x3f" + b"a" * 63) * 4 + b"\0",
        b"\1a" * 200 + b"\0",
        b"\xc0",
        b"\x80\0",
    ],
    ids=["self", "forward", "cut", "label", "name", "labels", "half pointer", "unknown kind of label"],
)
def test_p10_names_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(WireError):
        Names(data).read(0)


@pytest.mark.parametrize("in_order", [True, False])
def test_p29_a_name_has_so_many_pointers_and_no_more(in_order: bool) -> None:
    """Whether or not what it points to was read before."""
    chain = b"\x01a\0\0" + pointers(0, *range(4, 4000, 2))
    held = Names(chain)
    if in_order:
        for count in range(1, MAX_POINTERS):
            assert held.read(2 + 2 * count) == b"\x01a\0"
    assert held.read(2 + 2 * MAX_POINTERS) == b"\x01a\0"
    with pytest.raises(WireError):
        held.read(4 + 2 * MAX_POINTERS)


def test_names_end_alike_and_keep_their_spelling() -> None:
    data = b"\0\3WwW\7example\0\4mail" + pointers(5) + b"\1a" + pointers(14)
    held = Names(data)
    assert held.read(21) == b"\1a\4mail\7example\0"
    assert held.read(14) == b"\4mail\7example\0"
    assert held.read(1) == b"\3WwW\7example\0"
    assert held.read(0) == b"\0"


def test_p29_a_name_that_was_read_is_not_followed_again() -> None:
    data = b"\1a\1b\1c\0" + pointers(0, 2, 7, 0)
    held = Names(data)
    for position in (0, 7, 9, 11, 13):
        held.read(position)
    # Three labels, and one step for each pointer; one pointer leads into a name, so two labels more.
    assert held.steps == 3 + 4 + 2


def test_p29_the_names_of_a_message_take_a_bounded_number_of_steps() -> None:
    """Each starts at another label of the same run, so none is known."""
    run = b"\1\1" * 1000
    held = Names(run[:254] + b"\0" + run)
    with pytest.raises(WireError):
        all(held.read(position) for position in range(0, 254, 2))
    assert held.steps <= MAX_STEPS + 2 * MAX_POINTERS


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_p10_any_bytes_are_names_or_refused_whatever_was_read_before(
    data: bytes, positions: list[int]
) -> None:
    held = Names(data)
    for position in positions:
        try:
            alone: bytes | None = Names(data).read(position)
        except WireError:
            alone = None
        try:
            found: bytes | None = held.read(position)
        except WireError:
            found = None
        assert found == alone
        if found is not None:
            assert names.to_key(names.to_text(found)) == found.lower()


def test_records_are_where_they_are() -> None:
    data = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1", "b.example. 7 IN TXT a"], edns=False)
    address, text = read_records(data, 29, 2)
    assert (address.owner, address.rtype, address.rclass, address.ttl) == (29, 1, 1, 60)
    assert data[address.start : address.end] == bytes((192, 0, 2, 1))
    assert (text.rtype, text.ttl, data[text.start : text.end]) == (16, 7, b"\1a")
    with pytest.raises(WireError):
        read_records(data, 29, 3)
    with pytest.raises(WireError):
        read_records(data[:-1], 29, 2)


def test_addresses_of_an_answer_with_the_shortest_ttl() -> None:
    found = [
        *(
            "www.example. 10 IN CNAME b.example.",
            "b.example. 60 IN A 192.0.2.1",
            "b.example. 30 IN A 192.0.2.2",
        ),
        "b.example. 60 IN AAAA 2001:db8::1",
    ]
    assert addresses_in(reply_to(ASKED, found)) == (["192.0.2.1", "192.0.2.2", "2001:db8::1"], 30)
    assert addresses_in(reply_to(ASKED)) == ([], 0)
    with pytest.raises(WireError):
        addresses_in(reply_to(ASKED, found, edns=False)[:-1])


def test_p29_an_answer_of_more_addresses_than_have_a_use_is_refused() -> None:
    many = [f"www.example. 60 IN A 10.0.{n >> 8}.{n & 255}" for n in range(MAX_ADDRESSES + 1)]
    assert len(addresses_in(reply_to(ASKED, many[1:]))[0]) == MAX_ADDRESSES
    with pytest.raises(WireError, match="addresses"):
        addresses_in(reply_to(ASKED, many))


def test_p18_the_soa_of_a_denial_is_written_out() -> None:
    soa = "example. 900 IN SOA ns.example. host.example. 1 2 3 4 40"
    data = reply_to(ASKED, rcode=3, authority=["example. 5 IN NS ns.example.", soa])
    made = negative_soa(data)
    numbers = b"".join(number.to_bytes(4, "big") for number in (1, 2, 3, 4, 40))
    rdata = b"\2ns\7example\0\4host\7example\0" + numbers
    assert made == b"\7example\0\0\6\0\1\0\0\x03\x84" + len(rdata).to_bytes(2, "big") + rdata
    assert negative_soa(reply_to(ASKED, rcode=3)) is None
    with pytest.raises(WireError):
        negative_soa(reply_to(ASKED, rcode=3, authority=[soa], edns=False)[:-1])
    assert negative_soa(reply_to(ASKED, rcode=3, authority=["example. 5 IN NS ns.example."] * 63)) is None
    many = reply_to(ASKED, rcode=3, authority=[f"n{n}.example. 5 IN NS ns.example." for n in range(64)])
    with pytest.raises(WireError):
        negative_soa(many)
    with pytest.raises(WireError):
        negative_soa(reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1"]))


def test_p10_an_soa_that_is_not_as_long_as_it_says_is_refused() -> None:
    plain = reply_to(ASKED, rcode=3, edns=False)
    for rdata in (b"\0\0" + bytes(19), b"\0\0" + bytes(21), b"\0" * 20):
        record = b"\0\0\6\0\1\0\0\0\1" + len(rdata).to_bytes(2, "big") + rdata
        with pytest.raises(WireError):
            negative_soa(plain[:8] + b"\0\1" + plain[10:] + record)
