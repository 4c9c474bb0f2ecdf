from __future__ import annotations

from collections import Counter

import dns.edns
import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import prepared
from dnsproxy.core.cache import CachePolicy
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.features import Features
from dnsproxy.core.group import Group
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.seen import DROPPED, forwarded, outcome, receive_counted
from dnsproxy.core.stats import SOURCES
from dnsproxy.core.upstreams import Upstream
from dnsproxy.core.wire import REFUSED, SERVFAIL, rcode_name
from dnsproxy.errors import DropReason
from tests.messages import CLIENT, REGISTRY, engine, hangzhou, query, reply_to

STRANGER = b"\x08\x08\x08\x08"


def source_of(
    made: Engine, data: bytes, now: float = 1.0, *, tcp: bool = False, client: bytes = CLIENT
) -> str:
    step, number = receive_counted(made, data, client, now, tcp=tcp)
    if not isinstance(step, bytes):
        assert number == DROPPED
        return "forwarded" if isinstance(step, Forward) else step.value
    return SOURCES[number]


def answer(made: Engine, data: bytes, now: float = 1.0, *, rcode: int = 0) -> tuple[Exchange, bytes]:
    """Have ``data`` forwarded and answered; return its exchange and the response."""
    step = made.receive(data, CLIENT, now)
    assert isinstance(step, Forward)
    exchange = step.exchange
    exchange.waiters.append((step.query, None, None, now))
    while (attempt := exchange.next_attempt(now)) is not None:
        asked = b"\x00\x07" + attempt.payload
        name = dns.message.from_wire(asked).question[0].name
        reply = reply_to(asked, [f"{name} 60 IN A 192.0.2.1"] if not rcode else (), rcode=rcode)
        if exchange.receive_reply(reply, now).value == "done":
            break
    (response,) = made.complete(exchange, now)
    return exchange, response


@pytest.mark.parametrize("tcp", [False, True])
def test_what_an_answer_was_made_from(tcp: bool) -> None:
    made = engine(hangzhou())
    answer(made, query("www.example."))
    # Twice, for the second one is from the prepared table, but over TCP.
    for _ in range(2):
        assert source_of(made, query(REGISTRY), tcp=tcp) == "learned"
        assert source_of(made, query("www.example."), tcp=tcp) == "cache"
        assert source_of(made, query("localhost."), tcp=tcp) == "local"
        assert source_of(made, query("x.example.", flags=0), tcp=tcp) == "error"
    assert len(made.prepared) == (0 if tcp else 3)


def test_what_gets_no_answer_yet_or_ever() -> None:
    made = engine(hangzhou())
    assert source_of(made, query("new.example.")) == "forwarded"
    assert source_of(made, b"short") == DropReason.SHORT
    assert source_of(made, query(REGISTRY), client=STRANGER) == "error"


def test_a_client_that_asks_too_much() -> None:
    made = engine(hangzhou(), limiter=RateLimiter(1, ()))
    found = [source_of(made, query(REGISTRY)) for _ in range(20)]
    assert found[0] == "learned"
    # Every other one beyond its rate is told to come by TCP.
    assert set(found[-4:]) == {DropReason.RATE_LIMITED, "error"}


def test_a_stale_answer() -> None:
    made = engine(policy=CachePolicy(stale=600.0))
    answer(made, query("www.example."), 1.0)
    answer(made, query("www.example."), 100.0, rcode=SERVFAIL)
    assert source_of(made, query("www.example."), 100.5) == "stale"


def test_nothing_counted_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where what was prepared is settled while an answer is made: the table is full all the time."""
    monkeypatch.setattr(prepared, "MAX_PREPARED", 1)
    one, other = engine(hangzhou()), engine(hangzhou())
    for made in (one, other):
        answer(made, query("www.example."))
    found = Counter[str]()
    for number in range(60):
        name = (REGISTRY, "localhost.", "www.example.")[number // 2 % 3]
        found[source_of(one, query(name), 1.5)] += 1
        other.receive(query(name), CLIENT, 1.5)
    assert found == {"learned": 20, "local": 20, "cache": 20}
    assert one.stats_now() == other.stats_now()


def race() -> tuple[Engine, Exchange, Exchange]:
    pair = (Upstream("one", ("192.0.2.1", 53)), Upstream("two", ("192.0.2.2", 53)))
    made = engine(upstreams=pair, order="race")
    assert isinstance(made.groups[b"\0"], Group)
    step = made.receive(query("www.example."), CLIENT, 1.0)
    assert isinstance(step, Forward)
    partner = step.exchange.partner
    assert partner is not None
    return made, step.exchange, partner


def test_who_had_told() -> None:
    exchange, response = answer(engine(), query("www.example."))
    source, told = forwarded(exchange, None, response)
    assert SOURCES[source] == "forward"
    assert told is exchange
    assert (told.upstream.name, told.over_tcp) == ("one", False)
    assert dns.message.from_wire(told.reply).answer == dns.message.from_wire(response).answer


def test_who_had_told_of_two_that_raced() -> None:
    made, first, second = race()
    attempt = second.next_attempt(1.0)
    assert attempt is not None
    asked = b"\0\1" + attempt.payload
    second.receive_reply(reply_to(asked, ["www.example. 60 IN A 192.0.2.1"]), 1.0)
    made.complete(second, 1.0)
    response = reply_to(query("www.example."))
    assert forwarded(first, second, response) == (SOURCES.index("forward"), second)


def test_nobody_had_told() -> None:
    made = engine()
    exchange, response = answer(made, query("www.example."), rcode=REFUSED)
    assert rcode_name(outcome(response)[0]) == "SERVFAIL"
    assert forwarded(exchange, None, response) == (SOURCES.index("error"), None)
    # Of an exchange that has told nothing, any other response is a stale one.
    assert forwarded(exchange, None, reply_to(query("www.example."))) == (SOURCES.index("stale"), None)


def test_the_outcome_has_the_upper_bits_and_every_extended_error() -> None:
    message = dns.message.make_response(dns.message.from_wire(query("www.example.", use_edns=0)))
    message.use_edns(
        0,
        options=[dns.edns.EDEOption(dns.edns.EDECode(3)), dns.edns.EDEOption(dns.edns.EDECode(22), "no one")],
    )
    message.set_rcode(dns.rcode.BADVERS)
    assert outcome(message.to_wire()) == (16, [3, 22])


def test_the_outcome_without_edns() -> None:
    assert outcome(reply_to(query("www.example."), rcode=3, edns=False)) == (3, [])


@given(st.binary(min_size=12, max_size=200))
def test_the_outcome_of_any_bytes(data: bytes) -> None:
    rcode, errors = outcome(data)
    assert rcode & 0xF == data[3] & 0xF
    assert all(0 <= error < 65536 for error in errors)


def test_a_denial_for_any_is_local() -> None:
    made = engine(features=Features(minimal_any=True))
    assert source_of(made, query("www.example.", "ANY")) == "local"
