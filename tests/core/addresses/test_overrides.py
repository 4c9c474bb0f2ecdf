from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.addresses.overrides import (
    Overrides,
    Record,
    canonical_name,
    fixed_addresses,
    recorded,
)
from dnsproxy.core.addresses.table import Statement
from dnsproxy.core.learned import MAX_ADDRESSES
from dnsproxy.core.memory import history_limit
from dnsproxy.errors import OrderError
from tests.strategies import statement

NOW = 1000.9


def sets(*found: tuple[str, ...], serial: int = 1, issuer: str = "helper-a") -> dict[str, Statement]:
    """The sets of a.example., b.example. and so on."""
    return {
        f"{label}.example.": statement(f"{label}.example.", addresses, serial=serial, issuer=issuer)
        for label, addresses in zip("abc", found, strict=False)
    }


def history_of(*taken: Mapping[str, Statement], limit: int = 10) -> tuple[Record, ...]:
    history: tuple[Record, ...] = ()
    for each in taken:
        cause = max((held.snapshot for held in each.values()), key=lambda origin: origin.serial)
        history = recorded(history, each, cause, limit, NOW)
    return history


def test_a_changed_set_makes_a_record() -> None:
    first, second = sets(("10.0.0.1",)), sets(("10.0.0.2",), serial=2)
    history = history_of(first, second)
    assert history == (Record(1, "helper-a", 1000, first), Record(2, "helper-a", 1000, second))
    overrides = Overrides(history=history)
    assert [overrides.find(serial) for serial in (1, 2, 3)] == [history[0], history[1], None]


@pytest.mark.parametrize(
    "again",
    [sets(("10.0.0.1",), serial=2), sets(("10.0.0.1",), serial=2, issuer="helper-b")],
    ids=["the same helper", "another helper"],
)
def test_a_confirmation_makes_no_record(again: dict[str, Statement]) -> None:
    assert len(history_of(sets(("10.0.0.1",)), again)) == 1
    assert recorded((), {}, statement().snapshot, 10, NOW) == ()


def test_records_of_very_many_addresses_are_few() -> None:
    def named(count: int, serial: int) -> dict[str, Statement]:
        addresses = tuple(f"10.{serial}.0.{number}" for number in range(count))
        return {f"n{n}.example.": statement(f"n{n}.example.", addresses, serial=serial) for n in range(40)}

    assert len(history_of(*(named(4, serial) for serial in range(100)), limit=100)) == 100
    few = history_of(*(named(256, serial) for serial in range(12)), limit=100)
    assert few[-1].serial == 11
    assert sum(len(held.learned.addresses) * 80 for record in few for held in record.sets.values()) <= (
        history_limit(40)
    )
    assert len(few) > 1


def test_a_cname_makes_a_record() -> None:
    with_cname = {"a.example.": statement("a.example.", cname="c.example.", serial=2)}
    assert len(history_of(sets(("10.0.0.1",)), with_cname)) == 2


def test_a_name_that_is_no_longer_there_makes_a_record() -> None:
    history = history_of(sets(("10.0.0.1",), ("10.0.0.2",)), sets(("10.0.0.1",), serial=2))
    assert [sorted(record.sets) for record in history] == [["a.example.", "b.example."], ["a.example."]]


def test_the_last_records_are_kept() -> None:
    taken = [sets((f"10.0.0.{serial}",), serial=serial) for serial in range(1, 6)]
    assert [record.serial for record in history_of(*taken, limit=3)] == [3, 4, 5]
    assert history_of(*taken, limit=0) == ()
    assert [record.serial for record in history_of(*taken, taken[-1], limit=2)] == [4, 5]


@given(st.lists(st.integers(1, 4), max_size=8), st.integers(1, 10))
def test_each_record_has_a_serial_that_identifies_it(serials: list[int], limit: int) -> None:
    taken = [sets((f"10.0.0.{number}",), serial=serial) for number, serial in enumerate(serials)]
    history = history_of(*taken, limit=limit)
    overrides = Overrides(history=history)
    assert [overrides.find(record.serial) for record in history] == list(history)
    assert [record.sets for record in history] == taken[-limit:]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "no address is given"),
        (["10.0.0.300"], "10.0.0.300"),
        (["fe80::1%eth0"], "scope"),
        ([f"10.0.{n // 256}.{n % 256}" for n in range(MAX_ADDRESSES + 1)], str(MAX_ADDRESSES)),
    ],
)
def test_addresses_of_a_pin_are_checked(given: list[str], problem: str) -> None:
    with pytest.raises(OrderError, match=problem):
        fixed_addresses(given)


def test_a_pin_is_put_in_canonical_form() -> None:
    assert fixed_addresses(["FD00::0001", "10.0.0.2", "10.0.0.1", "10.0.0.2"]) == (
        *("10.0.0.1", "10.0.0.2", "fd00::1"),
    )
    assert canonical_name("A.Example") == "a.example."
    with pytest.raises(OrderError):
        canonical_name("a..b")
