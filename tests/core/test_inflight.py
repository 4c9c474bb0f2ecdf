"""What happens to questions that are with an upstream; the paths over time are in tests/scenarios."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import dns.edns
import dns.message
import pytest

from dnsproxy.core import fairness, memory, names, wire
from dnsproxy.core.attempt import Failure, Limits, Verdict
from dnsproxy.core.cache import CachePolicy
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.exchange import REFRESH, Exchange
from dnsproxy.core.fairness import JOSTLE_AFTER
from dnsproxy.core.features import Features
from dnsproxy.core.inflight import CLIENT_WAIT
from dnsproxy.core.policy import Owned
from dnsproxy.core.question import cache_key
from dnsproxy.core.upstreams import FALL, Upstream
from dnsproxy.errors import DropReason
from tests.messages import (
    CLIENT,
    addresses,
    answer,
    engine,
    forward,
    hangzhou,
    padded,
    query,
    read,
    reply_to,
    resolve,
    seeded,
)

WWW = "www.example. 60 IN A 192.0.2.1"
NEW = "www.example. 60 IN A 192.0.2.2"

STALE = CachePolicy(stale=3600.0)


def ede(data: bytes) -> list[int]:
    return [int(option.code) for option in read(data).options if isinstance(option, dns.edns.EDEOption)]


def fail(made: Engine, exchange: Exchange, now: float, reason: Failure = Failure.TIMEOUT) -> list[bytes]:
    """Let every attempt fail, and end the exchange."""
    while exchange.next_attempt(now) is not None:
        exchange.fail_attempt(reason, now)
    return made.complete(exchange, now)


def respond(made: Engine, exchange: Exchange, record: str, now: float) -> list[bytes]:
    """Let the next attempt be answered, and end the exchange."""
    attempt = exchange.next_attempt(now)
    assert attempt is not None
    exchange.receive_reply(reply_to(b"\0\1" + attempt.payload, [record]), now)
    return made.complete(exchange, now)


def begun(made: Engine) -> list[Exchange]:
    """What the shell would start besides queries; it takes it."""
    taken, made.exchanges.begun = made.exchanges.begun, []
    return taken


def expired(**options: object) -> Engine:
    """An engine that had www.example. until second 61."""
    made = engine(policy=STALE, **options)  # type: ignore[arg-type]
    resolve(made, query("www.example."), [WWW])
    return made


# -- serve-stale


def test_p19_a_stale_answer_waits_for_the_upstreams_to_fail() -> None:
    made = expired()
    step = forward(made, query("www.example.", use_edns=0), 100.0)
    (response,) = fail(made, step.exchange, 101.8)
    assert (addresses(response), read(response).answer[0].ttl, ede(response)) == (["192.0.2.1"], 30, [3])
    assert made.stats_now().responses["NOERROR", "stale"] == 1


def test_p19_while_the_failure_is_remembered_it_comes_at_once_and_later_ones_refresh() -> None:
    made = expired()
    fail(made, forward(made, query("www.example."), 100.0).exchange, 101.8)
    assert addresses(answer(made, query("www.example."), 103.0)) == ["192.0.2.1"]
    assert begun(made) == []
    assert addresses(answer(made, query("www.example."), 104.0)) == ["192.0.2.1"]
    (refresh,) = begun(made)
    assert (refresh.purpose, refresh.waiters, made.in_flight) == (REFRESH, [], 1)
    # Others who ask meanwhile are answered at once as well.
    assert addresses(answer(made, query("www.example."), 104.1)) == ["192.0.2.1"]
    assert respond(made, refresh, NEW, 104.5) == []
    assert addresses(answer(made, query("www.example."), 104.6)) == ["192.0.2.2"]
    assert made.stats.refreshes == {"stale": 1}
    assert len(made.exchanges.failures) == 0


def test_p19_a_failure_does_not_displace_a_positive_answer() -> None:
    made = expired(upstreams=[Upstream("one", ("192.0.2.1", 53), fall=100)])
    for now in (100.0, 200.0, 300.0):
        fail(made, forward(made, query("www.example."), now).exchange, now + 1)
        assert addresses(answer(made, query("www.example."), now + 2)) == ["192.0.2.1"]


def test_p19_beyond_its_time_a_stale_answer_is_no_longer_given() -> None:
    made = expired()
    (response,) = fail(made, forward(made, query("www.example."), 61 + 3600.0).exchange, 3662.0)
    assert read(response).rcode() == wire.SERVFAIL


def test_p19_without_it_failures_are_servfail() -> None:
    made = engine()
    resolve(made, query("www.example."), [WWW])
    (response,) = fail(made, forward(made, query("www.example."), 100.0).exchange, 101.0)
    assert read(response).rcode() == wire.SERVFAIL


def test_p19_an_answer_that_cannot_be_kept_displaces_an_old_one() -> None:
    made = expired()
    resolve(made, query("www.example."), [NEW.replace("60", "0")], now=100.0)
    (response,) = fail(made, forward(made, query("www.example."), 101.0).exchange, 102.0)
    assert read(response).rcode() == wire.SERVFAIL


def test_p19_when_nobody_is_up_it_comes_at_once() -> None:
    dead = Upstream("dead", ("192.0.2.1", 53))
    made = expired(upstreams=[dead])
    for _ in range(FALL):
        dead.record_failure("timeout", 50.0)
    response = answer(made, query("www.example.", use_edns=0), 100.0)
    assert (addresses(response), ede(response)) == (["192.0.2.1"], [3])
    assert len(begun(made)) == 1
    assert forward(made, query("other.example."), 100.0).is_new


def test_p19_with_a_longer_total_time_clients_wait_no_more_than_the_timer() -> None:
    made = expired(limits=Limits(5.0, 10.0))
    late = [forward(made, query("www.example.", ident=ident), 100.0) for ident in (1, 2)]
    assert made.exchanges.wake_at <= 100.0 + CLIENT_WAIT
    made.exchanges.tick(100.0 + CLIENT_WAIT - 0.1)
    assert made.exchanges.late == []
    made.exchanges.tick(100.0 + CLIENT_WAIT)
    given = [read(response) for _, response in made.exchanges.late]
    assert [(got.id, got.answer[0].ttl) for got in given] == [(1, 30), (2, 30)]
    # The exchange goes on; who asks now need not wait, and what comes is kept.
    assert addresses(answer(made, query("www.example."), 102.0)) == ["192.0.2.1"]
    assert respond(made, late[0].exchange, NEW, 108.0) == []
    assert addresses(answer(made, query("www.example."), 108.1)) == ["192.0.2.2"]


def test_p19_what_was_answered_in_time_is_not_answered_twice() -> None:
    made = expired(limits=Limits(5.0, 10.0))
    step = forward(made, query("www.example."), 100.0)
    assert len(respond(made, step.exchange, NEW, 101.0)) == 1
    made.exchanges.tick(102.0)
    assert made.exchanges.late == []


# -- failures


@pytest.mark.parametrize(("reason", "code"), [(Failure.TIMEOUT, 22), (Failure.NETWORK, 23)])
def test_p12_a_remembered_failure_tells_why_it_failed(reason: Failure, code: int) -> None:
    made = engine()
    step = forward(made, query("www.example.", use_edns=0))
    (first,) = fail(made, step.exchange, 1.0, reason)
    again = answer(made, query("www.example.", use_edns=0), 2.0)
    assert (ede(first), ede(again)) == ([code], [code, 13])
    assert read(again).rcode() == wire.SERVFAIL
    assert made.stats_now().responses == {("SERVFAIL", "error"): 2}


def test_p21_the_reason_of_the_upstream_is_passed_on() -> None:
    made = engine()
    step = forward(made, query("www.example.", use_edns=0))
    attempt = step.exchange.next_attempt(1.0)
    assert attempt is not None
    told = read(reply_to(b"\0\1" + attempt.payload, rcode=2))
    told.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "bogus")])
    step.exchange.receive_reply(told.to_wire(), 1.0)
    assert ede(made.complete(step.exchange, 1.0)[0]) == [6]
    assert ede(answer(made, query("www.example.", use_edns=0), 2.0)) == [6, 13]


def test_flushing_forgets_failures() -> None:
    made = engine()
    fail(made, forward(made, query("www.example.")).exchange, 1.0)
    made.flush(names.to_key("www.example"))
    assert forward(made, query("www.example."), 1.5).is_new


# -- prefetch

PREFETCH = Features(prefetch=True)


def busy(made: Engine, data: bytes) -> None:
    resolve(made, data, [WWW], now=1.0)
    for now in (2.0, 30.0, 54.0):
        answer(made, data, now)


@pytest.mark.parametrize("tcp", [False, True])
def test_p19_busy_answers_are_asked_for_anew_before_their_end(tcp: bool) -> None:
    made = engine(features=PREFETCH)
    data = query("www.example.")
    busy(made, data)
    assert begun(made) == []
    assert read(answer(made, data, 55.0, tcp=tcp)).answer[0].ttl == 6
    (refresh,) = begun(made)
    assert read(answer(made, data, 55.5, tcp=tcp)).answer[0].ttl == 6
    assert begun(made) == []
    assert respond(made, refresh, NEW, 56.0) == []
    assert made.stats.refreshes == {"prefetch": 1}
    assert addresses(answer(made, data, 62.0)) == ["192.0.2.2"]


def test_p19_an_answer_asked_for_once_is_not_busy() -> None:
    made = engine(features=PREFETCH)
    resolve(made, query("www.example."), [WWW])
    answer(made, query("www.example."), 60.0)
    assert begun(made) == []


def test_p19_off_means_off() -> None:
    made = engine()
    busy(made, query("www.example."))
    answer(made, query("www.example."), 60.0)
    assert begun(made) == []


def test_p19_a_prefetch_that_failed_is_not_repeated_with_every_hit() -> None:
    made = engine(features=PREFETCH)
    busy(made, query("www.example."))
    answer(made, query("www.example."), 55.0)
    (refresh,) = begun(made)
    fail(made, refresh, 56.0)
    for ident in range(20):
        assert addresses(answer(made, query("www.example.", ident=ident, use_edns=0), 57.0)) == ["192.0.2.1"]
    assert begun(made) == []


def test_p19_refreshes_are_a_bounded_part_of_what_is_in_flight() -> None:
    made = engine(features=PREFETCH, max_in_flight=40)
    for number in range(20):
        data = query(f"n{number}.example.")
        resolve(made, data, [f"n{number}.example. 60 IN A 192.0.2.1"], now=1.0)
        answer(made, data, 2.0)
    for number in range(20):
        answer(made, query(f"n{number}.example."), 56.0)
    assert len(begun(made)) == 4


def test_p19_when_clients_need_the_places_there_is_no_refresh() -> None:
    made = engine(features=PREFETCH, max_in_flight=40)
    busy(made, query("www.example."))
    for number in range(21):
        forward(made, query(f"n{number}.example."), 54.0)
    answer(made, query("www.example."), 56.0)
    assert begun(made) == []


# -- race


def racing(*more: str, **options: object) -> Engine:
    upstreams = [Upstream(name, ("192.0.2.1", 53)) for name in ("one", "two", *more)]
    for place, upstream in enumerate(upstreams, 1):
        upstream.record_response(place / 1000)
    made = engine(upstreams=upstreams, order="race", **options)  # type: ignore[arg-type]
    forward(made, query("explores.example."))
    begun(made)
    return made


def legs(made: Engine, data: bytes, now: float = 1.0) -> tuple[Forward, Exchange]:
    step = forward(made, data, now)
    (other,) = begun(made)
    return step, other


@pytest.mark.parametrize("winner", [0, 1])
def test_p21_of_two_that_race_the_first_answer_counts(winner: int) -> None:
    made = racing()
    step, other = legs(made, query("www.example.", ident=7))
    second = forward(made, query("www.example.", ident=8))
    assert not second.is_new
    both = (step.exchange, other)
    attempts = [exchange.next_attempt(1.0) for exchange in both]
    assert [attempt.upstream.name for attempt in attempts if attempt] == ["one", "two"]
    replies = [
        reply_to(b"\0\1" + attempt.payload, [record])
        for attempt, record in zip(attempts, (WWW, NEW), strict=True)
        if attempt
    ]
    both[winner].receive_reply(replies[winner], 1.0)
    responses = made.complete(both[winner], 1.0)
    assert [read(response).id for response in responses] == [7, 8]
    assert len(both[winner].waiters) == 2
    both[1 - winner].receive_reply(replies[1 - winner], 1.1)
    assert made.complete(both[1 - winner], 1.1) == []
    assert both[1 - winner].waiters == []
    assert addresses(answer(made, query("www.example."), 2.0)) == [f"192.0.2.{winner + 1}"]
    assert made.in_flight == 1


@pytest.mark.parametrize("loser", [0, 1])
def test_p21_when_one_fails_the_other_goes_on_for_all(loser: int) -> None:
    made = racing()
    step, other = legs(made, query("www.example.", ident=7))
    both = (step.exchange, other)
    for exchange in both:
        exchange.next_attempt(1.0)
    both[loser].give_up()
    both[loser].fail_attempt(Failure.TIMEOUT, 1.8)
    assert made.complete(both[loser], 1.8) == []
    joined = forward(made, query("www.example.", ident=8), 1.9)
    assert joined.exchange is both[1 - loser]
    assert len(joined.exchange.waiters) == 2
    (first, second) = fail(made, both[1 - loser], 2.0)
    assert [read(data).rcode() for data in (first, second)] == [2, 2]
    assert made.in_flight == 1


def test_p12_two_that_race_send_three_times_at_the_most() -> None:
    made = racing("three")
    step, other = legs(made, query("www.example."))
    names_asked = []
    for exchange in (step.exchange, other, step.exchange, other):
        attempt = exchange.next_attempt(1.0)
        names_asked.append(attempt.upstream.name if attempt else None)
        if attempt:
            exchange.fail_attempt(Failure.TIMEOUT, 1.0)
    assert names_asked == ["one", "two", "three", None]


def test_p22_a_dead_upstream_does_not_race() -> None:
    made = racing()
    for _ in range(FALL):
        next(made.upstreams()).record_failure("timeout", 0.0)
    assert forward(made, query("www.example."), 1.0).exchange.upstream.name == "two"
    assert begun(made) == []


def test_p19_two_that_race_have_one_timer() -> None:
    made = racing(limits=Limits(5.0, 10.0), policy=STALE)
    step, other = legs(made, query("www.example."))
    respond(made, step.exchange, WWW, 1.0)
    fail(made, other, 1.0)
    step, other = legs(made, query("www.example."), 100.0)
    fail(made, step.exchange, 101.0)
    made.exchanges.tick(102.0)
    assert len(made.exchanges.late) == 1
    assert fail(made, other, 103.0) == []


# -- 0x20

MIXED = Features(mix_case=True)


def test_p12_questions_go_out_in_random_case_and_come_back_as_the_client_wrote() -> None:
    made = engine(features=MIXED, draw=lambda count: b"\x55" * count)
    step = forward(made, query("www.Example."))
    attempt = step.exchange.next_attempt(1.0)
    assert attempt is not None
    assert attempt.payload[10:23] == b"\x03wWw\x07eXaMpLe\x00"
    step.exchange.receive_reply(reply_to(b"\0\1" + attempt.payload, [WWW]), 1.0)
    response = read(made.complete(step.exchange, 1.0)[0])
    assert response.question[0].name.to_text() == "www.Example."


def test_p12_replies_in_another_case_are_ignored_and_then_tcp_is_used() -> None:
    made = engine(features=MIXED, draw=lambda count: b"\x55" * count)
    step = forward(made, query("www.example."))
    attempt = step.exchange.next_attempt(1.0)
    assert attempt is not None
    wrong = reply_to(b"\0\1" + attempt.payload.lower(), [NEW])
    assert step.exchange.receive_reply(wrong, 1.0).value == "ignored"
    step.exchange.fail_attempt(Failure.TIMEOUT, 1.8)
    (one,) = made.upstreams()
    assert (one.stats.failures, one.usable) == ({"case": 1}, True)
    second = step.exchange.next_attempt(1.8)
    assert second is not None
    assert second.tcp
    over_tcp = reply_to(b"\0\1" + second.payload.lower(), [WWW])
    step.exchange.receive_reply(over_tcp, 1.9)
    assert addresses(made.complete(step.exchange, 1.9)[0]) == ["192.0.2.1"]
    later = forward(made, query("later.example."), 2.0).exchange.next_attempt(2.0)
    assert later is not None
    assert later.tcp


def test_p12_without_it_case_does_not_matter() -> None:
    made = engine()
    step = forward(made, query("www.example."))
    attempt = step.exchange.next_attempt(1.0)
    assert attempt is not None
    upper = attempt.payload[:10] + attempt.payload[10:22].upper() + attempt.payload[22:]
    assert step.exchange.receive_reply(reply_to(b"\0\1" + upper, [WWW]), 1.0).value == "done"


# -- loops


def test_p23_a_probe_that_comes_back_is_not_forwarded_and_disables_that_upstream_only() -> None:
    upstreams = [Upstream("loop", ("192.0.2.1", 53)), Upstream("good", ("192.0.2.2", 53))]
    made = engine(upstreams=upstreams, features=Features(probe_interval=60.0), draw=seeded().octets)
    made.exchanges.tick(0.0)
    probe = begun(made)[0]
    attempt = probe.next_attempt(0.0)
    assert attempt is not None
    response = answer(made, b"\0\1" + attempt.payload, 0.1)
    assert read(response).rcode() == wire.SERVFAIL
    assert made.in_flight == 0
    assert forward(made, query("www.example."), 0.2).exchange.upstream.name == "good"
    assert made.exchanges.tick(1.0) == [("loop", "loop")]


def test_p23_with_loops_everywhere_clients_hear_of_it() -> None:
    one = Upstream("one", ("192.0.2.1", 53))
    made = expired(upstreams=[one])
    one.record_loop(50.0, looped=True)
    response = answer(made, query("other.example.", use_edns=0), 100.0)
    assert (read(response).rcode(), ede(response)) == (wire.SERVFAIL, [22])
    assert addresses(answer(made, query("www.example."), 100.0)) == ["192.0.2.1"]
    assert begun(made) == []


# -- overload


def test_p27_the_newest_is_answered_and_the_oldest_that_waits_gives_way() -> None:
    made = engine(hangzhou(), max_in_flight=2)
    old = forward(made, query("a.example."), 1.0)
    forward(made, query("a.example.", ident=2), 1.0)
    forward(made, query("b.example."), 1.1)
    assert made.receive(query("c.example."), CLIENT, 1.1) is DropReason.OVERLOADED
    newest = forward(made, query("c.example."), 1.0 + JOSTLE_AFTER)
    assert (newest.is_new, made.in_flight) == (True, 2)
    assert made.stats.drops == {DropReason.OVERLOADED: 3}
    assert old.exchange.waiters == []
    assert old.exchange.next_attempt(1.3) is None


def test_p27_an_answer_that_comes_after_all_is_kept() -> None:
    made = engine(max_in_flight=1)
    old = forward(made, query("www.example."), 1.0)
    attempt = old.exchange.next_attempt(1.0)
    assert attempt is not None
    forward(made, query("b.example."), 1.5)
    old.exchange.receive_reply(reply_to(b"\0\1" + attempt.payload, [WWW]), 1.6)
    assert made.complete(old.exchange, 1.6) == []
    assert made.in_flight == 1
    assert addresses(answer(made, query("www.example."), 1.7)) == ["192.0.2.1"]


def test_p27_clients_over_tcp_are_told() -> None:
    made = engine(max_in_flight=1)
    forward(made, query("a.example.", ident=9, use_edns=0), 1.0, tcp=True)
    forward(made, query("b.example."), 2.0)
    ((waiter, response),) = made.exchanges.late
    assert (waiter[0].limit, read(response).id, read(response).rcode()) == (wire.TCP_LIMIT, 9, 2)


def test_p27_waiters_of_one_exchange_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "MAX_WAITERS", 2)
    made = engine()
    for ident in range(2):
        forward(made, query("www.example.", ident=ident))
    assert made.receive(query("www.example."), CLIENT, 1.0) is DropReason.TOO_MANY_WAITERS


def test_p20_a_query_that_is_longer_than_any_is_not_forwarded() -> None:
    made = engine()
    for size, forwarded in ((memory.LONGEST_FORWARDED, True), (memory.LONGEST_FORWARDED + 1, False)):
        step = made.receive(padded(f"{size}.example.", size), CLIENT, 1.0, tcp=True)
        assert isinstance(step, Forward) is forwarded
        refused = step
    assert isinstance(refused, bytes)
    assert (read(refused).rcode(), ede(refused)) == (wire.REFUSED, [21])


def test_p20_queries_that_wait_together_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each counts twice, and one client may have half of them.
    monkeypatch.setattr(fairness, "MAX_WAITING", 2 * 10 * 2)
    made = engine()
    first = forward(made, padded("www.example.", 1000), 1.0)

    def join(count: int) -> list[object]:
        steps = [made.receive(padded("www.example.", 1000), CLIENT, 1.0, tcp=True) for _ in range(count)]
        return [step for step in steps if not isinstance(step, Forward)]

    assert join(13) == [DropReason.TOO_MANY_WAITERS] * 3
    respond(made, first.exchange, WWW, 1.1)
    assert made.exchanges._fairness._waiting_total == 0
    made.flush(None)
    second = forward(made, padded("www.example.", 1000), 1.0)
    assert join(10) == []
    fail(made, second.exchange, 3.0)
    assert made.exchanges._fairness._waiting == {}


# -- 35: the random case of questions


def drawn() -> Callable[[int], bytes]:
    """The same random bytes in every test."""
    return random.Random(5).randbytes  # noqa: S311 - nothing is protected by them


def spelled(qtype: str, records: Sequence[str], **options: Any) -> tuple[Engine, bytes]:
    """The response to a question in random case, whose every name the upstream writes as it was asked."""
    made = engine(features=Features(mix_case=True, nxdomain_cut=True), draw=drawn())
    exchange = forward(made, query("wWw.Example.", qtype)).exchange
    attempt = exchange.next_attempt(1.0)
    assert attempt is not None
    mixed = attempt.payload[10:23]
    assert mixed.lower() == b"\3www\7example\0"
    assert mixed != b"\3wWw\7Example\0"
    zone = mixed[5:12].decode()
    authority = [text.format(zone=zone) for text in options.pop("authority", ())]
    texts = [text.format(zone=zone) for text in records]
    reply = reply_to(b"\x12\x34" + attempt.payload, texts, authority=authority, **options)
    assert zone.encode() in reply[29:]
    assert exchange.receive_reply(reply, 1.0) is Verdict.DONE
    return made, made.complete(exchange, 1.0)[0]


@pytest.mark.parametrize(
    ("qtype", "records", "options"),
    [
        ("A", ["wWw.Example. 60 IN CNAME web.{zone}.net.", "web.{zone}.net. 60 IN A 192.0.2.1"], {}),
        ("MX", ["wWw.Example. 60 IN MX 5 mx.{zone}.net."], {}),
        ("A", [], {"rcode": 3, "authority": ["{zone}.net. 60 IN SOA ns.{zone}.net. h.test. 1 2 3 4 60"]}),
    ],
    ids=["CNAME", "MX", "NXDOMAIN"],
)
def test_p35_random_case_shows_in_no_answer(qtype: str, records: list[str], options: dict[str, Any]) -> None:
    made, first = spelled(qtype, records, **options)
    later = answer(made, query("www.EXAMPLE.", qtype), 2.0)
    assert b"\7Example\3net" in first
    assert b"\7Example\3net" in later
    assert b"\3www\7EXAMPLE\0" in later
    if options:
        # So does what the denial says of names below it.
        below = answer(made, query("a.www.EXAMPLE.", qtype), 2.0)
        assert read(below).rcode() == 3
        assert b"\7Example\3net" in below


@pytest.mark.parametrize("over_tcp", [False, True])
def test_p35_a_refresh_leaves_the_spelling_of_its_question(over_tcp: bool) -> None:
    policy = CachePolicy(stale=3600)
    made = engine(features=Features(mix_case=True), draw=drawn(), policy=policy)
    scanned = wire.scan_query(query("wWw.Example.", "MX"))
    made.exchanges.refresh(scanned, cache_key(scanned), b"\0", "stale", 1.0)
    (exchange,) = made.exchanges.begun
    attempt = exchange.next_attempt(1.0)
    assert attempt is not None
    sent = b"\x12\x34" + attempt.payload
    if over_tcp:
        assert exchange.receive_reply(reply_to(sent, flags=0x200), 1.0) is Verdict.NEXT
        attempt = exchange.next_attempt(1.0)
        assert attempt is not None
        assert attempt.tcp
    zone = sent[17:24].decode()
    assert zone not in {"example", "Example"}
    reply = reply_to(sent, [f"wWw.{zone}. 60 IN MX 5 mx.{zone}.net."])
    assert exchange.receive_reply(reply, 1.0) is Verdict.DONE
    assert made.complete(exchange, 1.0) == []
    for now in (2.0, 3.0):
        for tcp in (False, True):
            response = answer(made, query("www.EXAMPLE.", "MX"), now, tcp=tcp)
            assert b"\2mx\7Example\3net" in response
            assert read(response).answer[0].name.to_text() == "www.EXAMPLE."
    # Also once it is stale.
    later = forward(made, query("www.eXample.", "MX"), 100.0)
    (stale,) = fail(made, later.exchange, 100.0)
    assert b"\2mx\7Example\3net" in stale
    assert read(stale).question[0].name.to_text() == "www.eXample."


def test_p35_the_faster_of_two_that_race_leaves_the_spelling() -> None:
    upstreams = [Upstream(label, ("192.0.2.1", port)) for port, label in enumerate(("one", "two"), 53)]
    made = engine(upstreams=upstreams, order="race", features=Features(mix_case=True), draw=drawn())
    first = forward(made, query("www.example.", "MX")).exchange
    (second,) = made.exchanges.begun
    assert first.next_attempt(1.0) is not None
    attempt = second.next_attempt(1.0)
    assert attempt is not None
    zone = attempt.payload[15:22].decode()
    assert zone != "example"
    reply = reply_to(b"\0\0" + attempt.payload, [f"www.example. 60 IN MX 5 mx.{zone}.net."])
    assert second.receive_reply(reply, 1.0) is Verdict.DONE
    (response,) = made.complete(second, 1.0)
    assert b"\2mx\7example\3net" in response


def test_p35_random_case_shows_behind_no_alias() -> None:
    made = engine(
        [Owned("owned.test.", addresses=("10.0.0.1",))],
        features=Features(mix_case=True),
        draw=drawn(),
        zones={b"\4corp\0": (Upstream("corp", ("192.0.2.9", 53)),)},
    )
    exchange = forward(made, query("www.example.")).exchange
    for target in ("host.corp.", "owned.test."):
        attempt = exchange.next_attempt(1.0)
        assert attempt is not None
        sent = b"\x12\x34" + attempt.payload
        name = dns.message.from_wire(sent).question[0].name.to_text()
        assert name != name.lower()
        reply = reply_to(sent, [f"{name} 60 IN CNAME {target}"])
        assert exchange.receive_reply(reply, 1.0) is Verdict.DONE
        responses = made.complete(exchange, 1.0)
        exchange = made.exchanges.begun.pop() if made.exchanges.begun else exchange
    owners = [rrset.name.to_text() for rrset in read(responses[0]).answer]
    assert owners == ["www.example.", "host.corp.", "owned.test."]
