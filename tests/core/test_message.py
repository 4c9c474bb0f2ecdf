from __future__ import annotations

import subprocess
import sys

from dnsproxy.core import message
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
