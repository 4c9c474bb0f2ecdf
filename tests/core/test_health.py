from __future__ import annotations

import pytest

from dnsproxy.core.health import FALL, RETRY, Health, Outcome, Result

OK = Result(Outcome.ANSWERED, {443: "ok"})
FAILED = Result(Outcome.FAILED, {443: "timed out"})
NO_ROUTE = Result(Outcome.NO_ROUTE, {443: "Network is unreachable"})
HOST = Result(Outcome.HOST, {443: "Too many open files"})
NEVER = float("-inf")


def record(health: Health, result: Result, now: float, answered_at: float = NEVER) -> Health:
    health.record(result, now, 1000.0 + now, answered_at=answered_at, interval=30.0)
    return health


def test_one_answer_makes_it_live() -> None:
    health = record(Health(None, 0.0), OK, 5.0)
    assert (health.alive, health.due, health.checked_at, health.result) == (True, 35.0, 1005.0, OK)
    health = record(Health(False, 0.0), OK, 5.0)
    assert health.alive is True


def test_what_was_never_alive_is_dead_with_the_first_failure() -> None:
    assert record(Health(None, 0.0), FAILED, 0.0).alive is False


def test_what_lived_is_dead_after_failures_in_a_row() -> None:
    health = Health(True, 0.0)
    for count in range(1, FALL + 1):
        assert health.alive is True
        record(health, FAILED, float(count))
    assert health.alive is False


def test_an_answer_in_between_ends_the_row() -> None:
    health = Health(True, 0.0)
    for now in range(10):
        record(health, FAILED if now % 2 else OK, float(now))
        assert health.alive is True


def test_failures_are_looked_at_again_ever_later_up_to_the_interval() -> None:
    health = Health(None, 0.0)
    delays = [record(health, FAILED, 0.0).due for _ in range(7)]
    assert delays == [RETRY, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    record(health, OK, 0.0)
    assert record(health, FAILED, 0.0).due == RETRY


@pytest.mark.parametrize("alive", [None, True, False])
def test_what_this_host_is_short_of_proves_nothing(alive: bool | None) -> None:
    health = Health(alive, 0.0)
    for now in range(5):
        record(health, HOST, float(now), answered_at=float(now))
    assert health.alive is alive
    assert health.due > 4.0
    # Nor does it count towards the failures that do.
    assert record(Health(True, 0.0), FAILED, 5.0).alive is True


@pytest.mark.parametrize("alive", [None, True])
def test_no_route_proves_nothing_while_nothing_answers(alive: bool | None) -> None:
    health = Health(alive, 0.0)
    for now in range(10, 20):
        record(health, NO_ROUTE, float(now), answered_at=9.0)
    assert health.alive is alive


@pytest.mark.parametrize("alive", [None, True])
def test_no_route_is_proof_once_another_address_has_answered(alive: bool | None) -> None:
    health = Health(alive, 0.0)
    record(health, NO_ROUTE, 10.0, answered_at=9.0)
    assert health.alive is alive
    record(health, NO_ROUTE, 12.0, answered_at=11.0)
    assert health.alive is False


def test_a_complaint_names_the_ports_that_fail() -> None:
    assert OK.complaint == ""
    mixed = Result(Outcome.FAILED, {443: "timed out", 80: "Connection refused", 8443: "ok"})
    assert mixed.complaint == "port 80: Connection refused; port 443: timed out"


def test_since_when_it_answers_or_does_not() -> None:
    health = Health(True, 0.0)
    assert health.since is None
    told = []
    for now, result in enumerate([OK, OK, FAILED, NO_ROUTE, HOST, OK, FAILED]):
        told.append(record(health, result, float(now)).since)
    assert told == [1000.0, 1000.0, 1002.0, 1002.0, 1002.0, 1005.0, 1006.0]
