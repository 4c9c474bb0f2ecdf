from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.book import Entry
from dnsproxy.core.canary import (
    CanaryPolicy,
    CanaryView,
    Ending,
    State,
    Trial,
    from_list,
    is_in_group,
    judge,
    next_end,
    rolled_back,
    set_of,
    to_list,
    trial_of,
)
from dnsproxy.core.fields import Fields
from dnsproxy.core.health import Sign
from dnsproxy.errors import SnapshotError
from tests.strategies import learned, snapshot

NAME = "a.example."
OLD, NEW, MORE = "10.0.0.1", "10.0.0.2", "10.0.0.3"
NOW = 1_000_000
POLICY = CanaryPolicy(share=0.05, hold=600.0, fall=3, identity="proxy-1")
GOOD, UNKNOWN = Sign(alive=True, failures=0), Sign(alive=None, failures=0)
DEAD = Sign(alive=False, failures=3)
SHAKY = Sign(alive=True, failures=1)

shares = st.floats(0, 1)
labels = st.text("abcdef0123456789-.", min_size=1, max_size=20)


def entry(*addresses: str, **facts: Any) -> Entry:
    content = learned(NAME, addresses, **facts)
    return Entry(content, snapshot(content))


def trial(*new: str, since: int = NOW, answered: tuple[str, ...] = ()) -> Trial:
    return Trial((OLD, *new), None, dict.fromkeys(new, since), frozenset(answered))


def policy(share: float, identity: str = "proxy-1") -> CanaryPolicy:
    return CanaryPolicy(share, 600.0, 3, identity)


# -- the group ---------------------------------------------------------------------------------


@given(labels, shares, shares)
def test_who_is_in_the_group_stays_there_when_the_share_grows(identity: str, one: float, two: float) -> None:
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


# -- what is tried -----------------------------------------------------------------------------


def test_a_first_set_and_one_without_new_addresses_are_not_tried() -> None:
    assert trial_of(None, entry(NEW), None, NOW) is None
    assert trial_of(entry(OLD), entry(OLD), None, NOW) is None
    assert trial_of(entry(OLD, NEW), entry(OLD), None, NOW) is None


def test_a_set_with_a_new_address_is_tried_from_now_on() -> None:
    found = trial_of(entry(OLD), entry(OLD, NEW), None, NOW + 0.7)
    assert found == trial(NEW)
    assert found is not None
    assert (found.started_at, found.candidate, found.is_running) == (NOW, ((OLD, NEW), None), True)


def test_addresses_that_stay_go_on_where_they_are() -> None:
    held = trial(NEW, answered=(NEW,))
    found = trial_of(entry(OLD), entry(NEW, MORE), held, NOW + 300)
    assert found is not None
    assert found.since == {NEW: NOW, MORE: NOW + 300}
    assert found.answered == {NEW}
    again = trial_of(entry(OLD), entry(NEW), found, NOW + 400)
    assert again is not None
    assert again.started_at == NOW


def test_a_refused_set_stays_refused_until_another_one_comes() -> None:
    refused = rolled_back(trial(NEW), Ending.FAILED, "it failed", NOW)
    assert trial_of(entry(OLD), entry(OLD, NEW), refused, NOW + 9_999) is refused
    other = trial_of(entry(OLD), entry(NEW), refused, NOW + 9_999)
    assert other is not None
    assert other.is_running
    assert other.since == {NEW: NOW + 9_999}


def test_a_clock_that_was_set_back_makes_no_trial_longer_than_hold() -> None:
    held = trial(NEW, since=NOW + 86_400)
    found = trial_of(entry(OLD), entry(OLD, NEW), held, NOW)
    assert found is not None
    assert found.started_at == NOW


# -- how it ends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signs", "answered", "seconds", "works", "expected"),
    [
        pytest.param({NEW: GOOD}, (), 0, True, State.RUNNING, id="good, not over"),
        pytest.param({NEW: GOOD}, (), 600, True, Ending.HELD, id="good until the end"),
        pytest.param({NEW: GOOD}, (), 600, False, Ending.HELD, id="good, the old one not"),
        pytest.param({NEW: UNKNOWN}, (), 600, True, State.RUNNING, id="nobody can tell"),
        pytest.param({}, (), 600, True, State.RUNNING, id="not probed at this time"),
        pytest.param({NEW: SHAKY}, (NEW,), 600, True, State.RUNNING, id="one lost packet at the end"),
        pytest.param({NEW: DEAD}, (NEW,), 1, True, Ending.FAILED, id="failed"),
        pytest.param({NEW: Sign(alive=False, failures=2)}, (NEW,), 1, True, State.RUNNING, id="not often"),
        pytest.param({NEW: DEAD}, (NEW,), 1, False, State.RUNNING, id="failed, so has the old one"),
        pytest.param({NEW: DEAD}, (), 599, True, State.RUNNING, id="has not come up yet"),
        pytest.param({NEW: DEAD}, (), 600, True, Ending.SILENT, id="never came up"),
        pytest.param({NEW: DEAD}, (), 600, False, State.RUNNING, id="never came up, the old one is dead"),
        pytest.param({NEW: GOOD, MORE: DEAD}, (), 600, True, Ending.SILENT, id="one never came up"),
        pytest.param({NEW: GOOD, MORE: DEAD}, (MORE,), 10, True, Ending.FAILED, id="one of two failed"),
        pytest.param({NEW: GOOD, MORE: UNKNOWN}, (), 600, True, State.RUNNING, id="one is not known"),
    ],
)
def test_ends(
    signs: dict[str, Sign],
    answered: tuple[str, ...],
    seconds: int,
    works: bool,
    expected: State | Ending,
) -> None:
    held = trial(*(signs or (NEW,)), answered=answered)
    outcome = judge(held, signs, POLICY, NOW + seconds, stable_works=works)
    if isinstance(outcome, Ending) or isinstance(expected, State):
        assert (outcome if isinstance(outcome, Ending) else outcome.state) == expected
    else:
        assert (outcome.state, outcome.ending, outcome.ended_at) == (
            State.ROLLED_BACK,
            expected,
            NOW + seconds,
        )
        assert any(address in outcome.detail for address in signs)


def test_what_has_answered_is_remembered() -> None:
    outcome = judge(trial(NEW, MORE), {NEW: GOOD, MORE: UNKNOWN}, POLICY, NOW, stable_works=True)
    assert isinstance(outcome, Trial)
    assert outcome.answered == {NEW}


def test_what_is_refused_is_judged_no_more() -> None:
    refused = rolled_back(trial(NEW), Ending.REFUSED, "by an operator", NOW)
    assert judge(refused, {NEW: GOOD}, POLICY, NOW + 9_999, stable_works=True) is refused


signs = st.builds(Sign, st.sampled_from([True, False, None]), st.integers(0, 5))


@given(st.dictionaries(st.sampled_from([NEW, MORE]), signs), st.integers(0, 1_200), st.booleans(), st.data())
def test_only_what_answers_is_put_into_service_and_only_what_fails_beside_a_set_that_works_is_refused(
    told: dict[str, Sign], seconds: int, works: bool, data: st.DataObject
) -> None:
    held = trial(NEW, MORE, answered=tuple(data.draw(st.sets(st.sampled_from([NEW, MORE])))))
    outcome = judge(held, told, POLICY, NOW + seconds, stable_works=works)
    assert outcome == judge(held, told, POLICY, NOW + seconds, stable_works=works)
    if isinstance(outcome, Ending):
        assert seconds >= POLICY.hold
        assert all(told[address].is_good for address in held.since)
    elif not outcome.is_running:
        assert works
        assert any(sign.alive is False for sign in told.values())


def test_the_next_end_of_a_hold() -> None:
    ended = rolled_back(trial(NEW), Ending.FAILED, "x", NOW)
    trials = [trial(NEW, since=NOW - 700), trial(NEW, since=NOW - 100), trial(NEW), ended]
    assert next_end(trials, POLICY, NOW) == 500.0
    assert next_end([ended], POLICY, NOW) is None
    assert next_end(trials, CanaryPolicy(0.1, float("inf"), 3, "x"), NOW) == float("inf")


# -- on disk -----------------------------------------------------------------------------------


def written(trials: dict[str, Trial]) -> Fields:
    return Fields(json.loads(json.dumps({"trials": to_list(trials)})), "orders")


def test_trials_outlive_a_restart() -> None:
    trials = {
        NAME: trial(NEW, MORE, answered=(NEW,)),
        "b.example.": rolled_back(trial(NEW), Ending.FAILED, "it failed", NOW),
    }
    assert from_list(written(trials), "trials") == trials
    assert from_list(Fields({}, "orders"), "trials") == {}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"addresses": ["x"]}, "addresses"),
        ({"state": "odd"}, "state"),
        ({"ending": "odd"}, "ending"),
        ({"new": []}, "new"),
        ({"new": [{"address": "10.9.9.9", "since": 1, "answered": True}]}, "address"),
        ({"new": [{"address": NEW, "since": 1, "answered": 1}]}, "answered"),
        ({"name": "a..b"}, "name"),
    ],
)
def test_what_is_wrong_on_disk_is_named(change: dict[str, Any], text: str) -> None:
    (item,) = to_list({NAME: trial(NEW)})
    with pytest.raises(SnapshotError, match=text):
        from_list(Fields({"trials": [{**item, **change}]}, "orders"), "trials")


def test_who_gets_a_candidate() -> None:
    view = CanaryView(leading=frozenset({"a."}))
    assert [view.served_to(name) for name in ("a.", "b.")] == ["all", "none"]
    assert set_of(entry(NEW, cname="c.example.")) == ((NEW,), "c.example.")
