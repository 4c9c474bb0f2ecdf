from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.addresses.canary import (
    CanaryPolicy,
    CanaryView,
    State,
    Trial,
    TrialOutcome,
    from_fields,
    is_in_group,
    is_refused,
    judge,
    new_addresses,
    next_end,
    rolled_back,
    to_json,
    trial_of,
)
from dnsproxy.core.addresses.health import Health, Outcome, Result
from dnsproxy.core.addresses.table import Statement
from dnsproxy.core.fields import Fields
from dnsproxy.errors import SnapshotError
from tests.strategies import statement

NAME = "a.example."
OLD, NEW, MORE = "10.0.0.1", "10.0.0.2", "10.0.0.3"
NOW = 1_000_000
POLICY = CanaryPolicy(share=0.05, hold=600.0, fall=3, identity="proxy-1")
ANSWERED = Result(Outcome.ANSWERED, {443: "ok"})
FAILED = Result(Outcome.FAILED, {443: "timed out"})


def probed(*results: Result, alive: bool | None = None) -> Health:
    """An address after these results of probes."""
    health = Health(alive, 0.0)
    for now, result in enumerate(results):
        health.record(result, now, NOW + now, answered_at=0.0, interval=30.0)
    return health


GOOD, UNKNOWN = probed(ANSWERED), probed()
DEAD, TWICE = probed(FAILED, FAILED, FAILED), probed(FAILED, FAILED)
SHAKY = probed(ANSWERED, FAILED)

shares = st.floats(0, 1)
labels = st.text("abcdef0123456789-.", min_size=1, max_size=20)


def stated(*addresses: str) -> Statement:
    return statement(NAME, addresses)


def trial(*new: str, since: int = NOW, answered: tuple[str, ...] = ()) -> Trial:
    return Trial((OLD, *new), None, dict.fromkeys(new, since), frozenset(answered))


def policy(share: float, identity: str = "proxy-1") -> CanaryPolicy:
    return CanaryPolicy(share, 600.0, 3, identity)


# -- the group ---------------------------------------------------------------------------------


@given(labels, shares, shares)
def test_a_proxy_of_the_group_stays_in_it_when_the_share_grows(identity: str, one: float, two: float) -> None:
    small, large = sorted((one, two))
    candidate = ((NEW,), None)
    if is_in_group(policy(small, identity), NAME, candidate):
        assert is_in_group(policy(large, identity), NAME, candidate)
    assert is_in_group(policy(1.0, identity), NAME, candidate)
    assert not is_in_group(policy(0.0, identity), NAME, candidate)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_the_group_is_about_the_share_of_all_proxies(share: float) -> None:
    count = 20_000
    found = sum(is_in_group(policy(share, f"node-{n}"), NAME, ((NEW,), None)) for n in range(count))
    # Five standard deviations of that many lots.
    assert abs(found - share * count) < 5 * (count * share * (1 - share)) ** 0.5


def test_another_set_or_name_meets_other_proxies() -> None:
    def group(name: str, *addresses: str) -> set[int]:
        lots = range(2_000)
        return {n for n in lots if is_in_group(policy(0.1, f"node-{n}"), name, (addresses, None))}

    one, other, third = group(NAME, NEW), group(NAME, MORE), group("b.example.", NEW)
    assert one == group(NAME, NEW)
    # Independent lots have a tenth in common.
    assert len(one & other) < len(one) / 3
    assert len(one & third) < len(one) / 3


# -- what is on trial -----------------------------------------------------------------------------


def test_a_set_without_new_addresses_is_not_on_trial() -> None:
    assert trial_of(stated(OLD), stated(OLD), None, NOW) is None
    assert trial_of(stated(OLD, NEW), stated(OLD), None, NOW) is None


def test_the_trial_of_a_new_address_starts_now() -> None:
    found = trial_of(stated(OLD), stated(OLD, NEW), None, NOW + 0.7)
    assert found == trial(NEW)
    assert found is not None
    assert (found.started_at, found.candidate, found.is_running) == (NOW, ((OLD, NEW), None), True)


def test_addresses_in_both_candidates_keep_their_time() -> None:
    held = trial(NEW, answered=(NEW,))
    found = trial_of(stated(OLD), stated(NEW, MORE), held, NOW + 300)
    assert found is not None
    assert found.since == {NEW: NOW, MORE: NOW + 300}
    assert found.answered == {NEW}
    again = trial_of(stated(OLD), stated(NEW), found, NOW + 400)
    assert again is not None
    assert again.started_at == NOW


def test_a_refused_set_stays_refused_until_another_one_follows() -> None:
    refused = rolled_back(trial(NEW), TrialOutcome.FAILED, "it failed", NOW)
    assert is_refused(refused, stated(OLD, NEW))
    assert not is_refused(refused, stated(NEW))
    assert not is_refused(trial(NEW), stated(OLD, NEW))
    other = trial_of(stated(OLD), stated(NEW), refused, NOW + 9_999)
    assert other is not None
    assert other.is_running
    assert other.since == {NEW: NOW + 9_999}


def test_a_set_that_helpers_refused_is_tried_again_once_they_do_not() -> None:
    refused = rolled_back(trial(NEW), TrialOutcome.FLEET, "others", NOW)
    statement = stated(OLD, NEW)
    still = Statement(replace(statement.learned, refused=(statement.learned.addresses,)), statement.snapshot)
    assert is_refused(refused, still)
    assert not is_refused(refused, statement)
    assert not is_refused(refused, stated(OLD, MORE))
    for outcome in (TrialOutcome.FAILED, TrialOutcome.SILENT, TrialOutcome.REFUSED):
        assert is_refused(rolled_back(trial(NEW), outcome, "", NOW), statement)


def test_a_clock_that_was_set_back_makes_no_trial_longer_than_hold() -> None:
    held = trial(NEW, since=NOW + 86_400)
    found = trial_of(stated(OLD), stated(OLD, NEW), held, NOW)
    assert found is not None
    assert found.started_at == NOW


# -- how it ends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("health", "answered", "seconds", "expected"),
    [
        pytest.param({NEW: GOOD}, (), 0, State.RUNNING, id="good, not over"),
        pytest.param({NEW: GOOD}, (), 600, TrialOutcome.HELD, id="good until the end"),
        pytest.param({NEW: UNKNOWN}, (), 600, State.RUNNING, id="unknown"),
        pytest.param({}, (), 600, State.RUNNING, id="not probed at this time"),
        pytest.param({NEW: SHAKY}, (NEW,), 600, State.RUNNING, id="one lost packet at the end"),
        pytest.param({NEW: DEAD}, (NEW,), 1, TrialOutcome.FAILED, id="failed"),
        pytest.param({NEW: TWICE}, (NEW,), 1, State.RUNNING, id="not often"),
        pytest.param({NEW: DEAD}, (), 599, State.RUNNING, id="has not come up yet"),
        pytest.param({NEW: DEAD}, (), 600, TrialOutcome.SILENT, id="never came up"),
        pytest.param({NEW: GOOD, MORE: DEAD}, (), 600, TrialOutcome.SILENT, id="one never came up"),
        pytest.param({NEW: GOOD, MORE: DEAD}, (MORE,), 10, TrialOutcome.FAILED, id="one of two failed"),
        pytest.param({NEW: GOOD, MORE: UNKNOWN}, (), 600, State.RUNNING, id="one is not known"),
    ],
)
def test_ends(
    health: dict[str, Health],
    answered: tuple[str, ...],
    seconds: int,
    expected: State | TrialOutcome,
) -> None:
    held = trial(*(health or (NEW,)), answered=answered)
    outcome = judge(held, health, POLICY, NOW + seconds)
    if isinstance(outcome, TrialOutcome) or isinstance(expected, State):
        assert (outcome if isinstance(outcome, TrialOutcome) else outcome.state) == expected
    else:
        assert (outcome.state, outcome.outcome, outcome.ended_at) == (
            State.ROLLED_BACK,
            expected,
            NOW + seconds,
        )
        assert any(address in outcome.detail for address in health)


def test_an_address_that_answered_is_noted() -> None:
    outcome = judge(trial(NEW, MORE), {NEW: GOOD, MORE: UNKNOWN}, POLICY, NOW)
    assert isinstance(outcome, Trial)
    assert outcome.answered == {NEW}


def test_a_candidate_that_the_fleet_refused_is_rolled_back() -> None:
    outcome = judge(trial(NEW), {NEW: UNKNOWN}, POLICY, NOW, refused=True)
    assert isinstance(outcome, Trial)
    assert outcome.outcome is TrialOutcome.FLEET


@pytest.mark.parametrize(
    ("unroutable", "expected"), [((), TrialOutcome.SILENT), ((MORE,), TrialOutcome.HELD)]
)
def test_an_address_of_a_family_without_route_does_not_decide(
    unroutable: tuple[str, ...], expected: TrialOutcome
) -> None:
    health = {NEW: GOOD, MORE: DEAD}
    outcome = judge(trial(NEW, MORE), health, POLICY, NOW + 600, unroutable=frozenset(unroutable))
    assert (outcome.outcome if isinstance(outcome, Trial) else outcome) is expected


results = st.lists(st.sampled_from([ANSWERED, FAILED]), max_size=5)
healths = st.builds(
    lambda found, alive: probed(*found, alive=alive), results, st.sampled_from([True, False, None])
)


@given(st.dictionaries(st.sampled_from([NEW, MORE]), healths), st.integers(0, 1_200), st.data())
def test_only_answering_addresses_are_promoted_and_only_dead_ones_refused(
    health: dict[str, Health], seconds: int, data: st.DataObject
) -> None:
    held = trial(NEW, MORE, answered=tuple(data.draw(st.sets(st.sampled_from([NEW, MORE])))))
    outcome = judge(held, health, POLICY, NOW + seconds)
    assert outcome == judge(held, health, POLICY, NOW + seconds)
    if isinstance(outcome, TrialOutcome):
        assert seconds >= POLICY.hold
        assert all(health[address].is_steady for address in held.since)
    elif not outcome.is_running:
        assert any(found.alive is False for found in health.values())


def test_the_next_end_of_a_hold() -> None:
    ended = rolled_back(trial(NEW), TrialOutcome.FAILED, "x", NOW)
    trials = [trial(NEW, since=NOW - 700), trial(NEW, since=NOW - 100), trial(NEW), ended]
    assert next_end(trials, POLICY, NOW) == 500.0
    assert next_end([ended], POLICY, NOW) is None
    assert next_end(trials, CanaryPolicy(0.1, float("inf"), 3, "x"), NOW) == float("inf")


# -- on disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "held",
    [
        trial(NEW, MORE, answered=(NEW,)),
        rolled_back(trial(NEW), TrialOutcome.FAILED, "it failed", NOW),
        Trial((NEW,), "c.example.", {NEW: NOW}),
    ],
    ids=["running", "rolled back", "CNAME"],
)
def test_a_trial_is_read_back_as_it_was(held: Trial) -> None:
    assert from_fields(Fields(json.loads(json.dumps(to_json(held))), "trial")) == held


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"addresses": ["x"]}, "addresses"),
        ({"state": "odd"}, "state"),
        ({"ending": "odd"}, "ending"),
        ({"new": []}, "new"),
        ({"new": [{"address": "10.9.9.9", "since": 1, "answered": True}]}, "address"),
        ({"new": [{"address": NEW, "since": 1, "answered": 1}]}, "answered"),
        ({"cname": "a..b"}, "cname"),
        ({"ended_at": -1}, "ended_at"),
    ],
)
def test_what_is_wrong_on_disk_is_named(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SnapshotError, match=text):
        from_fields(Fields({**to_json(trial(NEW)), **change}, "trial"))


def test_clients_get_a_candidate_that_leads() -> None:
    view = CanaryView(leading=frozenset({"a."}))
    assert [view.served_to(name) for name in ("a.", "b.")] == ["all", "none"]
    assert new_addresses(stated(OLD), stated(OLD, NEW)) == [NEW]
