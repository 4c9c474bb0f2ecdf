from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.stats import DURATION_BOUNDS, Stats, UpstreamStats
from dnsproxy.core.totals import Totals, Traffic, WorkerView, added


def traffic(**changes: Any) -> Traffic:
    values: dict[str, Any] = {"stats": Stats(), "upstreams": {}, "cache_entries": 0, "in_flight": 0}
    return Traffic(**{**values, **changes})


def asked(count: int, seconds: float = 0.0) -> Traffic:
    stats = Stats(cache_hits=count)
    stats.requests["udp", "A"] = count
    for _ in range(count):
        stats.record_duration(seconds)
    return traffic(stats=stats)


def test_nothing_told_is_nothing_counted() -> None:
    assert Totals().traffic() == traffic()


def test_counters_of_all_workers_are_added_up() -> None:
    totals = Totals()
    first, second = Stats(cache_misses=1), Stats(cache_misses=2)
    first.requests["udp", "A"] = 3
    second.requests["udp", "A"] = 4
    second.requests["tcp", "AAAA"] = 1
    first.responses["NOERROR", "cache"] = 5
    first.drops["short"] = 2
    first.record_duration(0.00005, 2)
    second.record_duration(0.3)
    totals.take(1, traffic(stats=first, cache_entries=10, in_flight=1))
    totals.take(2, traffic(stats=second, cache_entries=5, in_flight=2))
    seen = totals.traffic()
    assert seen.stats.requests == {("udp", "A"): 7, ("tcp", "AAAA"): 1}
    assert seen.stats.responses == {("NOERROR", "cache"): 5}
    assert (seen.stats.drops["short"], seen.stats.cache_misses) == (2, 3)
    assert seen.stats.durations[0] == 2
    assert sum(seen.stats.durations) == 3
    assert seen.stats.duration_sum == pytest.approx(0.3001)
    assert (seen.cache_entries, seen.in_flight, seen.queries) == (15, 3, 8)
    # What was told is left as it was.
    assert first.requests == {("udp", "A"): 3}


def test_no_counter_is_forgotten() -> None:
    """Whatever `Stats` counts, now or later, is added up."""
    part = Stats()
    for field in fields(Stats):
        held = getattr(part, field.name)
        if isinstance(held, dict):
            held["key"] = 2
        elif isinstance(held, list):
            setattr(part, field.name, [2] * len(held))
        else:
            setattr(part, field.name, type(held)(2))
    total = added([part, part])
    for field in fields(Stats):
        held = getattr(total, field.name)
        if isinstance(held, dict):
            assert held == {"key": 4}
        else:
            assert held == ([4] * len(held) if isinstance(held, list) else 4), field.name


def test_what_a_dead_worker_had_counted_stays() -> None:
    totals = Totals()
    totals.take(1, asked(10))
    totals.take(2, asked(1))
    totals.end(1)
    assert (totals.traffic().queries, totals.queries(1), totals.queries(2)) == (11, 0, 1)
    totals.take(1, asked(2))
    assert (totals.traffic().queries, totals.queries(1)) == (13, 2)
    totals.end(1)
    totals.end(1)
    assert totals.traffic().queries == 13


steps = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["ask", "end"]), st.integers(0, 5), st.floats(0, 3)),
    max_size=40,
)


@given(steps)
def test_no_counter_ever_goes_back(taken: list[tuple[int, str, int, float]]) -> None:
    totals = Totals()
    living = {number: Stats() for number in (1, 2, 3)}
    before = totals.traffic().stats
    for number, what, count, seconds in taken:
        if what == "end":
            totals.end(number)
            living[number] = Stats()
        else:
            living[number].requests["udp", "A"] += count
            living[number].record_duration(seconds, count)
            totals.take(number, traffic(stats=added([living[number]])))
        now = totals.traffic().stats
        assert now.requests["udp", "A"] >= before.requests["udp", "A"]
        assert now.duration_sum >= before.duration_sum
        assert all(new >= old for new, old in zip(now.durations, before.durations, strict=True))
        assert len(now.durations) == len(DURATION_BOUNDS) + 1
        before = now


def test_the_upstreams_of_all_workers() -> None:
    totals = Totals()
    totals.take(
        1,
        traffic(
            upstreams={
                "a": UpstreamStats(sent=3, failures=Counter(timeout=1), ignored=Counter(not_ours=1), rtt=0.1),
                "b": UpstreamStats(sent=1, rtt=0.2),
            }
        ),
    )
    totals.take(
        2,
        traffic(
            upstreams={
                "a": UpstreamStats(sent=5, failures=Counter(timeout=3, refused=1), rtt=0.3, up=False),
                "b": UpstreamStats(),
            }
        ),
    )
    seen = totals.traffic().upstreams
    assert (seen["a"].sent, seen["a"].failures, seen["a"].up) == (8, {"timeout": 4, "refused": 1}, False)
    assert seen["a"].ignored == {"not_ours": 1}
    assert seen["a"].rtt == pytest.approx(0.2)
    assert (seen["b"].rtt, seen["b"].up) == (0.2, True)
    totals.end(2)
    seen = totals.traffic().upstreams
    # Only one that lives can tell how an upstream is; what was sent was sent.
    assert (seen["a"].sent, seen["a"].up, seen["a"].rtt) == (8, True, 0.1)
    totals.end(1)
    seen = totals.traffic().upstreams
    assert (seen["a"].sent, seen["a"].up, seen["a"].rtt) == (8, True, None)


def test_gauges_are_of_those_that_live() -> None:
    totals = Totals()
    totals.take(1, traffic(cache_entries=7, in_flight=3))
    totals.end(1)
    assert (totals.traffic().cache_entries, totals.traffic().in_flight) == (0, 0)


def test_the_workers_themselves_are_passed_on() -> None:
    view = WorkerView(1, 10, 1.0, 2, 3, answers=True)
    assert Totals().traffic([view]).workers == (view,)
