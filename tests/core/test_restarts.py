from __future__ import annotations

from dnsproxy.core.restarts import DELAY_MOST, HEALTHY_AFTER, MAX_LATE, MAX_MISSED, Pulse, Restarts


def test_at_once_first_and_later_and_later_when_it_goes_on() -> None:
    restarts = Restarts()
    assert [restarts.delay(lived=0.1) for _ in range(8)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert restarts.count == 8


def test_an_end_after_a_healthy_life_is_the_first_again() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.delay(lived=0.1)
    assert restarts.delay(lived=HEALTHY_AFTER) == 0.0
    assert restarts.delay(lived=HEALTHY_AFTER - 0.1) == 1.0
    assert restarts.count == 7


def test_an_end_a_second_for_a_day_stays_at_the_longest_delay() -> None:
    restarts = Restarts()
    assert [restarts.delay(lived=1.0) for _ in range(3000)][-1] == DELAY_MOST


def test_a_worker_is_stuck_after_so_many_questions_in_a_row_and_no_sooner() -> None:
    pulse = Pulse()
    for _ in range(2):
        assert [pulse.beat(answered=False) for _ in range(MAX_MISSED - 1)] == [False] * (MAX_MISSED - 1)
        assert not pulse.is_well
        assert not pulse.beat(answered=True)
        assert pulse.is_well
    assert [pulse.beat(answered=False) for _ in range(MAX_MISSED)][-1]


def test_some_late_answers_are_no_silence() -> None:
    pulse = Pulse()
    for _ in range(MAX_LATE):
        pulse.beat(answered=False)
    assert pulse.is_well
    pulse.beat(answered=False)
    assert not pulse.is_well
