"""Records of a cached answer that take turns, and those whose order stays."""

from __future__ import annotations

import pytest

from dnsproxy.core.cache import Entry
from dnsproxy.core.response import scan_response
from dnsproxy.core.rotation import MAX_ROTATED, find_rotation, rotated
from tests.messages import addresses, query, read, reply_to

NAME = "www.example."
SET = [f"{NAME} 60 IN A 192.0.2.{index}" for index in (1, 2, 3)]


def entry(data: bytes, asked: bytes) -> tuple[Entry, int]:
    end = len(asked)
    return Entry(scan_response(data, end), 0.0, 60.0), end


def orders(data: bytes) -> list[list[str]]:
    """Every order of the addresses of a reply that rotation gives; the reply's own one only without it."""
    asked = query(NAME)
    held, end = entry(data, asked)
    rotation = find_rotation(held, end)
    if rotation is None:
        return [addresses(data)]
    assert rotation.moved(end).start == rotation.start + end
    made = [rotated(data, rotation.moved(end), by) for by in range(rotation.records)]
    assert all(len(each) == len(data) for each in made)
    return [addresses(each) for each in made]


def test_p41_each_record_comes_first_once() -> None:
    found = orders(reply_to(query(NAME), SET))
    assert found == [
        ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
        ["192.0.2.2", "192.0.2.3", "192.0.2.1"],
        ["192.0.2.3", "192.0.2.1", "192.0.2.2"],
    ]


def test_p41_addresses_at_the_end_of_an_alias_and_before_other_sections_rotate_too() -> None:
    chain = [f"{NAME} 60 IN CNAME web.example.", *(record.replace("www", "web") for record in SET)]
    reply = reply_to(query(NAME), chain, authority=["example. 60 IN NS ns.example."])
    assert [each[0] for each in orders(reply)] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert read(reply).authority


def test_p41_a_large_set_rotates_in_part() -> None:
    found = orders(reply_to(query(NAME), [f"{NAME} 60 IN A 192.0.2.{index}" for index in range(100)]))
    assert len(found) == MAX_ROTATED
    assert all(sorted(each) == sorted(found[0]) for each in found)


@pytest.mark.parametrize("records", [SET[:1], [f"{NAME} 60 IN TXT a", f"{NAME} 60 IN TXT b"], []], ids=len)
def test_p41_what_does_not_rotate(records: list[str]) -> None:
    assert len(orders(reply_to(query(NAME), records))) == 1


def test_p41_nothing_moves_that_something_behind_it_points_to() -> None:
    asked = query(NAME)
    reply = bytearray(reply_to(asked, SET, edns=False))
    reply[7], reply[11] = 3, 1
    # An additional record whose owner, the root, is in the data of the first address: 192.0.2.1.
    inside = len(asked) + 13
    reply += bytes((0xC0, inside)) + bytes.fromhex("0001000100000e1000040a000001")
    held, end = entry(bytes(reply), asked)
    assert held.counts == (3, 0, 1)
    assert find_rotation(held, end) is None


def test_p41_owners_that_are_written_out_stay() -> None:
    asked = query(NAME)
    reply = reply_to(asked, (), edns=False)
    fixed = bytes.fromhex("000100010000003c0004c00002")
    records = b"".join(asked[12:-4] + fixed + bytes((last,)) for last in (1, 2))
    held, end = entry(reply[:7] + b"\x02" + reply[8:] + records, asked)
    assert held.counts == (2, 0, 0)
    assert find_rotation(held, end) is None
