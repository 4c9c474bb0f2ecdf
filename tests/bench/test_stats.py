from __future__ import annotations

import pytest

from bench.stats import Sample, Spread, percentile, ratio, spread


def sample(server: str, round_number: int, cpu_us: float, p99_us: float | None = None) -> Sample:
    return Sample(server, "hits", round_number, 1000, 0, 1000.0, cpu_us, 0.5, 0.5, p99_us=p99_us)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100), (0.0, 1)])
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected


def test_percentile_of_nothing_is_unknown() -> None:
    assert percentile([], 0.99) is None


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([]) is None


def test_ratio_compares_within_a_round_and_takes_the_median_of_the_rounds() -> None:
    # A slow round of the machine (the second) slows both alike and does not change the ratio.
    samples = [
        sample("own", 0, 5.0), sample("peer", 0, 10.0),
        sample("own", 1, 50.0), sample("peer", 1, 100.0),
        sample("own", 2, 9.0), sample("peer", 2, 10.0),
    ]  # fmt: skip

    assert ratio(samples, "hits", "own", ["peer"]) == Spread(0.5, 0.5, 0.9)


def test_ratio_is_to_the_best_peer_of_each_round() -> None:
    samples = [sample("own", 0, 6.0), sample("a", 0, 12.0), sample("b", 0, 8.0)]

    assert ratio(samples, "hits", "own", ["a", "b"]) == Spread(0.75, 0.75, 0.75)


def test_ratio_leaves_out_rounds_without_a_peer_or_a_figure() -> None:
    samples = [
        sample("own", 0, 6.0),
        sample("own", 1, 6.0, p99_us=30.0),
        sample("peer", 1, 12.0, p99_us=20.0),
    ]

    assert ratio(samples, "hits", "own", ["peer"]) == Spread(0.5, 0.5, 0.5)
    assert ratio(samples, "hits", "own", ["peer"], "p99_us") == Spread(1.5, 1.5, 1.5)
    assert ratio(samples, "owned", "own", ["peer"]) is None
