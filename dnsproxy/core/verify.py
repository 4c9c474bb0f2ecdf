"""Which of the learned addresses are answered: those that work, as far as this host can tell.

Stands between the book (what helpers said) and the rules (what is answered), and
does no I/O: it hands out probes and is told how they ended. Per name it keeps the
*newest* set that was learned and the last set that was *proven*:

- the first set ever is answered at once, for there is nothing better, and probed;
- a later set is answered as soon as one of its members has answered a probe, and
  until then not while a member of the proven set lives;
- of the set in service the members that live are answered; when none does, the
  whole newest set is. What is answered is never empty because of a probe;
- a set that is *on trial* (`core.canary`) does not replace a proven one that lives.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping

from dnsproxy.core.book import Entry
from dnsproxy.core.health import Health, Outcome, Probe, Result, Sign
from dnsproxy.core.holding import AddressState, Choice, Held, Policy, Tryout, same_set

# Stands for any one name below a wildcard: a certificate that is good for all of them is good for this one.
_BELOW_WILDCARD = "dnsproxy-probe"
# Probes at one time. Each holds a file descriptor and, with TLS, some 50 kB, for 2 s at most by default.
MAX_IN_FLIGHT = 16


class Verifier:
    """The names under ``policy``. ``now`` is monotonic, ``wall_now`` Unix time, both in seconds."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._names: dict[str, Held] = {}
        # Names with an address that was dead when this process started.
        self._dead_before: set[tuple[str, str]] = set()
        # Due time, name, address; an item whose address has another due time by now is passed over.
        self._queue: list[tuple[float, str, str]] = []
        self._in_flight = 0
        self._answered_at = float("-inf")

    # -- what was learned -----------------------------------------------------------

    def restore(self, proven: Mapping[str, Entry], dead: Mapping[str, tuple[str, ...]]) -> None:
        """Take up what was in service before this process started, and what was held back."""
        for name, entry in proven.items():
            self._names.setdefault(name, Held()).proven = entry
        self._dead_before = {(name, address) for name, listed in dead.items() for address in listed}

    def take_over(self, earlier: Verifier, now: float) -> None:
        """Go on from what ``earlier`` knows, whose probes under way have been given up.

        Where it tested otherwise only what it had proven, and what was dead, says anything.
        """
        mine, theirs = self._policy, earlier._policy
        if (mine.ports, mine.tls, mine.own_ports) != (theirs.ports, theirs.tls, theirs.own_ports):
            self.restore(earlier.proven(), earlier.held_back())
            return
        self._names, self._dead_before = earlier._names, earlier._dead_before
        self._answered_at = earlier._answered_at
        for name, held in self._names.items():
            for address, health in held.health.items():
                if health.in_flight:
                    health.in_flight, health.due = False, now
                self._schedule(name, address, health)

    def adopt(self, entries: Mapping[str, Entry]) -> None:
        """Count ``entries`` as proven: the operator says so."""
        for name, entry in entries.items():
            held = self._names.setdefault(name, Held())
            held.newest = held.proven = entry

    def forget(self, names: Iterable[str]) -> None:
        """Drop ``names``: they are not owned any more."""
        for name in names:
            self._names.pop(name, None)

    def names(self) -> list[str]:
        """Return the names that are known here."""
        return list(self._names)

    def take(
        self,
        entries: Mapping[str, Entry],
        fixed: Mapping[str, tuple[str, ...]],
        now: float,
        wall_now: float,
        tryouts: Mapping[str, Tryout] | None = None,
    ) -> None:
        """Take the newest set of each name, and the addresses that are ``fixed`` by the operator.

        A name without an entry keeps what was proven. Fixed addresses are probed so that their state
        can be told, and the name's learned ones are not. ``tryouts`` are the names whose newest set is on
        trial.
        """
        for name in dict.fromkeys((*entries, *fixed, *self._names)):
            held = self._names.setdefault(name, Held())
            held.tryout = tryouts.get(name) if tryouts else None
            held.fixed = fixed.get(name, ())
            held.newest = entry = entries.get(name)
            if entry is not None and (held.proven is None or same_set(entry, held.proven)):
                held.proven = entry
            if held.proven is None and not held.fixed:
                del self._names[name]
                continue
            self._watch(name, held, now)
            held.choose(self._policy, wall_now)

    def _watch(self, name: str, held: Held, now: float) -> None:
        wanted = held.addresses()
        trusted = set(held.fixed) | set(held.proven.learned.addresses if held.proven else ())
        trusted |= held.tryout.answered if held.tryout else frozenset()
        believing = self._policy.accept or not self._policy.ports_of(name)
        gone = [address for address in held.health if address not in wanted]
        for address in gone:
            del held.health[address]
        for address in wanted:
            if address not in held.health:
                alive = True if believing or address in trusted else None
                if (name, address) in self._dead_before and self._policy.ports_of(name):
                    alive = False  # until a probe, which is due at once, tells otherwise
                self._dead_before.discard((name, address))
                held.health[address] = Health(alive, now)
                self._schedule(name, address, held.health[address])

    # -- probes ---------------------------------------------------------------------

    def _schedule(self, name: str, address: str, health: Health) -> None:
        if self._policy.ports_of(name):
            heapq.heappush(self._queue, (health.due, name, address))

    def next_probes(self, now: float) -> list[Probe]:
        """Return the probes to start now; the end of each must be given to `record`."""
        probes = []
        while self._in_flight < MAX_IN_FLIGHT and (item := self._first()) is not None and item[0] <= now:
            _, name, address = heapq.heappop(self._queue)
            self._names[name].health[address].in_flight = True
            self._in_flight += 1
            server_name = _server_name(name) if self._policy.tls else None
            probes.append(Probe(name, address, self._policy.ports_of(name), server_name))
        return probes

    def next_time(self) -> float | None:
        """Return when `next_probes` has something again; None while it waits for ends, or has none at all."""
        item = self._first()
        return item[0] if item is not None and self._in_flight < MAX_IN_FLIGHT else None

    def _first(self) -> tuple[float, str, str] | None:
        while self._queue:
            due, name, address = item = self._queue[0]
            health = self._names[name].health.get(address) if name in self._names else None
            if health is not None and not health.in_flight and health.due == due:
                return item
            heapq.heappop(self._queue)
        return None

    def record(self, probe: Probe, result: Result, now: float, wall_now: float) -> bool:
        """Take the end of a probe; return whether something else is answered, or kept, from now on."""
        self._in_flight -= 1
        held = self._names.get(probe.name)
        health = held.health.get(probe.address) if held is not None else None
        if held is None or health is None or not health.in_flight:
            return False  # the address is not of interest any more
        if result.outcome is Outcome.ANSWERED:
            self._answered_at = now
        health.record(result, now, wall_now, answered_at=self._answered_at, interval=self._policy.interval)
        self._schedule(probe.name, probe.address, health)
        changed = held.choose(self._policy, wall_now)
        self._watch(probe.name, held, now)  # a set that has been replaced is not probed any more
        return changed

    # -- what is answered -----------------------------------------------------------

    def is_alive(self, name: str, address: str) -> bool | None:
        """Tell whether an address of ``name`` lives; None when nobody can tell or it is not of interest."""
        held = self._names.get(name)
        health = held.health.get(address) if held is not None else None
        return health.alive if health is not None else None

    def choices(self) -> dict[str, Choice]:
        """Return what is answered for each learned name."""
        return {name: held.choice for name, held in self._names.items() if held.choice is not None}

    def tried(self) -> dict[str, Choice]:
        """Return of each set on trial what it would be answered with, if it lives."""
        return {name: held.tried for name, held in self._names.items() if held.tried is not None}

    def newest(self, name: str) -> Entry | None:
        """Return the newest set of ``name``."""
        held = self._names.get(name)
        return held.newest if held is not None else None

    def stable(self, name: str) -> Entry | None:
        """Return the proven set of ``name``."""
        held = self._names.get(name)
        return held.proven if held is not None else None

    def signs(self, name: str, addresses: Iterable[str]) -> dict[str, Sign]:
        """Return what is known of those of ``addresses`` that are probed for ``name``."""
        held = self._names.get(name)
        return {a: held.health[a].sign for a in addresses if a in held.health} if held is not None else {}

    def beyond(self, name: str) -> frozenset[str]:
        """Return what of the newest set of ``name`` tells nothing about it: see `Held.beyond`."""
        held = self._names.get(name)
        return held.beyond() if held is not None else frozenset()

    def works(self, name: str) -> bool:
        """Tell whether the proven set of ``name`` does, as far as probes tell."""
        held = self._names.get(name)
        return held is not None and held.proven is not None and bool(held.living(held.proven))

    def unconfirmed(self) -> dict[str, Entry]:
        """Return the proven sets that are not the newest: those that nobody would tell us again."""
        return {
            name: held.proven
            for name, held in self._names.items()
            if held.proven is not None and held.proven is not held.newest
        }

    def proven(self) -> dict[str, Entry]:
        """Return the proven set of each name."""
        return {name: held.proven for name, held in self._names.items() if held.proven is not None}

    def held_back(self) -> dict[str, tuple[str, ...]]:
        """Return the members of each set in service that are left out of the answers."""
        left_out = {
            name: tuple(a for a in choice.entry.learned.addresses if a not in choice.addresses)
            for name, choice in self.choices().items()
        }
        return {name: addresses for name, addresses in left_out.items() if addresses}

    def states(self, name: str) -> Iterator[AddressState]:
        """Yield what is known of each address of ``name``, those of the newest set first."""
        held = self._names.get(name)
        if held is not None:
            yield from held.states()


def _server_name(name: str) -> str:
    """Return what to ask a certificate for, without the last dot."""
    plain = name.removesuffix(".")
    return f"{_BELOW_WILDCARD}{plain[1:]}" if plain.startswith("*.") else plain
