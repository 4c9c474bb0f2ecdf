from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from dnsproxy.core import names, wire
from dnsproxy.core.cname import leading_out, with_addresses
from dnsproxy.core.policy import Owned
from dnsproxy.core.records import Names
from dnsproxy.core.response import MAX_CNAMES, scan_response
from dnsproxy.errors import WireError
from tests.messages import addresses, query, read, reply_to

OWNED = Owned("reg.example.", addresses=("10.0.0.1", "10.0.0.2", "fd00::1"), ttl=30)
KEYS = {names.to_key("reg.example."): OWNED}
CHAIN = [
    "www.example. 60 IN CNAME mid.example.",
    "mid.example. 50 IN CNAME Reg.example.",
    "reg.example. 60 IN A 203.0.113.9",
]


def rewritten(data: bytes, find: Callable[[bytes], Owned | None] = KEYS.get) -> bytes | None:
    """The message that is made of ``data``; its attributes are those that a scan finds."""
    end = data.index(b"\0", 12) + 5
    links = leading_out(Names(data), data, scan_response(data, end).cnames, lambda key: find(key) is not None)
    owned = find(links[-1][1].lower()) if links else None
    if links is None or owned is None:
        return None
    made = with_addresses(data[2] << 8 | data[3], data[12:end], links, owned)
    counts = wire.COUNTS.pack(made.flags, 1, *made.counts)
    whole = data[:2] + counts + data[12:end] + made.sections
    scanned = scan_response(whole, end)
    for what in ("flags", "rcode", "counts", "sections", "ttl_offsets", "ttl", "max_ttl", "negative", "edns"):
        assert getattr(made, what) == getattr(scanned, what), what
    return whole


def ending(data: bytes) -> bytes:
    made = rewritten(data)
    assert made is not None
    return made


def test_p06_a_chain_into_an_owned_name_gets_the_learned_addresses() -> None:
    made = ending(reply_to(query("www.example."), CHAIN, rcode=3, flags=0x20))
    assert addresses(made) == ["10.0.0.1", "10.0.0.2"]
    message = read(made)
    assert [rrset.to_text() for rrset in message.answer][:2] == [
        "www.example. 60 IN CNAME mid.example.",
        "mid.example. 50 IN CNAME Reg.example.",
    ]
    assert (message.answer[2].name.to_text(), message.answer[2].ttl) == ("Reg.example.", 30)
    assert (message.rcode(), message.flags & 0x20, message.edns, message.authority) == (0, 0, -1, [])


def test_p06_the_order_of_the_records_does_not_matter() -> None:
    made = ending(reply_to(query("WWW.example."), CHAIN[::-1]))
    assert addresses(made) == ["10.0.0.1", "10.0.0.2"]
    assert made[12:29] == b"\3WWW\7example\0\0\1\0\1"


def test_p06_addresses_of_the_other_family_and_none() -> None:
    assert addresses(ending(reply_to(query("www.example.", "AAAA"), CHAIN))) == ["fd00::1"]
    empty = read(ending(reply_to(query("www.example.", "TXT"), CHAIN)))
    assert [rrset.rdtype for rrset in empty.answer] == [5, 5]
    (soa,) = empty.authority
    assert soa.to_text() == "Reg.example. 30 IN SOA dnsproxy.invalid. . 1 3600 600 86400 30"


def test_p06_only_the_chain_of_the_question_counts() -> None:
    other = ["other.example. 60 IN CNAME reg.example.", "www.example. 60 IN A 192.0.2.1"]
    assert rewritten(reply_to(query("www.example."), other)) is None
    assert rewritten(reply_to(query("www.example."), CHAIN), lambda _: None) is None


def test_a_chain_that_loops_ends() -> None:
    data = reply_to(
        query("www.example."), ["www.example. 60 IN CNAME b.example.", "b.example. 60 IN CNAME www.example."]
    )
    assert rewritten(data, lambda _: None) is None


def chain_of(links: int) -> bytes:
    steps = ["www.example.", *(f"l{n}.example." for n in range(links - 1)), "reg.example."]
    pairs = pairwise(steps)
    return reply_to(query("www.example."), [f"{owner} 60 IN CNAME {target}" for owner, target in pairs])


def test_p29_so_many_links_are_followed_and_with_more_the_answer_is_not_used() -> None:
    assert len(read(ending(chain_of(MAX_CNAMES))).answer) == MAX_CNAMES + 1
    with pytest.raises(WireError):
        rewritten(chain_of(MAX_CNAMES + 1))


def test_p10_a_name_in_the_chain_that_cannot_be_read_is_an_error() -> None:
    plain = reply_to(query("www.example."), edns=False)
    looping = plain[:7] + b"\1" + plain[8:] + b"\xc0\x0c\0\5\0\1\0\0\0\1\0\2\xc0\x29"
    with pytest.raises(WireError):
        rewritten(looping)
