from __future__ import annotations

import pytest

from dnsproxy.core.registry import MAX_FOUND
from dnsproxy.core.withdrawal import KEEP, LOOKS, Change, RoleNames

REGULAR = 300.0
LONGEST = 2 * REGULAR


def looks(role: RoleNames, *named: str, start: float, until: float, step: float = REGULAR) -> list[float]:
    """Look at regular times from ``start`` to ``until``; return the times at which a name was withdrawn."""
    withdrawn = []
    now = start
    while now <= until:
        if role.conclude(named, now).withdrawn:
            withdrawn.append(now)
        now += step
    return withdrawn


@pytest.fixture
def role() -> RoleNames:
    """A role whose name is known."""
    known = RoleNames(LONGEST)
    known.conclude(["a.example."], 0.0)
    return known


@pytest.mark.parametrize("named", [(), ("b.example.",)])
def test_a_name_is_withdrawn_after_looks_without_it_over_the_whole_time(
    role: RoleNames, named: tuple[str, ...]
) -> None:
    # The hour begins with the first look without the name, and ends with the look that completes it.
    assert looks(role, *named, start=REGULAR, until=3 * KEEP) == [REGULAR + KEEP]
    assert role.names == named


def test_one_look_with_the_name_makes_the_evidence_begin_again(role: RoleNames) -> None:
    looks(role, "b.example.", start=REGULAR, until=KEEP)
    role.conclude(["a.example."], KEEP + REGULAR)
    assert looks(role, "b.example.", start=KEEP + 2 * REGULAR, until=2 * KEEP + REGULAR) == []
    assert role.names == ("a.example.", "b.example.")


def test_two_looks_are_not_enough_however_far_apart() -> None:
    role = RoleNames(longest_gap=100 * KEEP)
    role.conclude(["a.example."], 0.0)
    assert looks(role, start=KEEP, until=LOOKS * KEEP, step=KEEP) == [LOOKS * KEEP]


@pytest.mark.parametrize("gap", [LONGEST + 1, 24 * KEEP, 0.0, -KEEP])
def test_a_pause_between_looks_counts_as_no_time(role: RoleNames, gap: float) -> None:
    now = REGULAR
    for _ in range(100):
        assert role.conclude(["b.example."], now) == Change()
        now += gap
    assert role.names == ("a.example.", "b.example.")


def test_looks_in_quick_succession_are_no_time(role: RoleNames) -> None:
    assert looks(role, start=1.0, until=1000.0, step=1.0) == []


def test_inconclusive_looks_withdraw_nothing_and_make_no_name_known() -> None:
    role = RoleNames(LONGEST)
    for count in range(1, LOOKS + 2):
        role.note_inconclusive()
        assert role.is_known == (count >= LOOKS)
    role.conclude(["a.example."], 0.0)
    for _ in range(100):
        role.note_inconclusive()
    assert role.names == ("a.example.",)


def test_restored_names_are_added_without_evidence_against_them(role: RoleNames) -> None:
    looks(role, "b.example.", start=REGULAR, until=KEEP)
    # "a" is known: that a snapshot lists it still is no look at the registry.
    role.restore(["a.example.", "c.example."])
    assert role.conclude(["b.example."], KEEP + REGULAR).withdrawn == ("a.example.",)
    assert role.names == ("b.example.", "c.example.")


def test_a_steady_name_keeps_its_place_in_a_stream_of_odd_ones(role: RoleNames) -> None:
    role.conclude(["a.example."], 1.0)
    for turn in range(100):
        assert role.conclude([f"n{turn:03}.example."], 2.0 + turn) == Change()
    assert role.names == ("a.example.", *(f"n{turn:03}.example." for turn in range(101 - MAX_FOUND, 100)))


def test_a_further_name_waits_while_all_places_are_taken_by_steady_ones() -> None:
    role = RoleNames(LONGEST)
    steady = [f"n{turn}.example." for turn in range(MAX_FOUND)]
    role.restore(steady)
    assert role.conclude(["b.example."], 0.0) == Change(refused=("b.example.",))
    withdrawn: tuple[str, ...] = ()
    now = 0.0
    while not withdrawn:
        now += REGULAR
        change = role.conclude(["b.example."], now)
        withdrawn = change.withdrawn
    assert (now, change, role.names) == (KEEP, Change(withdrawn=tuple(steady)), ("b.example.",))
