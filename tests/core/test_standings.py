from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.standings import (
    UNWELL,
    Judged,
    Limits,
    Standing,
    State,
    is_shared,
    judge_fleet,
    quantile,
)

NOW = 1_764_000_100.0
OLD, NEW, NEWEST = 1_764_000_000_000, 1_764_000_010_000, 1_764_000_090_000
INF = float("inf")


def proxy(endpoint: str = "a", serial: int = NEWEST, **facts: Any) -> Standing:
    return Standing(
        endpoint, **{"ready": True, "serials": {"helper-a": serial}, "age": 3.0, "version": "0.1", **facts}
    )


def judge(*standings: Standing, **limits: float) -> Judged:
    return judge_fleet(standings, Limits(**limits), NOW)


def states(judged: Judged) -> dict[str, State]:
    return {row.standing.endpoint: row.state for row in judged.rows}


def test_a_fleet_that_has_the_newest_is_well() -> None:
    judged = judge(proxy("a"), proxy("b"))
    assert (judged.is_well, judged.converged, judged.newest) == (True, 2, {"helper-a": NEWEST})
    assert states(judged) == {"a": State.OK, "b": State.OK}


def test_one_that_has_learned_nothing_yet_has_not_the_newest() -> None:
    judged = judge(proxy("a"), proxy("b", ready=False, serials={}, age=None))
    assert (judged.is_well, judged.converged) == (False, 1)
    assert [(row.state, row.lag) for row in judged.rows] == [(State.NOT_READY, None), (State.OK, 0.0)]
    # Without helpers, as one that has pinned names only, there is nothing to lack.
    assert judge(proxy("a", serials={}, age=None)).converged == 1


def test_an_empty_fleet_is_not_well() -> None:
    assert not judge().is_well


def test_the_lag_counts_from_the_first_snapshot_that_is_lacking() -> None:
    judged = judge(proxy("a"), proxy("b", NEW), proxy("c", OLD), lag=60.0)
    lags = {row.standing.endpoint: row.lag for row in judged.rows}
    assert lags == {"a": 0.0, "b": 10.0, "c": 90.0}
    assert states(judged) == {"a": State.OK, "b": State.BEHIND, "c": State.LAGGING}
    assert [row.behind for row in judged.rows] == [("helper-a",), ("helper-a",), ()]
    assert (judged.converged, judged.is_well) == (1, False)
    assert judge(proxy("a"), proxy("b", NEW), lag=60.0).is_well


def test_a_serial_that_is_no_time_lags_without_end() -> None:
    (worst, _) = judge(proxy("a", 7), proxy("b", 8)).rows
    assert (worst.standing.endpoint, worst.lag, worst.state) == ("a", INF, State.LAGGING)
    future = int((NOW + 301) * 1000)
    assert judge(proxy("a", future - 1), proxy("b", future)).rows[0].lag == INF


def test_a_clock_that_is_behind_hides_no_lag() -> None:
    (row, _) = judge(proxy("a", OLD), proxy("b", int((NOW + 5) * 1000))).rows
    assert (row.lag, row.state) == (0.001, State.BEHIND)


def test_another_helper_is_lacked_by_nobody_who_does_not_follow_it() -> None:
    both = proxy("b", serials={"helper-a": NEWEST, "helper-b": OLD})
    assert judge(proxy("a"), both).converged == 2


@pytest.mark.parametrize("issuer", ["dns://10.0.0.5", "embedded"])
def test_helpers_inside_the_proxies_are_not_compared(issuer: str) -> None:
    assert not is_shared(issuer)
    assert judge(proxy("a", serials={issuer: 5}), proxy("b", serials={issuer: 6})).is_well


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"silence": "connection refused"}, State.SILENT),
        ({"ready": False}, State.NOT_READY),
        ({"ready": False, "draining": True}, State.DRAINING),
        ({"age": 601.0}, State.STALE),
        ({"age": None}, State.OK),
        ({"last_error": "no answer"}, State.FAILING),
    ],
)
def test_each_state(facts: dict[str, Any], state: State) -> None:
    judged = judge(proxy(**facts))
    assert judged.rows[0].state is state
    assert judged.is_well is (state not in UNWELL)


def test_the_worst_are_first() -> None:
    judged = judge(
        proxy("ok"),
        proxy("old", age=20.0),
        proxy("silent", silence="refused", serials={}),
        proxy("stale", age=9000.0),
        proxy("lags", NEW, age=1.0),
        proxy("lags-more", OLD),
        proxy("unready", ready=False),
        lag=5.0,
    )
    assert [row.standing.endpoint for row in judged.rows] == [
        *("silent", "unready", "lags-more", "lags", "stale", "old", "ok"),
    ]
    assert judged.oldest is not None
    assert judged.oldest.standing.endpoint == "stale"


def test_histograms_are_added_up_also_those_of_other_bounds() -> None:
    one = proxy("a", buckets=[(1.0, 4.0), (2.0, 6.0), (INF, 6.0)])
    other = proxy("b", buckets=[(2.0, 1.0), (INF, 2.0)])
    judged = judge(one, other, proxy("c"))
    assert judged.buckets == ((1.0, 4.0), (2.0, 7.0), (INF, 8.0))
    assert (judged.changes, judged.convergence(0.5), judged.convergence(1.0)) == (8.0, 1.0, INF)
    assert judge(proxy()).convergence(0.5) is None


def test_quantiles_are_those_of_prometheus() -> None:
    buckets = [(1.0, 0.0), (2.0, 10.0), (4.0, 20.0), (INF, 20.0)]
    assert [quantile(buckets, share) for share in (0.25, 0.5, 0.75, 1.0)] == [1.5, 2.0, 3.0, 4.0]
    assert quantile([], 0.5) is None
    assert quantile([(1.0, 0.0), (INF, 0.0)], 0.5) is None


@given(
    st.lists(
        st.builds(
            Standing,
            endpoint=st.text(max_size=3),
            silence=st.none() | st.just("x"),
            ready=st.booleans(),
            draining=st.booleans(),
            serials=st.dictionaries(st.sampled_from("ab"), st.integers(0, 2**63)),
            age=st.none() | st.floats(0, 1e9),
            last_error=st.none() | st.just("x"),
        ),
        max_size=6,
    )
)
def test_any_fleet_is_judged_and_nobody_is_left_out(told: list[Standing]) -> None:
    judged = judge_fleet(told, Limits(), NOW)
    assert len(judged.rows) == len(told)
    assert 0 <= judged.converged <= len(told)
    order = [list(State).index(row.state) for row in judged.rows]
    assert order == sorted(order)
    assert judged.is_well == (bool(told) and all(row.state not in UNWELL for row in judged.rows))
