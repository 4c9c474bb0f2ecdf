from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.stats import SOURCES, Stats
from dnsproxy.core.trend import MINUTES, RATE_SECONDS, Counts, Recent, Trend


def stats(queries: int, *, learned: int = 0, cache: int = 0, drops: int = 0) -> Stats:
    made = Stats(cache_hits=cache, cache_misses=2 * cache)
    made.requests.update({("udp", "A"): queries})
    made.responses.update({("NOERROR", "learned"): learned, ("NXDOMAIN", "cache"): cache})
    made.drops["short"] = drops
    return made


def queries(recent: Recent) -> list[int]:
    return [minute.queries for minute in recent.minutes]


def test_nothing_is_known_before_the_first_sample() -> None:
    recent = Trend().recent(5.0)
    assert recent == Recent()
    assert recent.total() == Counts()
    assert recent.by_source() == dict.fromkeys(SOURCES, ())


def test_what_came_before_the_first_sample_belongs_to_no_minute() -> None:
    trend = Trend()
    trend.record(1000.0, stats(50))
    assert (queries(trend.recent(1000.0)), trend.recent(1000.0).rate) == ([0], None)


def test_minutes_begin_with_the_first_sample() -> None:
    trend = Trend()
    trend.record(1030.0, stats(0))
    trend.record(1089.9, stats(3))
    trend.record(1090.0, stats(7))
    assert queries(trend.recent(1090.0)) == [3, 4]


def test_every_counter_is_kept() -> None:
    trend = Trend()
    trend.record(0.0, stats(1, learned=1, cache=1, drops=1))
    trend.record(2.0, stats(9, learned=3, cache=5, drops=2))
    (minute,) = trend.recent(2.0).minutes
    assert minute == Counts(8, (2, 0, 4, 0, 0, 0), hits=4, misses=8, drops=1)
    assert trend.recent(2.0).by_source() == {
        "learned": (2,),
        "local": (0,),
        "cache": (4,),
        "stale": (0,),
        "forward": (0,),
        "error": (0,),
    }


def test_minutes_without_a_sample_are_empty() -> None:
    trend = Trend()
    trend.record(0.0, stats(0))
    trend.record(30.0, stats(5))
    trend.record(190.0, stats(6))
    assert queries(trend.recent(190.0)) == [5, 0, 0, 1]
    assert queries(trend.recent(260.0)) == [5, 0, 0, 1, 0]


def test_an_hour_is_kept() -> None:
    trend = Trend()
    trend.record(0.0, stats(0))
    for minute in range(200):
        trend.record(60.0 * minute + 1, stats(10 * (minute + 1)))
    recent = trend.recent(60.0 * 199 + 2)
    assert queries(recent) == [10] * MINUTES
    assert recent.total().queries == 10 * MINUTES
    assert queries(trend.recent(1_000_000.0)) == [0] * MINUTES


def test_the_rate_is_a_mean_over_the_last_seconds() -> None:
    trend = Trend()
    for second in range(0, 40, 2):
        trend.record(float(second), stats(100 * second if second < 20 else 2000))
    # From 38 back to 28: nothing was asked after 20.
    assert trend.recent(39.0).rate == 0.0
    trend.record(40.0, stats(2000 + 300))
    assert trend.recent(40.0).rate == pytest.approx(300 / RATE_SECONDS)


def test_an_old_rate_is_not_told() -> None:
    trend = Trend()
    trend.record(0.0, stats(0))
    trend.record(2.0, stats(10))
    assert trend.recent(30.0).rate == 5.0
    assert trend.recent(33.0).rate is None


def test_a_counter_that_goes_back_takes_nothing_away() -> None:
    trend = Trend()
    trend.record(0.0, stats(100))
    trend.record(1.0, stats(110))
    trend.record(2.0, stats(5))
    recent = trend.recent(2.0)
    assert (queries(recent), recent.rate) == ([10], 0.0)
    trend.record(3.0, stats(8))
    assert queries(trend.recent(3.0)) == [13]


@given(st.lists(st.tuples(st.floats(0.1, 50.0), st.integers(0, 1000)), min_size=1, max_size=50))
def test_within_the_hour_nothing_is_lost(steps: list[tuple[float, int]]) -> None:
    trend, now, count = Trend(), 1000.0, 0
    trend.record(now, stats(0))
    for seconds, more in steps:
        now, count = now + seconds, count + more
        trend.record(now, stats(count))
    recent = trend.recent(now)
    assert recent.total().queries == count
    assert len(recent.minutes) == int((now - 1000.0) // 60) + 1
    assert recent.rate is not None
