from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.addresses.table import NEVER, PINNED, ServedTable, kept, pinned
from dnsproxy.core.registry import Wanted
from tests.strategies import learned, served_table, snapshot, statement

NAME = "a.example."
SETS = [("10.0.0.1",), ("10.0.0.2",), ("10.0.0.1", "10.0.0.2")]


def test_sets_are_the_same_by_addresses_and_cname() -> None:
    one = statement(NAME, ("10.0.0.1",))
    same = statement(NAME, ("10.0.0.1",), issuer="helper-b", serial=9, observed_at=5, ttl=1, status="stale")
    assert one.address_set == same.address_set
    for other in (statement(NAME, ("10.0.0.2",)), statement(NAME, ("10.0.0.1",), cname="c.example.")):
        assert one.address_set != other.address_set


@given(st.sampled_from(SETS), st.sampled_from(SETS))
def test_only_the_addresses_are_replaced(before: tuple[str, ...], after: tuple[str, ...]) -> None:
    held = statement(NAME, before, cname="c.example.")
    changed = held.with_addresses(after)
    assert changed.address_set == (after, "c.example.")
    assert (changed.snapshot, changed.learned.observed_at) == (held.snapshot, held.learned.observed_at)
    # Tables are compared by identity first, so an unchanged statement stays the same object.
    assert (changed is held) == (before == after)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_a_confirmation_changes_the_age_only(before: int, after: int) -> None:
    held = statement(NAME, observed_at=before)
    confirmed = held.confirmed(after, 2000.0)
    assert confirmed == statement(NAME, observed_at=after)
    assert (confirmed is held) == (before == after)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_after_a_clock_was_set_back_a_confirmation_is_no_later_than_now(issued_at: int, now: int) -> None:
    held = statement(NAME, at=issued_at, observed_at=issued_at)
    confirmed = held.confirmed(issued_at, now + 0.5)
    assert confirmed.learned.observed_at == confirmed.snapshot.issued_at == min(issued_at, now)
    # It lasts as long as before.
    assert confirmed.snapshot.expires_at - confirmed.snapshot.issued_at == 86_400


def test_a_pin_does_not_become_stale() -> None:
    held = pinned(NAME, ("10.1.2.3", "fd00::1"), 1000)
    assert held.address_set == (("10.1.2.3", "fd00::1"), None)
    assert (held.snapshot.expires_at, held.snapshot.issuer, held.learned.observed_at) == (NEVER, PINNED, 1000)
    # The serial of the SOA record that goes with it is in seconds, as for a learned set.
    assert held.snapshot.serial // 1000 == 1000


def test_a_kept_set_does_not_become_stale_and_keeps_its_age() -> None:
    held = statement(NAME, observed_at=900)
    assert kept(held).snapshot.expires_at == NEVER
    assert kept(held).learned is held.learned


def test_names_of_a_table_are_replaced_by_later_ones_of_the_same_name() -> None:
    first, other = Wanted(NAME, "registry", "hz"), Wanted("b.example.", "auth", "hz")
    fixed = Wanted(NAME, "registry", "hz", addresses=("10.9.9.9",))
    table = served_table(snapshot(learned(NAME), serial=7), managed=[first])
    assert table.managing([other]).managed == (first, other)
    again = table.managing([other, fixed])
    assert (again.managed, again.sets, again.serial) == ((fixed, other), table.sets, 7)
    assert ServedTable().managing([first]) == ServedTable((first,))
