from __future__ import annotations

import copy
from typing import Any

import pytest

from dnsproxy.core import names, wire
from dnsproxy.core.engine import Engine
from dnsproxy.core.explain import CachedView, Explanation, Outcome, OwnedView, Question, explain, type_code
from dnsproxy.core.policy import Owned, Ruleset
from dnsproxy.core.upstreams import FALL, Upstream
from tests.messages import OSS, REGISTRY, addresses, answer, engine, hangzhou, query, resolve, unknown_rules


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
