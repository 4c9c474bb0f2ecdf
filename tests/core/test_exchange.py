from __future__ import annotations

import pytest

from dnsproxy.core import wire
from dnsproxy.core.exchange import MAX_SENDS, Attempt, Exchange, Failure, Limits, Verdict
from dnsproxy.core.response import MAX_RECORDS
from dnsproxy.core.upstreams import Upstream
from dnsproxy.core.wire import scan_query
from tests.messages import query, read, reply_to

RECORD = "www.example. 60 IN A 192.0.2.1"


def start(*upstreams: Upstream, data: bytes | None = None) -> Exchange:
    group = upstreams or (upstream("one"), upstream("two"))
    return Exchange(b"key", scan_query(data or query("www.example.")), group, Limits(0.8, 1.8), 0.0)


def upstream(name: str, *, tcp: bool = False) -> Upstream:
    return Upstream(name, ("192.0.2.1", 53), tcp=tcp)


def attempt(exchange: Exchange, now: float = 0.0) -> Attempt:
    made = exchange.next_attempt(now)
    assert made is not None
    return made


def sent(made: Attempt) -> bytes:
    return b"\x12\x34" + made.payload


def test_a_good_reply_ends_it() -> None:
    exchange = start()
    made = attempt(exchange)
    assert (made.upstream.name, made.tcp, made.deadline) == ("one", False, 0.8)
    assert exchange.receive_reply(reply_to(sent(made), [RECORD]), 0.05) is Verdict.DONE
    assert exchange.response is not None
    assert made.upstream.stats.rtt == 0.05


def test_p14_our_opt_goes_upstream_with_do_and_cd_and_ad_asked_for() -> None:
    asked = query("www.example.", want_dnssec=True, payload=4096, flags=wire.RD | wire.CD)
    message = read(sent(attempt(start(data=asked))))
    assert message.flags == wire.RD | wire.CD | wire.AD
    assert (message.edns, message.payload) == (0, 1232)
    assert message.ednsflags & wire.DO


def spoiled(good: bytes) -> list[bytes]:
    other_name = reply_to(query("xxx.example."), [RECORD])
    other_type = reply_to(query("www.example.", "TXT"))
    return [
        b"",
        good[:2],
        good[:12],
        good[:2] + b"\x01" + good[3:],  # QR=0
        good[:2] + b"\x91" + good[3:],  # opcode 2
        good[:4] + b"\0\0" + good[6:12],  # header with no question
        good[:2] + other_name[2:],
        good[:2] + other_type[2:],
        good[:-1],
        good + b"\0",
        good[:12] + b"\xff" * (len(good) - 12),
    ]


@pytest.mark.parametrize("number", range(11))
def test_p12_a_wrong_reply_never_ends_the_wait(number: int) -> None:
    exchange = start()
    good = reply_to(sent(attempt(exchange)), [RECORD])
    assert exchange.receive_reply(spoiled(good)[number], 0.1) is Verdict.IGNORED
    assert exchange.receive_reply(good, 0.2) is Verdict.DONE


def test_p29_a_reply_of_more_records_than_have_a_use_leads_to_the_next_upstream() -> None:
    exchange = start()
    made = attempt(exchange)
    good = reply_to(sent(made), edns=False)
    record = b"\0\0\1\0\1\0\0\0\0\0\0"
    reply = good[:6] + (MAX_RECORDS + 1).to_bytes(2, "big") + good[8:] + record * (MAX_RECORDS + 1)
    assert exchange.receive_reply(reply, 0.1) is Verdict.NEXT
    assert attempt(exchange).upstream.name == "two"
    assert (made.upstream.usable, made.upstream.stats.failures[Failure.RCODE]) == (True, 1)


def test_p12_case_of_the_name_may_change() -> None:
    exchange = start(data=query("wWw.eXample."))
    good = reply_to(sent(attempt(exchange)), [RECORD])
    assert exchange.receive_reply(good[:12] + good[12:25].lower() + good[25:], 0.1) is Verdict.DONE


def test_p15_tc_leads_to_tcp_at_the_same_upstream() -> None:
    exchange = start()
    made = attempt(exchange)
    assert exchange.receive_reply(reply_to(sent(made), flags=wire.TC), 0.1) is Verdict.NEXT
    over_tcp = attempt(exchange, 0.1)
    assert (over_tcp.upstream, over_tcp.tcp) == (made.upstream, True)
    assert exchange.receive_reply(reply_to(sent(over_tcp), flags=wire.TC), 0.2) is Verdict.NEXT
    after = attempt(exchange, 0.2)
    assert (after.upstream.name, after.tcp) == ("two", False)


def test_tcp_only_upstreams_are_asked_over_tcp() -> None:
    assert attempt(start(upstream("one", tcp=True))).tcp


@pytest.mark.parametrize("rcode", [wire.FORMERR, wire.NOTIMP])
def test_p16_edns_is_given_up_and_that_is_remembered(rcode: int) -> None:
    exchange = start()
    made = attempt(exchange)
    assert exchange.receive_reply(reply_to(sent(made), rcode=rcode, edns=False), 0.1) is Verdict.NEXT
    again = attempt(exchange, 0.1)
    assert again.upstream is made.upstream
    assert read(sent(again)).edns == -1
    assert read(sent(attempt(start(made.upstream), 0.2))).edns == -1


def test_p16_edns_is_tried_again_after_a_while() -> None:
    target = upstream("one")
    exchange = start(target)
    exchange.receive_reply(reply_to(sent(attempt(exchange)), rcode=wire.FORMERR, edns=False), 0.1)
    later = Exchange(b"k", scan_query(query("www.example.")), (target,), Limits(0.8, 1.8), 2000.0)
    assert read(sent(attempt(later, 2000.0))).edns == 0


@pytest.mark.parametrize("rcode", [wire.FORMERR, wire.SERVFAIL, wire.NOTIMP, wire.REFUSED])
def test_p21_failing_rcodes_lead_to_the_next_upstream(rcode: int) -> None:
    exchange = start()
    made = attempt(exchange)
    assert exchange.receive_reply(reply_to(sent(made), rcode=rcode), 0.1) is Verdict.NEXT
    assert attempt(exchange, 0.1).upstream.name == "two"
    assert made.upstream.stats.failures[Failure.RCODE] == 1


def test_p21_every_upstream_has_one_say_about_a_failing_question() -> None:
    exchange = start()
    for now in (0.1, 0.2):
        made = attempt(exchange, now)
        exchange.receive_reply(reply_to(sent(made), rcode=wire.SERVFAIL), now)
    assert exchange.next_attempt(0.3) is None
    assert exchange.last_failure is Failure.RCODE


@pytest.mark.parametrize("rcode", [0, wire.NXDOMAIN, 9])
def test_p21_other_rcodes_are_final(rcode: int) -> None:
    exchange = start()
    assert exchange.receive_reply(reply_to(sent(attempt(exchange)), rcode=rcode), 0.1) is Verdict.DONE


def test_p12_at_most_three_sends() -> None:
    exchange = start(upstream("one"))
    now = 0.0
    for _ in range(MAX_SENDS):
        attempt(exchange, now)
        exchange.fail_attempt(Failure.NETWORK, now)
    assert exchange.next_attempt(now) is None
    assert not exchange.may_resend()


def test_p21_the_total_time_bounds_the_last_attempt() -> None:
    exchange = start()
    assert attempt(exchange, 0.0).deadline == 0.8
    exchange.fail_attempt(Failure.TIMEOUT, 0.8)
    assert attempt(exchange, 1.5).deadline == 1.8
    exchange.fail_attempt(Failure.TIMEOUT, 1.8)
    assert exchange.next_attempt(1.8) is None


def test_p12_a_query_sent_again_counts_among_the_three() -> None:
    exchange = start(upstream("one", tcp=True), upstream("two", tcp=True))
    first = attempt(exchange)
    assert exchange.may_resend()
    exchange.fail_attempt(Failure.NETWORK, 0.1)
    assert attempt(exchange, 0.2).upstream.name == "two"
    assert not exchange.may_resend()
    assert exchange.next_attempt(0.3) is None
    assert first.upstream.stats.sent == 2
