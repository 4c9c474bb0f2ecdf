"""The address book: which addresses each owned name has now, and from whom.

Rules (design.md §4): never fewer addresses because of a failure; with several
helpers each name keeps the helper it has until that one stops confirming it.
A book is immutable; `Book.merged` returns the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dnsproxy.core.learned import LearnedName, Snapshot

# Two helpers may see different members of a large address set. A name changes
# hands only after its helper has missed about two rounds of the default 30 s
# interval; without this the answers would flap between the two views.
TAKEOVER_AFTER = 75


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
    """The addresses of a name before and after; empty before the first."""

    name: str
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Book:
    """``entries`` by canonical name; ``latest`` is each issuer's last accepted snapshot."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    latest: Mapping[str, Snapshot] = field(default_factory=dict)

    @property
    def serial(self) -> int:
        """The highest serial accepted; 0 before the first."""
        return max((snapshot.serial for snapshot in self.latest.values()), default=0)

    def merged(self, snapshot: Snapshot) -> Book:
        """Return the book after ``snapshot``, which `learned.judge` has accepted."""
        entries = dict(self.entries)
        for learned in snapshot.names:
            held = entries.get(learned.name)
            if learned.addresses and (held is None or _replaces(held, learned, snapshot.issuer)):
                entries[learned.name] = Entry(learned, snapshot)
        return Book(entries, {**self.latest, snapshot.issuer: snapshot})

    def changes_since(self, earlier: Book) -> list[Change]:
        """Return the names whose addresses or CNAME differ from those in ``earlier``, in name order."""
        changes = []
        for name, entry in sorted(self.entries.items()):
            held = earlier.entries.get(name)
            if held is None or (held.learned.addresses, held.learned.cname) != (
                entry.learned.addresses,
                entry.learned.cname,
            ):
                changes.append(Change(name, held.learned.addresses if held else (), entry.learned.addresses))
        return changes

    def snapshots(self) -> list[Snapshot]:
        """Return every snapshot that is needed to build this book again, each issuer's in its own order.

        A name that two issuers confirm may be with the other one in the book built again.
        """
        needed: Iterable[Snapshot] = [*self.latest.values(), *(e.snapshot for e in self.entries.values())]
        distinct = {s.identity: s for s in needed}
        # Serial first, as in `learned.judge`: a helper whose clock was set back still counts on.
        return sorted(distinct.values(), key=lambda s: (s.serial, s.issued_at, s.issuer))


def _replaces(held: Entry, offered: LearnedName, issuer: str) -> bool:
    if held.snapshot.issuer == issuer:
        return True
    return offered.observed_at - held.learned.observed_at > TAKEOVER_AFTER
