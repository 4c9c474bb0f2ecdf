from __future__ import annotations

import pytest

from dnsproxy.admin import wording
from dnsproxy.admin.wording import DASH


def spaced(text: str) -> str:
    assert " " not in text
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, DASH),
        (-1, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (86_399, "23 h"),
        (86_400, "1 d"),
        (1e9, "11574 d"),
    ],
)
def test_spans(seconds: float | None, expected: str) -> None:
    assert spaced(wording.span(seconds)) == expected


def test_counts_and_rates() -> None:
    assert wording.count(1_234_567) == "1,234,567"
    assert [wording.rate(number) for number in (None, 0.0, 0.04, 99.94, 100.4, 12_345.6)] == [
        *(DASH, "0.0", "0.0", "99.9", "100", "12,346")
    ]


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (0, 0, DASH),
        (0, 5, "0 %"),
        (1, 3, "33.3 %"),
        (1, 10_000, "< 0.1 %"),
        (9_999, 10_000, "> 99.9 %"),
        (5, 5, "100 %"),
    ],
)
def test_shares(part: int, whole: int, expected: str) -> None:
    assert spaced(wording.share(part, whole)) == expected


def test_round_trips() -> None:
    times = (None, 0.00042, 0.0123, 1.2345)
    assert [spaced(wording.milliseconds(time)) for time in times] == [DASH, "0.4 ms", "12 ms", "1,234 ms"]


def test_counts_by_reason() -> None:
    text = wording.counts({"older": 2, "bad_signature": 1_000, "expired": 0})
    assert text.replace("\N{NO-BREAK SPACE}", "~") == "bad signature~1,000, older~2"
    assert wording.counts({}) == wording.counts({"older": 0}) == DASH


def test_times() -> None:
    then = 1_764_000_000
    assert wording.clock(then, then + 86_399) == "16:00:00"
    assert wording.clock(then, then + 86_400) == "2025-11-24 16:00"
    assert wording.iso(then + 0.9) == "2025-11-24T16:00:00Z"


@pytest.mark.parametrize(("unix", "expected"), [(-1.0, "1970"), (2.0**62, "9999"), (1e300, "9999")])
def test_a_time_that_no_calendar_holds(unix: float, expected: str) -> None:
    assert wording.iso(unix).startswith(expected)


def test_names() -> None:
    assert [wording.plain(name) for name in ("a.example.", ".")] == ["a.example", "."]
