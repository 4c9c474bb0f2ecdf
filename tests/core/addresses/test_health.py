from __future__ import annotations

import pytest

from dnsproxy.core.addresses.health import FALL, RETRY, UNPROBED, Health, Outcome, Probe, Result

OK = Result(Outcome.ANSWERED, {443: "ok"})
FAILED = Result(Outcome.FAILED, {443: "timed out"})
NO_ROUTE = Result(Outcome.NO_ROUTE, {443: "Network is unreachable"})
HOST = Result(Outcome.HOST, {443: "Too many open files"})
NEVER = float("-inf")


def record(health: Health, result: Result, now: float, answered_at: float = NEVER) -> Health:
    health.record(result, now, 1000.0 + now, answered_at=answered_at, interval=30.0)
    return health


def test_one_answer_makes_an_address_alive() -> None:
    health = record(Health(None, 0.0), OK, 5.0)
    assert (health.alive, health.due, health.checked_at, health.result) == (True, 35.0, 1005.0, OK)
    health = record(Health(False, 0.0), OK, 5.0)
    assert health.alive is True


def test_an_unknown_address_is_dead_after_one_failure() -> None:
    assert record(Health(None, 0.0), FAILED, 0.0).alive is False


def test_an_alive_address_is_dead_after_two_failures_in_a_row() -> None:
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


def test_retries_after_failures_are_delayed_up_to_the_interval() -> None:
    health = Health(None, 0.0)
    delays = [record(health, FAILED, 0.0).due for _ in range(7)]
    assert delays == [RETRY, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    record(health, OK, 0.0)
    assert record(health, FAILED, 0.0).due == RETRY


@pytest.mark.parametrize("alive", [None, True, False])
def test_a_shortage_of_this_host_proves_nothing(alive: bool | None) -> None:
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


def test_a_problem_names_the_ports_that_fail() -> None:
    assert OK.problem == ""
    mixed = Result(Outcome.FAILED, {443: "timed out", 80: "Connection refused", 8443: "ok"})
    assert mixed.problem == "port 80: Connection refused; port 443: timed out"


def test_since_when_it_answers_or_does_not() -> None:
    health = Health(True, 0.0)
    assert health.since is None
    seen = []
    for now, result in enumerate([OK, OK, FAILED, NO_ROUTE, HOST, OK, FAILED]):
        seen.append(record(health, result, float(now)).since)
    assert seen == [1000.0, 1000.0, 1002.0, 1002.0, 1002.0, 1005.0, 1006.0]


@pytest.mark.parametrize("alive", [True, False, None])
@pytest.mark.parametrize("is_probed", [True, False])
def test_another_way_to_probe_keeps_the_state_and_probes_at_once(alive: bool | None, is_probed: bool) -> None:
    probe = Probe("a.example.", "10.0.0.1", (443,), None)
    health = Health(alive, 0.0, probe=probe, failures=1, result=FAILED)
    health.restart(7.0, is_probed=is_probed)
    assert (health.due, health.probe, health.failures) == (7.0, None, 0)
    # An address that is not probed counts as one that answers.
    expected = (alive, None) if is_probed else (True, UNPROBED)
    assert (health.alive, health.result) == expected


def test_only_an_alive_address_that_answered_last_is_steady() -> None:
    health = Health(True, 0.0)
    assert not health.is_steady
    assert record(health, OK, 0.0).is_steady
    assert not record(health, FAILED, 1.0).is_steady
    assert health.alive is True
    # After a restart or with other probes it has to answer again.
    assert record(health, OK, 2.0).is_steady
    health.restart(3.0, is_probed=True)
    assert not health.is_steady
    health.restart(3.0, is_probed=False)
    assert health.is_steady


def test_a_shortage_of_this_host_does_not_make_an_address_unsteady() -> None:
    health = record(Health(None, 0.0), OK, 0.0)
    assert record(health, HOST, 1.0).is_steady
