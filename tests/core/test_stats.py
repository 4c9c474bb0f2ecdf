from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.stats import (
    CACHE,
    DURATION_BOUNDS,
    ERROR,
    FORWARD,
    LEARNED,
    LOCAL,
    SOURCES,
    STALE,
    Stats,
    UpstreamStats,
    request_number,
    response_number,
)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, 0),
        (DURATION_BOUNDS[0], 0),  # an upper bound belongs to its bucket, as Prometheus' `le` has it
        (DURATION_BOUNDS[0] * 1.01, 1),
        (DURATION_BOUNDS[-1], len(DURATION_BOUNDS) - 1),
        (60.0, len(DURATION_BOUNDS)),
    ],
)
def test_a_duration_falls_into_one_bucket(seconds: float, bucket: int) -> None:
    stats = Stats()
    stats.record_duration(seconds)
    assert stats.durations == [int(index == bucket) for index in range(len(DURATION_BOUNDS) + 1)]
    assert stats.duration_sum == seconds


def test_many_queries_of_one_duration_count_each() -> None:
    stats = Stats()
    stats.record_duration(0.5, count=3)
    assert sum(stats.durations) == 3
    assert stats.duration_sum == pytest.approx(1.5)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 1000)), max_size=20))
def test_buckets_add_up(recorded: list[tuple[float, int]]) -> None:
    stats = Stats()
    for seconds, count in recorded:
        stats.record_duration(seconds, count)
    assert sum(stats.durations) == sum(count for _, count in recorded)
    assert stats.duration_sum == pytest.approx(sum(seconds * count for seconds, count in recorded))


def test_bounds_rise() -> None:
    assert list(DURATION_BOUNDS) == sorted(set(DURATION_BOUNDS))


def test_two_engines_share_nothing() -> None:
    one, other = Stats(), Stats()
    one.requests["udp", "A"] += 1
    one.record_duration(0.1)
    assert other == Stats()
    upstream = UpstreamStats()
    upstream.failures["timeout"] += 1
    assert UpstreamStats().failures == {}


def test_what_is_counted_by_number_gets_its_names_once() -> None:
    stats = Stats()
    stats.count_request(request_number(28, tcp=True), 2)
    stats.count_request(request_number(65280, tcp=False))
    stats.count_response(response_number(3, CACHE))
    stats.count_response(response_number(4095, ERROR), 3)
    for _ in range(2):
        stats.settle()
        assert stats.requests == {("tcp", "AAAA"): 2, ("udp", "other"): 1}
        assert stats.responses == {("NXDOMAIN", "cache"): 1, ("other", "error"): 3}


def test_every_source_has_a_label() -> None:
    numbers = (LEARNED, LOCAL, CACHE, STALE, FORWARD, ERROR)
    assert [SOURCES[number] for number in numbers] == [
        "learned",
        "local",
        "cache",
        "stale",
        "forward",
        "error",
    ]
