"""Two tables: what helpers state about each name, and what is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from dnsproxy.core.learned import LearnedName
from dnsproxy.core.registry import Wanted

# Addresses and CNAME: what distinguishes one set from another.
AddressSet = tuple[tuple[str, ...], str | None]
# Unix seconds. A set that an override keeps does not become stale.
NEVER = 2**62
PINNED = "pinned"


@dataclass(frozen=True, slots=True)
class Origin:
    """The snapshot that a set comes from. ``key_id`` signed it; times are Unix seconds."""

    issuer: str
    serial: int
    issued_at: int
    expires_at: int
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """A set of addresses that a helper stated for a name, or that an operator gave it."""

    learned: LearnedName
    snapshot: Origin

    @property
    def address_set(self) -> AddressSet:
        """What is answered with it."""
        return self.learned.addresses, self.learned.cname

    def with_addresses(self, addresses: tuple[str, ...]) -> Statement:
        """Return this statement with ``addresses`` only."""
        if addresses == self.learned.addresses:
            return self
        return Statement(replace(self.learned, addresses=addresses), self.snapshot)

    def confirmed(self, observed_at: int, wall_now: float) -> Statement:
        """Return this statement as one that a helper last confirmed at ``observed_at`` (Unix seconds).

        After a clock was set back, both it and the snapshot are no later than ``wall_now``.
        """
        learned, snapshot, now = self.learned, self.snapshot, int(wall_now)
        observed_at = min(observed_at, now)
        if observed_at != learned.observed_at:
            learned = replace(learned, observed_at=observed_at)
        if snapshot.issued_at > now:
            expires_at = snapshot.expires_at + now - snapshot.issued_at
            snapshot = replace(snapshot, issued_at=now, expires_at=expires_at)
        return self if learned is self.learned and snapshot is self.snapshot else Statement(learned, snapshot)


@dataclass(frozen=True)
class ServedTable:
    """What is answered: the set of each name in ``managed`` that has one.

    ``serial`` is the highest serial accepted, 0 before the first snapshot; ``discovered`` are the roles
    (registry and role) whose names have been discovered, or found not to be needed. Unchanged statements are
    the same objects as in the table before.
    """

    managed: tuple[Wanted, ...] = ()
    sets: Mapping[str, Statement] = field(default_factory=dict)
    serial: int = 0
    discovered: frozenset[tuple[str, str]] = frozenset()

    @cached_property
    def by_name(self) -> dict[str, Wanted]:
        """The managed names by name."""
        return {entry.name: entry for entry in self.managed}

    def managing(self, names: Iterable[Wanted]) -> ServedTable:
        """Return this table with ``names`` managed as well; they take the place of those of the same name."""
        managed = {entry.name: entry for entry in (*self.managed, *names)}
        return replace(self, managed=tuple(managed.values()))


def pinned(name: str, addresses: tuple[str, ...], since: int) -> Statement:
    """Return the set that an operator gave ``name`` at ``since`` (Unix seconds)."""
    learned = LearnedName(name, "other", PINNED, addresses, None, 0, since, (), "ok")
    return Statement(learned, Origin(PINNED, since * 1000, since, NEVER))


def kept(statement: Statement) -> Statement:
    """Return ``statement`` as one that does not become stale."""
    return Statement(statement.learned, replace(statement.snapshot, expires_at=NEVER))
