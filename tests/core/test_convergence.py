from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.addresses.table import Statement
from dnsproxy.core.convergence import BOUNDS, Convergence
from tests.strategies import statement

A = "a.example."
START = 1000.0


def changed(
    address: str, changed_at: float | None, *, observed_at: int = 1000, issuer: str = "helper-a"
) -> dict[str, Statement | None]:
    return {A: statement(A, (address,), changed_at=changed_at, observed_at=observed_at, issuer=issuer)}


def counted(convergence: Convergence) -> int:
    return sum(convergence.counts)


@pytest.fixture
def following() -> Convergence:
    """One that has answered with 10.0.0.1 since its start."""
    convergence = Convergence(START)
    convergence.record(changed("10.0.0.1", 900.0), START)
    return convergence


def test_a_change_is_measured_from_the_helper_to_the_answer(following: Convergence) -> None:
    following.record(changed("10.0.0.2", 1100.25, observed_at=1100), 1101.0)
    assert following.sum == 0.75
    assert following.counts[BOUNDS.index(1.0)] == counted(following) == 1


def test_a_change_counts_once_however_often_its_addresses_come_and_go(following: Convergence) -> None:
    new, old = changed("10.0.0.2", 1100.0), changed("10.0.0.1", 900.0)
    for answered in (new, new, old, new):
        following.record(answered, 1101.0)
    assert counted(following) == 1


def test_a_clock_that_is_behind_makes_no_negative_time(following: Convergence) -> None:
    following.record(changed("10.0.0.2", 1100.0), 1099.0)
    assert (following.sum, following.counts[0]) == (0.0, 1)


def test_what_took_more_than_all_bounds_is_in_the_last_bucket(following: Convergence) -> None:
    following.record(changed("10.0.0.2", 1100.0), 1100.0 + BOUNDS[-1] + 1)
    assert following.counts[-1] == 1


def test_first_addresses_do_not_count() -> None:
    convergence = Convergence(START)
    convergence.record(changed("10.0.0.1", 1100.0), 1101.0)
    assert counted(convergence) == 0


def test_addresses_after_a_gap_do_not_count(following: Convergence) -> None:
    following.record({A: None}, 1050.0)
    following.record(changed("10.0.0.2", 1100.0), 1101.0)
    assert counted(following) == 0


def test_a_change_before_the_start_does_not_count(following: Convergence) -> None:
    following.record(changed("10.0.0.2", START - 1), 1101.0)
    assert counted(following) == 0


def test_a_change_that_was_passed_over_does_not_count_when_it_is_answered(following: Convergence) -> None:
    new = changed("10.0.0.2", 1100.0)
    following.pass_over(filter(None, new.values()))
    following.record(new, 5000.0)
    assert counted(following) == 0


def test_the_same_addresses_with_a_later_time_of_change_are_no_change(following: Convergence) -> None:
    following.record(changed("10.0.0.1", 1100.0), 1101.0)
    assert counted(following) == 0


def test_documents_without_the_time_of_change_are_not_measured(following: Convergence) -> None:
    following.record(changed("10.0.0.2", None), 1101.0)
    assert counted(following) == 0


def test_another_helpers_view_is_no_change_but_its_later_change_is(following: Convergence) -> None:
    following.record(changed("10.0.0.1", 900.0, observed_at=1090), 1091.0)
    following.record(changed("10.0.0.2", 1050.0, issuer="helper-b", observed_at=1170), 1171.0)
    assert counted(following) == 0
    following.record(changed("10.0.0.3", 1180.0, issuer="helper-c", observed_at=1190), 1191.0)
    assert (counted(following), following.sum) == (1, 11.0)


@given(st.lists(st.tuples(st.sampled_from("1234"), st.floats(0, 4000), st.floats(0, 9000)), max_size=12))
def test_counts_only_grow_and_sums_are_never_negative(steps: list[tuple[str, float, float]]) -> None:
    convergence = Convergence(START)
    for address, changed_at, now in steps:
        before, total = list(convergence.counts), convergence.sum
        convergence.record(changed(f"10.0.0.{address}", changed_at), now)
        assert all(new >= old for new, old in zip(convergence.counts, before, strict=True))
        assert convergence.sum >= total
        assert counted(convergence) <= sum(before) + 1
