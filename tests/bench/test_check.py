from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from bench.check import problem
from bench.queries import Question, message

QUERY = message(Question("host.bench.example"), None, 4711)


def response(*addresses: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, ident: int = 4711) -> bytes:
    reply = dns.message.make_response(dns.message.from_wire(QUERY))
    reply.id = ident
    reply.set_rcode(rcode)
    if addresses:
        reply.answer = [dns.rrset.from_text("host.bench.example.", 30, "IN", "A", *addresses)]
    return reply.to_wire()


def test_the_right_answer_has_no_problem() -> None:
    assert problem(QUERY, response("192.0.2.53"), "192.0.2.53") == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (b"\0" * 11, "11 bytes"),
        (QUERY, "not a response to the query"),
        (response("192.0.2.53", ident=4712), "not a response to the query"),
        (response(rcode=dns.rcode.SERVFAIL), "response code 2"),
        (response(), "0 answer records"),
        (response("192.0.2.53", "192.0.2.54"), "2 answer records"),
        (response("192.0.2.54"), "no address 192.0.2.53"),
    ],
    # The octets would name the cases differently in each test process: dnspython keeps rdata in sets.
    ids=["short", "query", "id", "rcode", "none", "two", "other"],
)
def test_a_wrong_answer_is_told_apart(wrong: bytes, said: str) -> None:
    assert problem(QUERY, wrong, "192.0.2.53") == said
