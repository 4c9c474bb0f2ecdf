"""The address book: which addresses each owned name has now, and from whom.

Rules (design.md §4): never fewer addresses because of a failure; with several
helpers each name keeps the helper it has until that one stops confirming it.
A book is immutable; `Book.merged` returns the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dnsproxy.core.learned import LearnedName, Snapshot
from dnsproxy.core.registry import MAX_FOUND, Found

# Two helpers may see different members of a large address set. A name changes
# hands only after its helper has missed about two rounds of the default 30 s
# interval; without this the answers would flap between the two views.
TAKEOVER_AFTER = 75


# Seconds. What a helper could not confirm for a day does not count any more once another one
# knows better; until then both count, for two zones may be told different names.
FIND_LIFETIME = 86_400


@dataclass(frozen=True, slots=True)
class Find:
    """What a helper found out about one role of a registry, and the snapshot that says so."""

    found: Found
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in service, and the snapshot its addresses came from."""

    learned: LearnedName
    snapshot: Snapshot

    @property
    def age_from(self) -> int:
        """Unix time at which a helper last confirmed the addresses."""
        return self.learned.observed_at


@dataclass(frozen=True, slots=True)
class Change:
    """The addresses of a name before and after; empty before the first, and after it was given up."""

    name: str
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Book:
    """``entries`` by canonical name; ``latest`` is each issuer's last accepted snapshot.

    ``finds`` are by issuer, registry and role. ``documents`` are the snapshots that any of these came
    from, in the order in which they were accepted. Use `dataclasses.replace` to change a part.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    latest: Mapping[str, Snapshot] = field(default_factory=dict)
    finds: Mapping[tuple[str, str, str], Find] = field(default_factory=dict)
    documents: tuple[Snapshot, ...] = ()

    @property
    def serial(self) -> int:
        """The highest serial accepted; 0 before the first."""
        return max((snapshot.serial for snapshot in self.latest.values()), default=0)

    def merged(self, snapshot: Snapshot) -> Book:
        """Return the book after ``snapshot``, which `learned.judge` has accepted."""
        finds = self._finds_after(snapshot)
        # A name that no registry uses any more is given up, unless it is configured as well.
        given_up = _names_of(self.finds) - _names_of(finds) - {learned.name for learned in snapshot.names}
        entries = {name: held for name, held in self.entries.items() if name not in given_up}
        for learned in snapshot.names:
            held = entries.get(learned.name)
            if learned.addresses and (held is None or _replaces(held, learned, snapshot.issuer)):
                entries[learned.name] = Entry(learned, snapshot)
        latest = {**self.latest, snapshot.issuer: snapshot}
        sources = (
            *latest.values(),
            *(e.snapshot for e in entries.values()),
            *(f.snapshot for f in finds.values()),
        )
        needed = {source.identity for source in sources} - {snapshot.identity}
        documents = (*(held for held in self.documents if held.identity in needed), snapshot)
        return Book(entries, latest, finds, documents)

    def _finds_after(self, snapshot: Snapshot) -> dict[tuple[str, str, str], Find]:
        told = {(snapshot.issuer, *found.subject): Find(found, snapshot) for found in snapshot.found}
        finds = {**self.finds, **told}
        latest: dict[tuple[str, str], int] = {}
        for find in finds.values():
            subject = find.found.subject
            latest[subject] = max(find.found.observed_at, latest.get(subject, 0))
        return {
            key: find
            for key, find in finds.items()
            if latest[find.found.subject] - find.found.observed_at <= FIND_LIFETIME
        }

    def found(self) -> list[Found]:
        """Return what is known of each role of a registry, the views of all helpers united.

        No more names than one helper may tell: whoever has a helper's key can sign as many.
        """
        united: dict[tuple[str, str], Found] = {}
        for _, find in sorted(self.finds.items()):
            found = find.found
            held = united.get(found.subject, found)
            names = tuple(dict.fromkeys((*held.names, *found.names)))
            observed_at = max(held.observed_at, found.observed_at)
            united[found.subject] = Found(found.registry, found.role, names[:MAX_FOUND], observed_at)
        return list(united.values())

    def changes_since(self, earlier: Book) -> list[Change]:
        """Return the names whose addresses or CNAME differ from those in ``earlier``, those given up last."""
        changes = []
        for name, entry in sorted(self.entries.items()):
            held = earlier.entries.get(name)
            if held is None or (held.learned.addresses, held.learned.cname) != (
                entry.learned.addresses,
                entry.learned.cname,
            ):
                changes.append(Change(name, held.learned.addresses if held else (), entry.learned.addresses))
        given_up = sorted(set(earlier.entries) - set(self.entries))
        changes += [Change(name, earlier.entries[name].learned.addresses, ()) for name in given_up]
        return changes

    def snapshots(self) -> list[Snapshot]:
        """Return every snapshot that is needed to build this book again, in the order to merge them.

        A name that two issuers confirm may be with the other one in the book built again.
        """
        return list(self.documents)


def _replaces(held: Entry, offered: LearnedName, issuer: str) -> bool:
    if held.snapshot.issuer == issuer:
        return True
    return offered.observed_at - held.learned.observed_at > TAKEOVER_AFTER


def _names_of(finds: Mapping[tuple[str, str, str], Find]) -> set[str]:
    return {name for find in finds.values() for name in find.found.names}
