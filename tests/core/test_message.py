from __future__ import annotations

import subprocess
import sys

import pytest

from dnsproxy.core import message, names
from dnsproxy.core.policy import Owned
from dnsproxy.errors import WireError
from tests.messages import addresses, query, read, reply_to

ASKED = query("www.example.")


def whole(*records: bytes) -> bytes:
    """A response to ASKED (without EDNS) with the records given."""
    return (
        reply_to(ASKED, edns=False)[:6]
        + bytes((0, len(records), 0, 0, 0, 0))
        + ASKED[12:29]
        + b"".join(records)
    )


def test_address_records_of_both_families() -> None:
    data = whole(*message.address_records(message.QUESTION_NAME, ["192.0.2.1", "fd00::1"], 30))
    assert addresses(data) == ["192.0.2.1", "fd00::1"]
    assert {(rrset.name.to_text(), rrset.ttl) for rrset in read(data).answer} == {("www.example.", 30)}


def test_cname_and_soa_stand_alone() -> None:
    data = whole(
        message.cname_record(message.QUESTION_NAME, "ep.privatelink.example.", 7),
        message.soa_record(message.QUESTION_NAME, 2**32 + 5, 30),
    )
    cname, soa = read(data).answer
    assert cname.to_text() == "www.example. 7 IN CNAME ep.privatelink.example."
    assert soa.to_text() == "www.example. 30 IN SOA dnsproxy.invalid. . 5 3600 600 86400 30"


def test_without_opt_keeps_the_rest() -> None:
    data = reply_to(ASKED, ["www.example. 60 IN A 192.0.2.1"])
    stripped = read(message.without_opt(data))
    assert stripped.edns == -1
    assert stripped.answer == read(data).answer


def test_p06_a_chain_into_an_owned_name_gets_the_learned_addresses() -> None:
    owned = Owned("reg.example.", addresses=("10.0.0.1", "10.0.0.2", "fd00::1"), ttl=30)
    data = reply_to(
        ASKED,
        [
            "www.example. 60 IN CNAME mid.example.",
            "mid.example. 60 IN CNAME reg.example.",
            "reg.example. 60 IN A 203.0.113.9",
        ],
    )
    keys = {names.to_key("reg.example."): owned}
    rewritten = message.with_owned_targets(data, keys.get)
    assert addresses(rewritten) == ["10.0.0.1", "10.0.0.2"]
    assert [rrset.to_text().split()[3] for rrset in read(rewritten).answer] == ["CNAME", "CNAME", "A"]


def test_a_chain_that_loops_ends() -> None:
    data = reply_to(ASKED, ["www.example. 60 IN CNAME b.example.", "b.example. 60 IN CNAME www.example."])
    assert len(read(message.with_owned_targets(data, lambda _: None)).answer) == 2


def test_p10_what_dnslib_cannot_read_is_a_wire_error() -> None:
    looping = whole(b"\xc0\x1d\0\5\0\1\0\0\0\1\0\2\xc0\x29")
    with pytest.raises(WireError):
        message.without_opt(looping[:-1])


@pytest.mark.parametrize("count", [200, 260])
def test_p10_dnslib_is_given_no_more_than_it_reads_in_reasonable_time(count: int) -> None:
    records = [f"www.example. 60 IN A 10.0.{n >> 8}.{n & 255}" for n in range(count)]
    data = reply_to(ASKED, records)
    if len(data) <= message.MAX_DECODED:
        assert len(addresses(message.without_opt(data))) == count
    else:
        with pytest.raises(WireError, match="longer than"):
            message.without_opt(data)


def test_addresses_of_an_answer_with_the_shortest_ttl() -> None:
    records = [
        *(
            "www.example. 10 IN CNAME b.example.",
            "b.example. 60 IN A 192.0.2.1",
            "b.example. 30 IN A 192.0.2.2",
        ),
        "b.example. 60 IN AAAA 2001:db8::1",
    ]
    assert message.addresses_in(reply_to(ASKED, records)) == (["192.0.2.1", "192.0.2.2", "2001:db8::1"], 30)
    assert message.addresses_in(reply_to(ASKED)) == ([], 0)
    with pytest.raises(WireError):
        message.addresses_in(reply_to(ASKED, records)[:-1])


def test_labels_for_metrics() -> None:
    assert message.type_name(65) == "HTTPS"
    assert message.type_name(65280) == "other"
    assert message.request_label(1, tcp=True) == ("tcp", "A")
    assert message.request_label(65280, tcp=False) == ("udp", "other")


def test_no_record_is_the_first_to_load_anything() -> None:
    """A query may come when there is no file descriptor left to load it with."""
    script = """
import sys
from dnsproxy.core import message
held = set(sys.modules)
message.soa_record(message.QUESTION_NAME, 1, 30)
message.address_records(message.QUESTION_NAME, ["192.0.2.1", "fd00::1"], 30)
print(*sorted(set(sys.modules) - held))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
