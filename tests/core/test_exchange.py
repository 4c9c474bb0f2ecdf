from __future__ import annotations

import pytest

from dnsproxy.core import wire
from dnsproxy.core.attempt import Attempt, Failure, Limits, Verdict
from dnsproxy.core.exchange import MAX_SENDS, Exchange
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
        good[:-11] + b"\xc0\x40" + good[-10:],  # an owner that leads out of the message
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


@pytest.mark.parametrize("rcode", [wire.NOERROR, wire.NXDOMAIN])
@pytest.mark.parametrize("hint", [wire.FORMERR, wire.NOTIMP, wire.BADVERS])
def test_p30_no_edns_is_remembered_once_the_retry_is_answered(hint: int, rcode: int) -> None:
    exchange = start()
    made = attempt(exchange)
    reply = reply_to(sent(made), rcode=hint, edns=hint == wire.BADVERS)
    assert exchange.receive_reply(reply, 0.1) is Verdict.NEXT
    again = attempt(exchange, 0.1)
    assert again.upstream is made.upstream
    assert read(sent(again)).edns == -1
    # Others still use EDNS until then.
    assert read(sent(attempt(start(made.upstream), 0.2))).edns == 0
    assert exchange.receive_reply(reply_to(sent(again), rcode=rcode, edns=False), 0.2) is Verdict.DONE
    assert read(sent(attempt(start(made.upstream), 0.2))).edns == -1


@pytest.mark.parametrize("rcode", [wire.FORMERR, wire.NOTIMP, wire.SERVFAIL, wire.REFUSED])
def test_p30_no_edns_is_not_remembered_when_the_retry_fails_too(rcode: int) -> None:
    exchange = start()
    made = attempt(exchange)
    exchange.receive_reply(reply_to(sent(made), rcode=wire.FORMERR, edns=False), 0.1)
    again = attempt(exchange, 0.1)
    assert exchange.receive_reply(reply_to(sent(again), rcode=rcode, edns=False), 0.2) is Verdict.NEXT
    # There is one retry; then the next upstream is asked, with EDNS.
    after = attempt(exchange, 0.2)
    assert (after.upstream.name, read(sent(after)).edns) == ("two", 0)
    assert read(sent(attempt(start(made.upstream), 0.2))).edns == 0


def test_p30_no_edns_is_not_remembered_of_an_upstream_that_has_sent_an_opt() -> None:
    first = start()
    made = attempt(first)
    first.receive_reply(reply_to(sent(made), [RECORD]), 0.05)
    exchange = start(made.upstream)
    exchange.receive_reply(reply_to(sent(attempt(exchange)), rcode=wire.FORMERR, edns=False), 0.1)
    again = attempt(exchange, 0.1)
    assert exchange.receive_reply(reply_to(sent(again), [RECORD], edns=False), 0.2) is Verdict.DONE
    assert read(sent(attempt(start(made.upstream), 0.2))).edns == 0


@pytest.mark.parametrize("rcode", [wire.FORMERR, wire.NOTIMP])
def test_p30_a_bare_header_is_the_same_hint_and_the_reply_after_it_still_counts(rcode: int) -> None:
    exchange = start()
    made = attempt(exchange)
    header = b"\x12\x34\x80" + bytes((rcode,)) + bytes(8)
    assert exchange.receive_reply(header, 0.1) is Verdict.HINT
    assert exchange.receive_reply(header, 0.1, made) is Verdict.IGNORED
    again = attempt(exchange, 0.1)
    assert (again.upstream, read(sent(again)).edns) == (made.upstream, -1)
    assert exchange.receive_reply(reply_to(sent(made), [RECORD]), 0.2, made) is Verdict.DONE
    # An answer with an OPT: what the header said was forged, or about something else.
    assert read(sent(attempt(start(made.upstream), 0.3))).edns == 0


@pytest.mark.parametrize("header", ["80020000", "80000000", "00010000", "80010001"])
def test_p30_other_headers_are_ignored(header: str) -> None:
    exchange = start()
    attempt(exchange)
    assert exchange.receive_reply(b"\x12\x34" + bytes.fromhex(header) + bytes(6), 0.1) is Verdict.IGNORED


def test_p16_edns_is_tried_again_after_a_while() -> None:
    target = upstream("one")
    exchange = start(target)
    exchange.receive_reply(reply_to(sent(attempt(exchange)), rcode=wire.FORMERR, edns=False), 0.1)
    exchange.receive_reply(reply_to(sent(attempt(exchange)), [RECORD], edns=False), 0.2)
    later = Exchange(b"k", scan_query(query("www.example.")), (target,), Limits(0.8, 1.8), 2000.0)
    assert read(sent(attempt(later, 2000.0))).edns == 0


@pytest.mark.parametrize("rcode", [*range(1, 3), *range(4, 16), *range(17, 24)])
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


@pytest.mark.parametrize("rcode", [0, wire.NXDOMAIN])
def test_p21_other_rcodes_are_final(rcode: int) -> None:
    exchange = start()
    assert exchange.receive_reply(reply_to(sent(attempt(exchange)), rcode=rcode), 0.1) is Verdict.DONE


def test_p21_yxdomain_is_final_with_its_dname() -> None:
    exchange = start()
    reply = reply_to(sent(attempt(exchange)), ["example. 60 IN DNAME example.net."], rcode=wire.YXDOMAIN)
    assert exchange.receive_reply(reply, 0.1) is Verdict.DONE


def test_p12_at_most_three_sends() -> None:
    exchange = start(upstream("one"))
    now = 0.0
    for _ in range(MAX_SENDS):
        attempt(exchange, now)
        exchange.fail_attempt(Failure.NETWORK, now)
    assert exchange.next_attempt(now) is None
    assert exchange.listening == 0


def test_p21_the_total_time_bounds_the_last_attempt() -> None:
    exchange = start()
    assert attempt(exchange, 0.0).deadline == 0.8
    exchange.fail_attempt(Failure.TIMEOUT, 0.8)
    assert attempt(exchange, 1.5).deadline == 1.8
    exchange.fail_attempt(Failure.TIMEOUT, 1.8)
    assert exchange.next_attempt(1.8) is None


def test_p33_a_lost_connection_is_not_a_send_and_bounded() -> None:
    exchange = start(upstream("one", tcp=True), upstream("two", tcp=True))
    attempt(exchange)
    for _ in range(20):
        assert exchange.may_resend(0.1, is_answering=True)
    assert exchange.may_resend(0.1, is_answering=False)
    assert exchange.may_resend(0.1, is_answering=False)
    assert not exchange.may_resend(0.1, is_answering=False)
    exchange.fail_attempt(Failure.NETWORK, 0.1)
    for name in ("two", "one"):
        assert attempt(exchange, 0.2).upstream.name == name
        exchange.fail_attempt(Failure.NETWORK, 0.2)
    assert exchange.next_attempt(0.3) is None
    assert not start().may_resend(1.8, is_answering=True)


# -- late replies


def test_p31_a_reply_to_an_attempt_whose_time_is_over_counts() -> None:
    exchange = start()
    first = attempt(exchange)
    assert exchange.time_out(first, 0.8)
    second = attempt(exchange, 0.8)
    assert (second.upstream.name, first.deadline, exchange.listening) == ("two", 1.8, 2)
    assert exchange.receive_reply(reply_to(sent(first), [RECORD]), 1.0, first) is Verdict.DONE
    assert (exchange.upstream, exchange.sent_at, first.upstream.stats.rtt) == (first.upstream, 0.0, 1.0)


def test_p21_a_late_failure_leaves_the_question_with_the_next_upstream() -> None:
    exchange = start()
    first = attempt(exchange)
    exchange.time_out(first, 0.8)
    second = attempt(exchange, 0.8)
    assert exchange.receive_reply(reply_to(sent(first), rcode=wire.SERVFAIL), 1.0, first) is Verdict.WAIT
    assert exchange.is_waiting
    assert exchange.receive_reply(reply_to(sent(second), rcode=wire.SERVFAIL), 1.1, second) is Verdict.NEXT
    # Each of them has said that it cannot, so none is asked again.
    assert (exchange.next_attempt(1.1), exchange.listening) == (None, 0)


def test_p21_the_end_waits_for_replies_that_may_come() -> None:
    exchange = start(upstream("one"))
    sends = []
    for now in (0.0, 0.8, 1.6):
        sends.append(attempt(exchange, now))
        assert exchange.time_out(sends[-1], sends[-1].deadline) is (now < 1.0)
    assert exchange.next_attempt(1.7) is None
    assert exchange.listening == 2
    assert [exchange.time_out(made, 1.8) for made in sends[:2]] == [False, False]
    assert exchange.listening == 0


def test_the_time_of_an_attempt_follows_the_round_trip_time() -> None:
    target = upstream("one")
    for _ in range(50):
        target.record_response(0.01)
    exchange = start(target)
    assert attempt(exchange).deadline == pytest.approx(0.3)
    exchange.fail_attempt(Failure.TIMEOUT, 0.3)
    # The mean counts the failure, and the time is doubled.
    assert attempt(exchange, 0.3).deadline == pytest.approx(0.3 + 0.6, abs=0.15)
    slow = upstream("slow")
    slow.record_response(3.5)
    assert attempt(start(slow)).deadline == 0.8


def test_p32_an_unanswered_question_is_one_failure_and_none_where_something_was_heard() -> None:
    target = upstream("one")
    exchange = start(target)
    for _ in range(MAX_SENDS):
        made = attempt(exchange, 0.1)
        exchange.time_out(made, 0.9)
    assert (target.failing, target.stats.failures["timeout"]) == (1, MAX_SENDS)
    assert target.probe_at == 0.9
    heard = start(target)
    attempt(heard, 1.0)
    target.record_response(0.01, 1.1)
    heard.fail_attempt(Failure.TIMEOUT, 1.4)
    assert (target.failing, target.usable) == (0, True)


def test_p32_questions_that_wait_at_the_same_time_are_one_failure() -> None:
    target = upstream("one")
    exchanges = [start(target) for _ in range(20)]
    for exchange in exchanges:
        attempt(exchange, 0.1)
    for exchange in exchanges:
        exchange.fail_attempt(Failure.TIMEOUT, 0.9)
    assert (target.failing, target.usable) == (1, True)


@pytest.mark.parametrize("trailing", [b"\0", b"garbage", bytes(600)])
def test_p31_bytes_after_a_complete_response_are_ignored(trailing: bytes) -> None:
    exchange = start()
    reply = reply_to(sent(attempt(exchange)), [RECORD])
    assert exchange.receive_reply(reply + trailing, 0.1) is Verdict.DONE
    assert exchange.response is not None
    assert exchange.response.counts == (1, 0, 0)
    assert len(exchange.response.sections) == 16
