from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.retry import next_delay

draws = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0.01, 10_000)


@pytest.mark.parametrize(
    ("failures", "draw", "expected"),
    [(1, 0.0, 15.0), (1, 0.5, 30.0), (2, 0.5, 75.0), (3, 0.0, 15.0), (3, 0.5, 157.5)],
)
def test_a_failure_triples_the_range(failures: int, draw: float, expected: float) -> None:
    assert next_delay(failures, 15.0, 300.0, draw) == pytest.approx(expected)


@given(st.integers(1, 10**9), seconds, seconds, draws)
def test_it_stays_between_base_and_cap(failures: int, base: float, cap: float, draw: float) -> None:
    delay = next_delay(failures, base, cap, draw)
    assert min(base, cap) <= delay <= cap
    assert math.isfinite(delay)


@given(st.integers(1, 100), seconds, seconds, draws)
def test_one_failure_more_never_shortens_it(failures: int, base: float, cap: float, draw: float) -> None:
    assert next_delay(failures, base, cap, draw) <= next_delay(failures + 1, base, cap, draw)
