from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.repeats import Repeats


def test_the_first_is_logged_and_the_next_of_the_same_are_not() -> None:
    repeats: Repeats[str] = Repeats(window=60.0)
    assert repeats.take("a", "first", 100.0) == 0
    assert repeats.take("a", "second", 100.0) is None
    assert repeats.take("a", "third", 159.9) is None
    assert repeats.take("b", "another", 159.9) == 0


def test_the_next_after_the_window_tells_how_many_were_left_out() -> None:
    repeats: Repeats[str] = Repeats(window=60.0)
    for now in (0.0, 1.0, 2.0):
        repeats.take("a", "x", now)
    assert repeats.take("a", "x", 60.0) == 2
    assert repeats.take("a", "x", 61.0) is None
    assert repeats.take("a", "x", 120.0) == 1


def test_without_a_next_one_the_summary_has_the_latest() -> None:
    repeats: Repeats[str] = Repeats(window=60.0)
    for now, entry in ((0.0, "first"), (1.0, "second"), (2.0, "third")):
        repeats.take("a", entry, now)
    assert repeats.due(59.9) == []
    assert repeats.due(60.0) == [("third", 2)]
    assert repeats.due(60.0) == []
    # It has been told of just now, so it is within a window still.
    assert repeats.take("a", "fourth", 61.0) is None
    assert repeats.due(120.0) == [("fourth", 1)]


def test_what_was_quiet_for_a_window_is_forgotten() -> None:
    repeats: Repeats[str] = Repeats(window=60.0)
    repeats.take("a", "x", 0.0)
    assert len(repeats) == 1
    assert repeats.due(60.0) == []
    assert len(repeats) == 0


def test_with_no_room_everything_new_is_logged_and_what_is_watched_still_counted() -> None:
    repeats: Repeats[str] = Repeats(window=60.0, most=2)
    for key in ("a", "b", "c"):
        assert repeats.take(key, key, 0.0) == 0
    assert repeats.take("c", "c", 1.0) == 0
    assert repeats.take("a", "a", 1.0) is None
    assert len(repeats) == 2
    # "b" was quiet: its place is free when its window is over, that of "a" is not.
    assert repeats.take("c", "c", 60.0) == 0
    assert repeats.take("c", "c", 61.0) is None
    assert repeats.due(60.0) == [("a", 1)]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 40), st.booleans()), max_size=80))
def test_logged_and_left_out_are_all(steps: list[tuple[str, float, bool]]) -> None:
    repeats: Repeats[str] = Repeats(window=60.0, most=3)
    now, given_in, told = 0.0, Counter[str](), Counter[str]()
    for key, pause, looks in steps:
        now += pause
        given_in[key] += 1
        left_out = repeats.take(key, key, now)
        if left_out is not None:
            told[key] += 1 + left_out
        if looks:
            told.update(dict(repeats.due(now)))
        assert len(repeats) <= 3
    told.update(dict(repeats.due(float("inf"))))
    assert told == given_in
