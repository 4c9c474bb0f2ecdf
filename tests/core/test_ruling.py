from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.ruling import Ruling, refusals_from, with_refusals
from dnsproxy.errors import SnapshotError
from tests.strategies import json_values, learned

NAME = "a.example."
NEW, OTHER = ("10.0.0.2",), ("10.0.0.3", "10.0.0.4")
BACK = (NAME, NEW)
NOW = 1_000_000.0
DAY = 86_400.0


def said(*refusals: Any) -> dict[Any, float | None]:
    return dict.fromkeys(refusals)


def answer(*trials: dict[str, Any]) -> dict[str, Any]:
    return {"canary": {"trials": list(trials)}}


def trial(**facts: Any) -> dict[str, Any]:
    return {"name": NAME, "state": "rolled_back", "reason": "failed", "new": list(NEW), **facts}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"canary": None}, set()),
        (answer(), set()),
        (answer(trial()), {BACK}),
        (answer(trial(reason="silent", new=["10.0.0.4", "10.0.0.3"])), {(NAME, OTHER)}),
        # Of one proxy only, or said by a helper before.
        (answer(trial(reason="refused"), trial(reason="fleet")), set()),
        (answer(trial(state="running", reason=None)), set()),
        (answer(trial(reason="of a later version")), set()),
    ],
)
def test_what_counts_is_what_failed_on_trial(document: dict[str, Any], expected: set[Any]) -> None:
    assert set(refusals_from(document)) == expected


def test_when_a_set_was_rolled_back_is_read() -> None:
    assert refusals_from(answer(trial(ended_at=1000))) == {BACK: 1000.0}
    assert refusals_from(answer(trial(ended_at=None), trial(new=["10.0.0.9"]))) == {
        BACK: None,
        (NAME, ("10.0.0.9",)): None,
    }
    with pytest.raises(SnapshotError):
        refusals_from(answer(trial(ended_at="1")))


@pytest.mark.parametrize(
    "document",
    [
        None,
        {"canary": 1},
        {"canary": {}},
        answer(trial(name="a..b")),
        answer(trial(new=["x"])),
        answer(trial(new=5)),
        {"canary": {"trials": [1]}},
    ],
)
def test_an_answer_that_is_wrong_is_refused(document: object) -> None:
    with pytest.raises(SnapshotError):
        refusals_from(document)


@given(json_values)
def test_any_answer_is_understood_or_refused(document: object) -> None:
    with suppress(SnapshotError):
        assert isinstance(refusals_from({"canary": {"trials": [document]}}), dict)


def test_a_quorum_decides() -> None:
    ruling = Ruling(["one", "two", "three"], 2)
    ruling.take("one", said(BACK), NOW)
    assert ruling.refused(NOW) == frozenset()
    ruling.take("two", said(BACK, (NAME, OTHER)), NOW)
    assert ruling.refused(NOW) == {BACK}
    # One that is heard no more goes on saying what it said; one that says something else does not.
    ruling.take("three", {}, NOW)
    assert ruling.refused(NOW) == {BACK}
    ruling.take("one", {}, NOW)
    assert ruling.refused(NOW) == frozenset()


def test_after_a_restart_what_was_refused_holds_until_all_are_heard() -> None:
    ruling = Ruling(["one", "two"], 1)
    ruling.restore([learned(NAME, NEW, refused=(NEW,))], NOW)
    assert ruling.refused(NOW) == {BACK}
    ruling.take("one", {}, NOW)
    assert ruling.refused(NOW) == {BACK}
    ruling.take("two", {}, NOW)
    assert ruling.refused(NOW) == frozenset()


def test_a_proxy_that_is_never_heard_keeps_no_refusal_alive_that_it_cannot_decide() -> None:
    ruling = Ruling(["one", "two", "gone"], 2)
    ruling.restore([learned(NAME, NEW, refused=(NEW,))], NOW)
    ruling.take("one", said(BACK), NOW)
    assert ruling.refused(NOW) == {BACK}
    ruling.take("two", {}, NOW)
    assert ruling.refused(NOW) == {BACK}
    ruling.take("one", {}, NOW)
    assert ruling.refused(NOW) == frozenset()


def test_a_vote_is_good_for_a_day_however_often_it_is_repeated() -> None:
    ruling = Ruling(["one"], 1)
    for hour in range(24):
        ruling.take("one", said(BACK), NOW + hour * 3600)
        assert ruling.refused(NOW + hour * 3600) == {BACK}
    ruling.take("one", said(BACK), NOW + DAY)
    assert ruling.refused(NOW + DAY) == frozenset()
    # Another set is another vote; and so is the same one after the proxy has tried it again.
    ruling.take("one", said((NAME, OTHER)), NOW + DAY)
    assert ruling.refused(NOW + DAY) == {(NAME, OTHER)}
    ruling.take("one", said(BACK), NOW + DAY + 1)
    assert ruling.refused(NOW + DAY + 1) == {BACK}


def test_the_vote_of_a_proxy_that_has_gone_expires_too() -> None:
    ruling = Ruling(["one"], 1)
    ruling.take("one", said(BACK), NOW)
    assert ruling.refused(NOW + DAY - 1) == {BACK}
    assert ruling.refused(NOW + DAY) == frozenset()


def test_a_restart_of_the_helper_makes_no_vote_younger() -> None:
    ruling = Ruling(["one"], 1)
    ruling.take("one", {BACK: NOW - DAY + 60}, NOW)
    assert ruling.refused(NOW + 59) == {BACK}
    assert ruling.refused(NOW + 60) == frozenset()
    # A proxy whose clock is ahead gains nothing by it.
    ruling.take("one", {(NAME, OTHER): NOW + 10 * DAY}, NOW)
    assert ruling.refused(NOW + DAY) == frozenset()


def test_what_was_refused_before_a_restart_expires_while_no_proxy_answers() -> None:
    ruling = Ruling(["one", "two"], 1)
    ruling.restore([learned(NAME, NEW, refused=(NEW,))], NOW)
    assert ruling.refused(NOW + DAY - 1) == {BACK}
    assert ruling.refused(NOW + DAY) == frozenset()


def test_each_name_has_its_refusals_while_it_has_the_addresses() -> None:
    refused = {BACK, (NAME, OTHER), ("b.example.", NEW)}
    first, second = with_refusals([learned(NAME, (*NEW, "10.0.0.9")), learned("c.example.", NEW)], refused)
    assert first.refused == (NEW,)
    assert second.refused == ()
    assert with_refusals([first], ())[0].refused == ()


addresses = st.sets(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), min_size=1).map(
    lambda found: tuple(sorted(found))
)
reports = st.frozensets(st.tuples(st.just(NAME), addresses), max_size=3)


@given(st.lists(reports, min_size=1, max_size=6), st.integers(1, 6))
def test_a_larger_quorum_refuses_no_more(said: list[frozenset[Any]], quorum: int) -> None:
    small, large = Ruling(map(str, range(len(said))), quorum), Ruling(map(str, range(len(said))), quorum + 1)
    for number, report in enumerate(said):
        small.take(str(number), dict.fromkeys(report), NOW)
        large.take(str(number), dict.fromkeys(report), NOW)
    assert large.refused(NOW) <= small.refused(NOW) <= frozenset().union(*said)
