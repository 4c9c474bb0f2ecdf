from __future__ import annotations

from dataclasses import replace
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.book import FIND_LIFETIME, TAKEOVER_AFTER, Book, Change
from dnsproxy.core.learned import Snapshot
from dnsproxy.core.registry import MAX_FOUND, Found
from tests.strategies import learned, snapshot

A, B = "helper-a", "helper-b"
NAMES = ("a.example.", "b.example.", "c.example.")


def book_of(*taken: Snapshot) -> Book:
    return reduce(Book.merged, taken, Book())


def addresses(book: Book) -> dict[str, tuple[str, ...]]:
    return {name: entry.learned.addresses for name, entry in book.entries.items()}


def test_an_empty_book() -> None:
    assert Book().serial == 0
    assert Book().snapshots() == []
    assert Book().changes_since(Book()) == []


def test_a_name_keeps_its_addresses_when_a_snapshot_has_none_for_it() -> None:
    first = snapshot(learned("a.example."), learned("b.example.", ("10.0.0.2",)))
    second = snapshot(learned("a.example.", ("10.0.0.3",)), learned("b.example.", ()), serial=2)
    assert addresses(book_of(first, second)) == {"a.example.": ("10.0.0.3",), "b.example.": ("10.0.0.2",)}


def test_a_name_that_was_never_seen_is_no_entry() -> None:
    assert book_of(snapshot(learned("a.example.", ()))).entries == {}


def test_the_same_helper_may_take_addresses_away() -> None:
    first = snapshot(learned("a.example.", ("10.0.0.1", "10.0.0.2")))
    second = snapshot(learned("a.example.", ("10.0.0.2",)), serial=2)
    assert addresses(book_of(first, second)) == {"a.example.": ("10.0.0.2",)}


def test_another_helper_takes_over_only_after_the_wait() -> None:
    held = snapshot(learned("a.example.", ("10.0.0.1",), observed_at=1000), issuer=A)
    for later, expected in [(TAKEOVER_AFTER, "10.0.0.1"), (TAKEOVER_AFTER + 1, "10.0.0.2")]:
        offered = snapshot(
            learned("a.example.", ("10.0.0.2",), observed_at=1000 + later), issuer=B, at=1000 + later
        )
        assert addresses(book_of(held, offered)) == {"a.example.": (expected,)}


def test_a_merge_leaves_the_earlier_book_alone() -> None:
    before = book_of(snapshot(learned("a.example.")))
    before.merged(snapshot(learned("b.example."), serial=2))
    assert set(before.entries) == {"a.example."}
    assert before.serial == 1


def test_age_and_serial() -> None:
    book = book_of(
        snapshot(learned("a.example.", observed_at=990), issuer=A, serial=7),
        snapshot(learned("b.example."), issuer=B, serial=3),
    )
    assert book.entries["a.example."].age_from == 990
    assert book.serial == 7


def test_changes() -> None:
    before = book_of(snapshot(learned("a.example."), learned("b.example."), learned("c.example.")))
    after = before.merged(
        snapshot(
            learned("d.example.", ("10.0.0.4",)),
            learned("c.example.", cname="target.example."),
            learned("b.example.", observed_at=1030),
            learned("a.example.", ("10.0.0.9",)),
            serial=2,
        )
    )
    assert after.changes_since(before) == [
        Change("a.example.", ("10.0.0.1",), ("10.0.0.9",)),
        Change("c.example.", ("10.0.0.1",), ("10.0.0.1",)),
        Change("d.example.", (), ("10.0.0.4",)),
    ]
    assert after.changes_since(after) == []


def test_a_snapshot_is_needed_as_long_as_a_name_lives_from_it() -> None:
    first = snapshot(learned("a.example."), learned("b.example."), serial=1)
    second = snapshot(learned("a.example."), learned("b.example.", ()), serial=2)
    third = snapshot(learned("a.example."), learned("b.example."), serial=3)
    assert book_of(first, second).snapshots() == [first, second]
    assert book_of(first, second, third).snapshots() == [third]


def test_a_helper_whose_clock_was_set_back_is_rebuilt_in_its_order() -> None:
    first = snapshot(learned("a.example."), learned("b.example."), serial=1, at=2000)
    second = snapshot(learned("a.example.", ("10.0.0.5",)), serial=2, at=1000)
    book = book_of(first, second)
    assert book_of(*book.snapshots()) == book


@st.composite
def histories(draw: st.DrawFn, shared: bool) -> list[Snapshot]:
    """What two helpers publish in turn on one clock; without ``shared``, each has names of its own."""
    taken: list[Snapshot] = []
    now = 1000
    seen: dict[tuple[str, str], tuple[tuple[str, ...], int]] = {}
    for serial in range(1, draw(st.integers(1, 8)) + 1):
        now += draw(st.sampled_from([1, 30, 60, 80, 300]))
        issuer = draw(st.sampled_from([A, B]))
        entries = []
        for name in NAMES:
            owner = name if shared else f"{issuer}.{name}"
            if draw(st.booleans()):
                octets = draw(st.sets(st.integers(1, 5), min_size=1, max_size=3))
                seen[issuer, owner] = tuple(f"10.0.0.{octet}" for octet in sorted(octets)), now
            held, observed_at = seen.get((issuer, owner), ((), 0))
            if draw(st.booleans()):
                entries.append(learned(owner, held, observed_at=observed_at))
        taken.append(snapshot(*entries, issuer=issuer, serial=serial, at=now))
    return taken


@given(histories(shared=True))
def test_a_name_once_known_never_goes_and_is_never_empty(history: list[Snapshot]) -> None:
    book = Book()
    for taken in history:
        after = book.merged(taken)
        assert set(book.entries) <= set(after.entries)
        assert all(entry.learned.addresses for entry in after.entries.values())
        assert after.latest[taken.issuer] is taken
        book = after


@given(histories(shared=False))
def test_snapshots_rebuild_an_equal_book(history: list[Snapshot]) -> None:
    book = book_of(*history)
    assert book_of(*book.snapshots()) == book


@given(histories(shared=True))
def test_snapshots_rebuild_contested_names_hardly_older(history: list[Snapshot]) -> None:
    book = book_of(*history)
    rebuilt = book_of(*book.snapshots())
    assert rebuilt.latest == book.latest
    assert set(rebuilt.entries) == set(book.entries)
    for name, entry in book.entries.items():
        assert entry.age_from - rebuilt.entries[name].age_from <= TAKEOVER_AFTER


def test_snapshots_are_in_the_order_in_which_they_were_accepted() -> None:
    # The second came from a helper that had lost its state, and with it a serial from a wrong clock.
    first = snapshot(learned("a.example."), learned("b.example."), serial=9, at=1000)
    second = snapshot(learned("b.example.", ("10.0.0.2",)), serial=3, at=1060)
    third = snapshot(learned("b.example.", ("10.0.0.3",)), serial=3, at=1090)
    book = book_of(first, second, third)
    assert book.snapshots() == [first, third]
    assert book_of(*book.snapshots()) == book
    assert book.entries["b.example."].learned.addresses == ("10.0.0.3",)


# --- what registries told


def telling(*names: str, issuer: str = A, serial: int = 1, at: int = 1000, role: str = "auth") -> Snapshot:
    entries = [learned(name, observed_at=at) for name in names]
    return replace(
        snapshot(*entries, issuer=issuer, serial=serial, at=at), found=(Found("hz", role, names, at),)
    )


def found_names(book: Book) -> dict[str, tuple[str, ...]]:
    return {found.role: found.names for found in book.found()}


def test_a_find_replaces_the_earlier_one_of_its_helper_and_its_names() -> None:
    book = book_of(telling("a.example."), telling("b.example.", serial=2))
    assert found_names(book) == {"auth": ("b.example.",)}
    assert addresses(book) == {"b.example.": ("10.0.0.1",)}


def test_a_find_without_names_gives_the_earlier_ones_up() -> None:
    before = book_of(telling("a.example."))
    book = before.merged(telling(serial=2))
    assert (found_names(book), addresses(book)) == ({"auth": ()}, {})
    assert book.changes_since(before) == [Change("a.example.", ("10.0.0.1",), ())]


def test_silence_about_a_role_keeps_its_names_and_their_addresses() -> None:
    silent = snapshot(learned("c.example."), serial=2)
    book = book_of(telling("a.example."), silent)
    assert found_names(book) == {"auth": ("a.example.",)}
    assert addresses(book) == {"a.example.": ("10.0.0.1",), "c.example.": ("10.0.0.1",)}
    assert [kept.serial for kept in book.snapshots()] == [1, 2]


def test_a_name_that_is_configured_as_well_stays() -> None:
    later = replace(telling(serial=2), names=(learned("a.example.", ()),))
    assert addresses(book_of(telling("a.example."), later)) == {"a.example.": ("10.0.0.1",)}


def test_the_views_of_two_helpers_are_united() -> None:
    book = book_of(telling("a.example.", "b.example."), telling("b.example.", "c.example.", issuer=B))
    assert found_names(book) == {"auth": ("a.example.", "b.example.", "c.example.")}
    # What only one of them has given up is gone only when nobody has it.
    after = book.merged(telling(serial=2))
    assert found_names(after) == {"auth": ("b.example.", "c.example.")}


def test_a_view_is_as_fresh_as_its_last_confirmation() -> None:
    for first, second in ((1000, 2000), (2000, 1000)):
        book = book_of(telling("a.example.", at=first), telling("a.example.", issuer=B, at=second))
        assert [found.observed_at for found in book.found()] == [2000]


def test_many_helpers_cannot_find_more_names_than_one() -> None:
    book = book_of(*(telling(f"n{i}.example.", issuer=f"helper-{i}") for i in range(MAX_FOUND + 3)))
    assert [len(found.names) for found in book.found()] == [MAX_FOUND]


def test_what_a_helper_could_not_confirm_for_a_day_is_over_once_another_knows() -> None:
    first = telling("a.example.")
    day = telling("b.example.", issuer=B, at=1000 + FIND_LIFETIME)
    assert found_names(book_of(first, day)) == {"auth": ("a.example.", "b.example.")}
    later = telling("b.example.", issuer=B, at=1001 + FIND_LIFETIME, serial=2)
    assert found_names(book_of(first, day, later)) == {"auth": ("b.example.",)}
    # It goes on publishing what it cannot confirm: that changes nothing.
    again = replace(telling("a.example.", serial=3), issued_at=1002 + FIND_LIFETIME)
    assert found_names(book_of(first, day, later, again)) == {"auth": ("b.example.",)}
    other_role = telling("b.example.", issuer=B, at=1001 + FIND_LIFETIME, role="storage")
    assert found_names(book_of(first, other_role)) == {"auth": ("a.example.",), "storage": ("b.example.",)}


def test_a_book_with_finds_is_built_again_from_its_snapshots() -> None:
    book = book_of(telling("a.example."), telling("b.example.", role="storage", issuer=B), telling(serial=2))
    again = book_of(*book.snapshots())
    assert (again.found(), addresses(again)) == (book.found(), addresses(book))
