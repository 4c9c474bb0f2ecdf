from __future__ import annotations

import pytest

from dnsproxy.core.stats import Stats
from dnsproxy.core.times import Times


def test_times_are_added_when_they_settle_and_only_once() -> None:
    stats = Stats()
    times = Times(stats)
    times.record(0.00002, 3)
    times.record(0.3, 1)
    for _ in range(2):
        times.settle()
    assert (stats.durations[0], sum(stats.durations)) == (3, 4)
    assert stats.duration_sum == pytest.approx(0.30006)
