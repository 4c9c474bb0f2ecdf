"""What the verifier holds of one name, and which of its sets is answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from dnsproxy.core.book import Entry
from dnsproxy.core.health import Health, Outcome, Result


@dataclass(frozen=True, slots=True)
class Policy:
    """How to probe, and what follows. No ``ports`` at all: every address counts as alive.

    ``own_ports`` are those of names that have their own. With ``accept`` a changed set is answered
    before it is proven. ``interval`` and ``max_stale`` are seconds.
    """

    ports: tuple[int, ...] = (443,)
    tls: bool = True
    accept: bool = False
    interval: float = 30.0
    max_stale: float = float("inf")
    own_ports: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def ports_of(self, name: str) -> tuple[int, ...]:
        """Return the ports that ``name`` must answer on."""
        return self.own_ports.get(name, self.ports)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is answered for a name: ``addresses``, some or all of those of ``entry``."""

    entry: Entry
    addresses: tuple[str, ...]

    def as_entry(self) -> Entry:
        """Return the entry with these addresses only."""
        if self.addresses == self.entry.learned.addresses:
            return self.entry
        return Entry(replace(self.entry.learned, addresses=self.addresses), self.entry.snapshot)


@dataclass(frozen=True, slots=True)
class Tryout:
    """The newest set of a name is on trial. With ``leads`` all are answered with it as long as it lives.

    ``answered`` are members that lived when they were last seen.
    """

    leads: bool = False
    answered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AddressState:
    """One address of a name. ``alive`` is None while nobody can tell; ``reason`` is for people, or None.

    ``checked_at`` and ``since`` are as in `Health`.
    """

    address: str
    serving: bool
    alive: bool | None
    reason: str | None
    result: Result | None
    checked_at: float | None
    since: float | None = None


@dataclass(slots=True)
class Held:
    """One name: its newest and its proven set, what is answered, and how each address is.

    ``fixed`` are addresses that an operator gave. ``tried`` is what the newest set is answered with where it
    is on trial and lives.
    """

    newest: Entry | None = None
    proven: Entry | None = None
    fixed: tuple[str, ...] = ()
    choice: Choice | None = None
    tryout: Tryout | None = None
    tried: Choice | None = None
    health: dict[str, Health] = field(default_factory=dict)

    def addresses(self) -> dict[str, None]:
        """Return what is to be probed, in order, each once."""
        if self.fixed:
            return dict.fromkeys(self.fixed)
        sets = (entry.learned.addresses for entry in (self.newest, self.proven) if entry is not None)
        return dict.fromkeys(address for members in sets for address in members)

    def living(self, entry: Entry) -> tuple[str, ...]:
        """Return the members of ``entry`` that live."""
        return tuple(a for a in entry.learned.addresses if (held := self.health.get(a)) and held.alive)

    def beyond(self) -> frozenset[str]:
        """Return members of the newest set whose whole family this host has no route to.

        That is none without a member that lives: then the set is what this host cannot use.
        """
        if self.newest is None or not self.living(self.newest):
            return frozenset()
        families = {_is_ipv6(address) for address, health in self.health.items() if health.alive}
        return frozenset(
            address
            for address in self.newest.learned.addresses
            if _is_ipv6(address) not in families
            and (health := self.health.get(address)) is not None
            and health.result is not None
            and health.result.outcome is Outcome.NO_ROUTE
        )

    def choose(self, policy: Policy, wall_now: float) -> bool:
        """Decide what is answered; return whether that, or what is kept for a restart, has changed."""
        before, was_confirmed = (_set_of(self.choice), _set_of(self.tried)), self.proven is self.newest
        newest, proven = self.newest, self.proven
        works = proven is not None and bool(self.living(proven)) and not _is_gone(policy, proven, wall_now)
        living = self.living(newest) if newest is not None else ()
        is_tried = self.tryout is not None and works and proven is not newest
        if newest is not None and not is_tried and (living or policy.accept):
            proven = self.proven = newest
            works = bool(living) and not _is_gone(policy, newest, wall_now)
        entry = proven if works else newest or proven
        self.choice = None if entry is None else Choice(entry, self.living(entry) or entry.learned.addresses)
        self.tried = Choice(newest, living) if newest is not None and is_tried and living else None
        if self.tried is not None and self.tryout is not None and self.tryout.leads:
            self.choice = self.tried
        after = _set_of(self.choice), _set_of(self.tried)
        return before != after or was_confirmed != (self.proven is self.newest)

    def states(self) -> Iterator[AddressState]:
        """Yield what is known of each address, those of the newest set first."""
        serving = self.fixed or (self.choice.addresses if self.choice else ())
        for address in self.addresses():
            health = self.health[address]
            is_served = address in serving
            reason = _reason(health, is_served=is_served)
            yield AddressState(
                address, is_served, health.alive, reason, health.result, health.checked_at, health.since
            )


def same_set(one: Entry, other: Entry) -> bool:
    """Tell whether both answer with the same addresses, through the same CNAME."""
    return (one.learned.addresses, one.learned.cname) == (other.learned.addresses, other.learned.cname)


def _is_ipv6(address: str) -> bool:
    return ":" in address


def _is_gone(policy: Policy, entry: Entry, wall_now: float) -> bool:
    return wall_now >= entry.snapshot.expires_at + policy.max_stale


def _reason(health: Health, *, is_served: bool) -> str | None:
    if health.result is not None and health.result.outcome is not Outcome.ANSWERED:
        return health.result.complaint
    if is_served:
        return None
    return "not probed yet" if health.alive is None else "not in the set that is answered"


def _set_of(choice: Choice | None) -> tuple[tuple[str, ...], str | None] | None:
    return None if choice is None else (choice.addresses, choice.entry.learned.cname)
