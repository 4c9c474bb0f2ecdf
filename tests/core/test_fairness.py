"""Whose queries wait when not all can; each test asks an engine as its clients would."""

from __future__ import annotations

import pytest

from dnsproxy.core import fairness, memory, wire
from dnsproxy.core.clients import Clients
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.fairness import JOSTLE_AFTER, Fairness
from dnsproxy.core.upstreams import Upstream
from dnsproxy.errors import DropReason
from tests.messages import LIMITS, addresses, engine, padded, query, reply_to

FLOOD, OTHER, THIRD = (bytes((127, 0, 0, number)) for number in (2, 3, 4))
WWW = "www.example. 60 IN A 192.0.2.1"


def ask(made: Engine, source: bytes, name: str, now: float = 1.0, ident: int = 1) -> Forward | DropReason:
    """Ask over UDP as the listener does: with a port that is the id."""
    step = made.receive(query(f"{name}.example.", ident=ident), source, now)
    assert not isinstance(step, bytes)
    if isinstance(step, Forward) and (step.is_new or not made.exchanges.is_copy(step, (source, ident))):
        step.exchange.waiters.append((step.query, None, (source, ident), now))
    return step


def start(made: Engine, source: bytes, name: str, now: float = 1.0) -> Exchange:
    step = ask(made, source, name, now)
    assert isinstance(step, Forward)
    assert step.is_new
    return step.exchange


def respond(made: Engine, exchange: Exchange, now: float) -> list[bytes]:
    attempt = exchange.next_attempt(now)
    assert attempt is not None, "given up"
    exchange.receive_reply(reply_to(b"\0\1" + attempt.payload, [WWW]), now)
    return made.complete(exchange, now)


def ends(made: Engine) -> None:
    """Let all end, and see that nothing is counted any more."""
    work = made.exchanges
    for exchange in list(work._exchanges.values()):
        made.complete(exchange, 1.0)
    assert (work._fairness._slots.total, work._fairness._slots._entries) == (0, {})
    assert (work._fairness._waiting, work._fairness._waiting_total) == ({}, 0)


def test_p43_a_flood_of_one_client_costs_another_no_slow_name() -> None:
    made = engine(max_in_flight=100)
    slow = start(made, OTHER, "slow", 1.0)
    for number in range(6000):  # in one second
        ask(made, FLOOD, f"n{number}", 1.0 + number / 6000)
        if number % 600 == 0:
            start(made, OTHER, f"other{number}", 1.0 + number / 6000)
    assert made.in_flight == 100
    assert len(respond(made, slow, 2.0)) == 1
    assert made.stats.drops[DropReason.OVER_SHARE] == 10 - sum(number < 100 for number in range(0, 6000, 600))
    ends(made)


def test_p43_the_oldest_query_of_the_client_with_the_most_gives_way_at_once() -> None:
    made = engine(max_in_flight=6)
    first = start(made, OTHER, "first")
    flood = [start(made, FLOOD, f"n{number}") for number in range(5)]
    assert isinstance(ask(made, FLOOD, "n5"), DropReason)  # it has the most, and none has waited for long
    start(made, OTHER, "second")
    start(made, THIRD, "third")
    assert [exchange.waiters == [] for exchange in flood] == [True, True, False, False, False]
    assert first.waiters
    # Three, two and one: nobody has two fewer than the client with the most but the third.
    assert ask(made, OTHER, "third.time") is DropReason.OVERLOADED
    start(made, THIRD, "again")
    assert flood[2].waiters == []
    # Of equal ones the oldest of the client itself gives way once it has waited.
    start(made, OTHER, "later", 1.0 + JOSTLE_AFTER)
    assert first.waiters == []
    assert made.stats.drops == {DropReason.OVERLOADED: 3, DropReason.OVER_SHARE: 3}
    ends(made)


def test_p43_what_another_client_waits_for_too_is_not_given_up_for_the_flood() -> None:
    made = engine(max_in_flight=6)
    flood = [start(made, FLOOD, f"n{number}") for number in range(6)]
    assert isinstance(ask(made, OTHER, "n0"), Forward)
    start(made, THIRD, "third")
    assert [bool(exchange.waiters) for exchange in flood] == [True, False, True, True, True, True]
    assert len(respond(made, flood[0], 1.1)) == 2
    ends(made)


def test_p43_exchanges_begun_before_there_were_many_are_counted_later() -> None:
    made = engine(max_in_flight=8)
    flood = [start(made, FLOOD, f"n{number}") for number in range(4)]
    assert made.exchanges._fairness._slots.total == 0
    flood += [start(made, FLOOD, f"n{number}") for number in range(4, 8)]
    assert made.exchanges._fairness._slots.total == 8
    for exchange in flood[:6]:
        respond(made, exchange, 1.1)
    # Few again: these are not counted, until there are many once more.
    names = [start(made, OTHER, f"m{number}", 1.2) for number in range(6)]
    assert made.exchanges._fairness._slots.total == 8
    assert names[0].share is not None
    ends(made)


def test_p43_clients_are_those_of_the_rate_limit() -> None:
    made = engine(max_in_flight=4, allow=["2001:db8::/32"])
    network = bytes.fromhex("20010db8 00000001")
    for number in range(4):
        start(made, network + bytes((0, 0, 0, 0, 0, 0, 0, number)), f"n{number}")
    start(made, bytes.fromhex("20010db8 00000002") + bytes(8), "other")
    assert made.stats.drops == {DropReason.OVER_SHARE: 1}


def test_p43_a_race_counts_once() -> None:
    upstreams = [Upstream(name, (f"192.0.2.{index}", 53)) for index, name in enumerate("ab", 1)]
    made = engine(upstreams=upstreams, order="race", max_in_flight=1)
    one = start(made, OTHER, "www")
    (other,) = made.exchanges.begun
    assert isinstance(ask(made, THIRD, "www"), Forward)
    assert made.exchanges._fairness._slots.total == 1
    assert len(respond(made, other, 1.1)) == 2
    ends(made)
    assert one.share is None


# -- waiters


def test_p43_a_copy_of_a_query_that_waits_is_ignored() -> None:
    made = engine()
    exchange = start(made, FLOOD, "www")
    for _ in range(1000):
        assert isinstance(ask(made, FLOOD, "www"), Forward)
    assert len(exchange.waiters) == 1
    # Nor does it count towards any limit.
    assert made.exchanges._fairness._waiting_total == 0
    # Another id, another port, another spelling are no copies; nor is anything of another client.
    ask(made, FLOOD, "www", ident=2)
    ask(made, FLOOD, "wWw")
    ask(made, OTHER, "www")
    assert len(exchange.waiters) == 4
    assert made.stats.drops == {DropReason.DUPLICATE: 1000}
    assert [addresses(data) for data in respond(made, exchange, 1.1)] == [["192.0.2.1"]] * 4
    ends(made)


def test_p43_over_tcp_each_query_has_its_answer() -> None:
    made = engine()
    for _ in range(2):
        step = made.receive(query("www.example."), OTHER, 1.0, tcp=True)
        assert isinstance(step, Forward)
        assert step.is_new or not made.exchanges.is_copy(step, None)


def test_p43_one_client_does_not_take_all_that_may_wait_for_an_answer() -> None:
    made = engine()
    start(made, FLOOD, "www")
    steps = [ask(made, FLOOD, "www", ident=ident) for ident in range(2, 1000)]
    assert sum(isinstance(step, Forward) for step in steps) == fairness.MAX_PER_CLIENT
    assert isinstance(ask(made, OTHER, "www"), Forward)
    assert made.stats.drops == {DropReason.TOO_MANY_WAITERS: 998 - fairness.MAX_PER_CLIENT}
    ends(made)


def test_p43_many_clients_do_not_keep_another_from_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "MAX_WAITERS", 40)
    made = engine()
    start(made, FLOOD, "www")
    for client in range(10, 20):
        for ident in range(2, 12):
            ask(made, bytes((127, 0, 1, client)), "www", ident=ident)
    assert isinstance(ask(made, OTHER, "www"), Forward)
    ((exchange,),) = [made.exchanges._exchanges.values()]
    assert exchange.share is not None
    assert exchange.share.count <= 2 * fairness.MAX_WAITERS
    ends(made)


def test_p43_all_that_wait_are_bounded_and_each_client_has_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "MAX_WAITING", 200)
    made = engine(max_in_flight=100)
    for number in range(50):
        start(made, FLOOD, f"n{number}")
        for ident in range(2, 20):
            ask(made, FLOOD, f"n{number}", ident=ident)
    # A client may have as many as are left.
    assert made.exchanges._fairness._waiting_total == 100
    for client, joined in ((OTHER, 50), (THIRD, 25)):
        steps = [ask(made, client, f"n{number}") for number in range(50)]
        assert sum(isinstance(step, Forward) for step in steps) == joined
    ends(made)


def test_p43_long_queries_of_one_client_leave_room_for_those_of_another() -> None:
    """Each with its own id, as many as may wait for each name: over UDP, 40 Mbit/s."""
    made = engine(max_in_flight=100)
    for number in range(20):
        start(made, OTHER, f"n{number}")
        long = padded(f"n{number}.example.", memory.LONGEST_FORWARDED)
        for ident in range(fairness.MAX_PER_CLIENT):
            data = ident.to_bytes(2, "big") + long[2:]
            step = made.receive(data, FLOOD, 1.0)
            if isinstance(step, Forward) and not made.exchanges.is_copy(step, (FLOOD, 1)):
                step.exchange.waiters.append((step.query, None, (FLOOD, 1), 1.0))
    work = made.exchanges
    waiting = [waiter[0].data for exchange in work._exchanges.values() for waiter in exchange.waiters[1:]]
    assert sum(len(data) + memory.WAITER for data in waiting) <= memory.WAITERS / 2
    for number in range(20):
        assert isinstance(ask(made, THIRD, f"n{number}"), Forward)
    ends(made)


def test_p43_waiters_that_were_answered_are_not_counted() -> None:
    shares = Fairness(4, LIMITS.total, Clients())
    made = engine()
    exchange = start(made, OTHER, "www")
    exchange.share = None
    assert shares.join(exchange, wire.scan_query(query("www.example.")), THIRD) == THIRD
    shares.forget_waiters(exchange)
    assert shares._waiting_total == 0
    shares.end(exchange)
    assert shares._waiting == {}
