from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.admin.charts import HEIGHT, Chart
from dnsproxy.core.trend import MINUTES


def test_an_hour_in_words() -> None:
    chart = Chart.of("answers from cache", [0, 1200, 34])
    assert (chart.total, chart.peak) == (1234, 1200)
    assert chart.text == (
        "1,234 answers from cache in the last hour, 1,200 in the busiest minute, 34 in this one"
    )


@pytest.mark.parametrize("minutes", [[], [0], [0] * MINUTES])
def test_nothing(minutes: list[int]) -> None:
    assert Chart.of("queries", minutes) == Chart("", 0, 0, "no queries in the last hour")


def test_the_last_minute_is_at_the_right_end() -> None:
    assert Chart.of("queries", [10, 0, 5]).path == "M57 20v-20h0.7v20zM59 20v-10h0.7v10z"


@given(st.lists(st.integers(0, 10**12), max_size=2 * MINUTES))
def test_every_bar_is_within_the_drawing_and_can_be_seen(minutes: list[int]) -> None:
    chart = Chart.of("queries", minutes)
    bars = re.findall(rf"M(\d+) {HEIGHT}v-([\d.]+)h0\.7v([\d.]+)z", chart.path)
    shown = minutes[-MINUTES:]
    assert len(bars) == chart.path.count("M") == sum(1 for number in shown if number)
    assert all(0 <= int(place) < MINUTES for place, _, _ in bars)
    assert all(1 <= float(up) == float(down) <= HEIGHT for _, up, down in bars)
    assert chart.total == sum(shown)
