from __future__ import annotations

import copy
from typing import Any

import pytest

from dnsproxy.core import names, wire
from dnsproxy.core.cache import CachePolicy
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.exchange import Failure
from dnsproxy.core.explain import (
    CachedView,
    Explanation,
    FailureView,
    Outcome,
    OwnedView,
    Question,
    explain,
    type_code,
)
from dnsproxy.core.features import Features
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.policy import Owned, Ruleset
from dnsproxy.core.upstreams import FALL, Upstream
from tests.messages import (
    CLIENT,
    OSS,
    REGISTRY,
    addresses,
    answer,
    engine,
    forward,
    hangzhou,
    query,
    resolve,
    unknown_rules,
)


def ask(made: Engine, name: str, qtype: str = "A", now: float = 1.0, **facts: Any) -> Explanation:
    return explain(made, Question(names.to_key(name), type_code(qtype), **facts), now)


def test_a_learned_name() -> None:
    found = ask(engine(hangzhou()), REGISTRY)
    assert found.outcome is Outcome.LEARNED
    assert found.owned == OwnedView(REGISTRY, ("10.94.205.198",), ("10.94.205.198",), None, 30, stale=False)
    assert (found.zone, [upstream.name for upstream in found.upstreams]) == (".", ["one"])


def test_a_name_below_a_wildcard() -> None:
    found = ask(engine(hangzhou()), f"bucket.{OSS}")
    assert found.owned is not None
    assert (found.outcome, found.owned.rule) == (Outcome.LEARNED, f"*.{OSS}")


@pytest.mark.parametrize("qtype", ["AAAA", "HTTPS", "TXT", "TYPE65"])
def test_other_types_of_an_owned_name_have_no_data(qtype: str) -> None:
    found = ask(engine(hangzhou()), REGISTRY, qtype)
    assert found.outcome is Outcome.NODATA
    assert found.owned is not None
    assert found.owned.given == ()


def test_any_gives_addresses() -> None:
    assert ask(engine(hangzhou()), REGISTRY, "ANY").outcome is Outcome.LEARNED


def test_a_name_that_nobody_has_learned() -> None:
    made = engine()
    made.swap_rules(unknown_rules())
    assert ask(made, REGISTRY).outcome is Outcome.NOT_READY


@pytest.mark.parametrize(
    ("now", "outcome", "ttl"),
    [(9.0, Outcome.LEARNED, 300), (10.0, Outcome.STALE, 30), (20.0, Outcome.NOT_READY, 300)],
)
def test_age_shows_in_the_outcome(now: float, outcome: Outcome, ttl: int) -> None:
    owned = Owned(REGISTRY, addresses=("10.0.0.1",), ttl=300, stale_at=10.0, gone_at=20.0)
    found = ask(engine([owned]), REGISTRY, now=now)
    assert found.owned is not None
    assert (found.outcome, found.owned.ttl) == (outcome, ttl)


def test_a_client_that_may_not_ask() -> None:
    made = engine(hangzhou())
    assert ask(made, REGISTRY, allowed=False).outcome is Outcome.REFUSED_CLIENT
    assert ask(made, REGISTRY, allowed=True).outcome is Outcome.LEARNED


@pytest.mark.parametrize("qtype", ["AXFR", "IXFR", "OPT"])
def test_types_that_are_not_data(qtype: str) -> None:
    assert ask(engine(), "www.example.", qtype).outcome is Outcome.REFUSED_TYPE


def test_a_cached_answer_and_what_is_left_of_its_life() -> None:
    made = engine()
    resolve(made, query("www.example.", want_dnssec=True), ["www.example. 60 IN A 192.0.2.1"], now=1.0)
    found = ask(made, "WWW.example", now=11.0)
    assert found.outcome is Outcome.FORWARD
    assert found.cached == (CachedView("DO", "NOERROR", age=10, ttl=50),)
    resolve(made, query("www.example."), ["www.example. 60 IN A 192.0.2.1"], now=1.0)
    found = ask(made, "WWW.example", now=11.0)
    assert found.outcome is Outcome.CACHE
    assert CachedView("plain", "NOERROR", age=10, ttl=50) in found.cached
    assert ask(made, "www.example", "AAAA", now=11.0).cached == ()
    assert ask(made, "www.example", now=61.0).cached == ()


def test_the_flags_of_a_variant() -> None:
    made = engine()
    data = bytearray(query("www.example.", want_dnssec=True))
    data[3] |= wire.CD
    resolve(made, bytes(data), ["www.example. 60 IN A 192.0.2.1"])
    assert [entry.variant for entry in ask(made, "www.example").cached] == ["CD+DO"]


def test_the_zone_and_the_order_of_its_upstreams() -> None:
    one, two = Upstream("one", ("192.0.2.1", 53)), Upstream("two", ("192.0.2.2", 53))
    two.record_response(0.02)
    for _ in range(FALL):
        one.record_failure("timeout", 0.0)
    made = engine(zones={names.to_key("corp.example"): (one, two)})
    found = ask(made, "a.corp.example")
    assert (found.outcome, found.zone) == (Outcome.FORWARD, "corp.example.")
    assert [(held.name, held.up, held.rtt) for held in found.upstreams] == [
        ("two", True, 0.02),
        ("one", False, 1.0),
    ]
    assert found.upstreams[1].failures == {"timeout": FALL}


def test_nothing_is_changed_by_looking() -> None:
    dead = Upstream("dead", ("192.0.2.1", 53))
    for _ in range(FALL):
        dead.record_failure("timeout", 0.0)
    made = engine(hangzhou(), upstreams=[dead])
    resolve(made, query("www.example."), ["www.example. 60 IN A 192.0.2.1"])
    key = next(iter(made.cache.keys()))
    made.cache._entries[key].hits = 0
    turns = [addresses(answer(made, query(OSS, ident=i), 2.0 + i)) for i in range(2)]
    stats = copy.deepcopy(made.stats_now())
    for name in ("www.example", OSS, REGISTRY):
        ask(made, name, now=50.0)
    assert made.stats_now() == stats
    assert made.cache._entries[key].hits == 0
    assert addresses(answer(made, query(OSS), 60.0)) == turns[0]


def test_without_upstreams_of_its_own_a_zone_is_the_root() -> None:
    made = engine()
    made.swap_rules(Ruleset())
    assert ask(made, ".", "NS").zone == "."


@pytest.mark.parametrize(
    ("text", "code"), [("a", 1), ("AAAA", 28), ("Https", 65), ("type65", 65), ("ANY", 255)]
)
def test_types_by_name_and_number(text: str, code: int) -> None:
    assert type_code(text) == code


@pytest.mark.parametrize("text", ["", "AAAAA", "TYPE0", "TYPE65536", "TYPE", "1"])
def test_what_is_no_type(text: str) -> None:
    with pytest.raises(ValueError, match="is not a type"):
        type_code(text)


# -- the paths of a query that no rule owns


def outcome(made: Engine, name: str, qtype: str = "A", now: float = 1.0, **facts: Any) -> Outcome:
    return ask(made, name, qtype, now, **facts).outcome


def failed(made: Engine, name: str, now: float) -> None:
    exchange = forward(made, query(name), now).exchange
    while exchange.next_attempt(now) is not None:
        exchange.fail_attempt(Failure.TIMEOUT, now)
    made.complete(exchange, now)


def test_a_client_over_its_rate() -> None:
    made = engine(hangzhou(), limiter=RateLimiter(1))
    assert outcome(made, REGISTRY, client=CLIENT) is Outcome.LEARNED
    answer(made, query(REGISTRY))
    assert outcome(made, REGISTRY, client=CLIENT) is Outcome.RATE_LIMITED
    assert outcome(made, REGISTRY) is Outcome.LEARNED


def test_special_names_unless_a_zone_holds_them() -> None:
    found = ask(engine(), "1.2.3.10.in-addr.arpa", "PTR")
    assert (found.outcome, found.special) == (Outcome.SPECIAL, "10.in-addr.arpa.")
    zones: dict[bytes, tuple[Upstream, ...]] = {
        names.to_key("10.in-addr.arpa"): (Upstream("corp", ("192.0.2.9", 53)),)
    }
    assert outcome(engine(zones=zones), "1.2.3.10.in-addr.arpa", "PTR") is Outcome.FORWARD
    # An address of an owned name.
    assert outcome(engine(hangzhou()), "198.205.94.10.in-addr.arpa", "PTR") is Outcome.REVERSE
    assert outcome(engine(hangzhou()), "199.205.94.10.in-addr.arpa", "PTR") is Outcome.SPECIAL


def test_what_features_answer() -> None:
    made = engine(features=Features(minimal_any=True, nxdomain_cut=True))
    assert outcome(made, "www.example", "ANY") is Outcome.MINIMAL_ANY
    soa = "example. 900 IN SOA ns.example. host.example. 1 2 3 4 300"
    resolve(made, query("no.example."), rcode=3, authority=[soa])
    assert outcome(made, "a.no.example") is Outcome.NXDOMAIN_CUT


def test_a_failure_that_is_remembered() -> None:
    made = engine()
    failed(made, "www.example.", 1.0)
    found = ask(made, "www.example", now=2.0)
    assert (found.outcome, found.failure) == (Outcome.FAILED, FailureView(22, 1.0))
    later = ask(made, "www.example", now=5.0)
    assert (later.outcome, later.failure) == (Outcome.FORWARD, FailureView(22, 0.0))


def test_a_stale_answer_for_a_failure_or_without_anybody_up() -> None:
    one = Upstream("one", ("192.0.2.1", 53))
    made = engine(upstreams=[one], policy=CachePolicy(stale=100.0))
    resolve(made, query("www.example."), ["www.example. 60 IN A 192.0.2.1"])
    found = ask(made, "www.example", now=71.0)
    assert found.outcome is Outcome.FORWARD
    assert found.cached == (CachedView("plain", "NOERROR", age=70, ttl=0, stale_for=90),)
    for _ in range(FALL):
        one.record_failure("timeout", 71.0)
    assert outcome(made, "www.example", now=71.0) is Outcome.STALE_CACHE
    assert outcome(made, "www.example", now=161.0) is Outcome.FORWARD


def test_one_that_is_being_asked_for_already() -> None:
    made = engine()
    forward(made, query("www.example."))
    found = ask(made, "www.example")
    assert (found.outcome, found.waiting) == (Outcome.JOIN, 1)


def test_loops_and_the_policy() -> None:
    upstreams = [Upstream("one", ("192.0.2.1", 53)), Upstream("two", ("192.0.2.2", 53))]
    upstreams[0].record_response(0.5)
    upstreams[1].record_response(0.1)
    made = engine(upstreams=upstreams, order="fastest")
    found = ask(made, "www.example")
    assert (found.policy, [held.name for held in found.upstreams]) == ("fastest", ["two", "one"])
    upstreams[1].record_loop(1.0, looped=True)
    assert [(held.name, held.looped) for held in ask(made, "www.example").upstreams] == [
        ("one", False),
        ("two", True),
    ]
    upstreams[0].record_loop(1.0, looped=True)
    assert outcome(made, "www.example") is Outcome.NO_UPSTREAM


def test_when_a_hit_would_prefetch() -> None:
    made = engine(features=Features(prefetch=True))
    resolve(made, query("www.example."), ["www.example. 60 IN A 192.0.2.1"])
    assert ask(made, "www.example", now=11.0).cached[0].prefetch_in == 44


def test_looking_goes_where_the_engine_goes() -> None:
    """Each outcome against what the engine then does."""
    kinds = {Outcome.FORWARD: Forward, Outcome.JOIN: Forward}
    made = engine(hangzhou(), policy=CachePolicy(stale=100.0), features=Features(minimal_any=True))
    resolve(made, query("www.example."), ["www.example. 60 IN A 192.0.2.1"])
    failed(made, "www.example.", 65.0)
    failed(made, "gone.example.", 65.0)
    for name in ("www.example", "gone.example", "new.example", "x.local", REGISTRY, "new.example"):
        for now in (30.0, 65.5, 68.0):
            expected = kinds.get(outcome(made, name, now=now), bytes)
            assert type(made.receive(query(name), CLIENT, now)) is expected, (name, now)
