"""Responses that are put together again, read by dnspython before and after."""

from __future__ import annotations

import dns.message
import pytest

from dnsproxy.core import names, rebuild
from dnsproxy.core.rebuild import rebuilt
from dnsproxy.errors import WireError
from tests.messages import query, read, reply_to

# One record of each type whose data holds names that servers compress.
RECORDS = [
    "www.example. 1 IN NS ns.www.example.",
    "www.example. 2 IN SOA ns.www.example. host.www.example. 1 2 3 4 5",
    "www.example. 3 IN PTR p.www.example.",
    "www.example. 4 IN MX 10 mx.www.example.",
    "www.example. 5 IN RP a.www.example. b.www.example.",
    "www.example. 6 IN AFSDB 1 afs.www.example.",
    "www.example. 7 IN RT 1 rt.www.example.",
    "www.example. 8 IN PX 1 x.www.example. y.www.example.",
    "www.example. 9 IN SRV 1 2 3 srv.www.example.",
    "www.example. 10 IN KX 1 kx.www.example.",
    "www.example. 11 IN DNAME d.www.example.",
    'www.example. 12 IN TXT "a" "b"',
    r"www.example. 13 IN TYPE65280 \# 3 c00c01",
    "other.example. 14 IN A 192.0.2.1",
]


def test_every_record_stays_what_it_is() -> None:
    data = reply_to(query("www.example.", "ANY"), RECORDS, authority=["example. 60 IN NS ns.www.example."])
    made = rebuilt(data, data[12:29], [], lambda _: False)
    assert read(made).sections == read(data).sections
    assert read(made).edns == -1


def test_what_is_left_out_takes_no_name_of_others_with_it() -> None:
    data = reply_to(query("www.example.", "ANY"), RECORDS)
    made = rebuilt(data, data[12:29], [], lambda key: key == names.to_key("www.example."))
    assert [rrset.to_text() for rrset in read(made).answer] == ["other.example. 14 IN A 192.0.2.1"]


def test_it_follows_the_aliases_that_led_there() -> None:
    data = reply_to(query("www.example."), ["www.example. 60 IN A 192.0.2.1"], flags=0x20)
    links = [(b"\0\0\0\5", names.to_key("mid.example.")), (b"\0\0\0\6", names.to_key("www.example."))]
    made = rebuilt(data, names.to_key("a.example.") + b"\0\1\0\1", links, lambda _: False)
    assert [rrset.to_text() for rrset in read(made).answer] == [
        "a.example. 5 IN CNAME mid.example.",
        "mid.example. 6 IN CNAME www.example.",
        "www.example. 60 IN A 192.0.2.1",
    ]
    assert not read(made).flags & 0x20
    # The owner is a pointer.
    assert len(made) == 12 + 15 + (2 + 10 + 13) + (2 + 10 + 13) + 16


def test_p29_with_more_records_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "MAX_REBUILT", 2)
    data = reply_to(query("www.example.", "ANY"), RECORDS[:3], edns=False)
    with pytest.raises(WireError):
        rebuilt(data, data[12:29], [], lambda _: False)


def test_p29_a_message_that_grows_beyond_the_largest_is_not_used() -> None:
    longest = ".".join(["x" * 60] * 4)
    message = dns.message.from_wire(reply_to(query(longest + ".", "MX"), edns=False))
    head = message.to_wire()
    record = bytes.fromhex("c00c000f00010000003c0004000ac00c")
    data = head[:6] + (300).to_bytes(2, "big") + head[8:] + record * 300
    with pytest.raises(WireError):
        rebuilt(data, data[12 : len(head)], [], lambda _: False)


def test_a_name_that_is_longer_than_its_record_is_an_error() -> None:
    head = reply_to(query("www.example.", "MX"), edns=False)
    for length in (2, 3):
        record = bytes.fromhex("c00c000f00010000003c") + length.to_bytes(2, "big") + b"\0\x0a\xc0\x0c"
        data = head[:7] + b"\1" + head[8:] + record[: 12 + length] + b"\0" * 4
        with pytest.raises(WireError):
            rebuilt(data, data[12:29], [], lambda _: False)
