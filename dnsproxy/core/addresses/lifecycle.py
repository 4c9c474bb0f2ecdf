"""The life cycle of learned addresses: one state machine, whose state is kept on disk as one file.

Inputs: accepted snapshots, results of probes, commands of an operator, another policy, time. Outputs: what is
answered (`take_changes`), the probes to run (`next_probes`), whether the file is out of date (`revision`,
`urgent`), events to log (`take_events`). Names do not depend on each other, so an input only queues the names
that it concerns, and `settle` evaluates them in slices: queries are answered between two slices.

The states of a name, and the events between them, are in docs/concepts.md.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice, zip_longest

from dnsproxy.core.addresses.canary import CanaryView, Trial, TrialOutcome, next_end, rolled_back
from dnsproxy.core.addresses.filter import Finding, is_routed, usable_part
from dnsproxy.core.addresses.health import Outcome, Probe, Result, server_name
from dnsproxy.core.addresses.name_state import (
    AddressPolicy,
    AddressState,
    EventBuffer,
    NameState,
    Stated,
    log_rolled_back,
)
from dnsproxy.core.addresses.overrides import (
    Freeze,
    Overrides,
    Pin,
    canonical_name,
    fixed_addresses,
    recorded,
)
from dnsproxy.core.addresses.table import PINNED, Origin, ServedTable, Statement, pinned
from dnsproxy.core.learned import LearnedName, Snapshot
from dnsproxy.core.memory import snapshots_limit
from dnsproxy.core.registry import MAX_FOUND, Found, Wanted, subjects, with_found
from dnsproxy.errors import OrderError

# Seconds. A discovery that its helper could not confirm for a day no longer counts once another helper
# reports the role; until then both count, since two zones may be shown different names.
DISCOVERY_LIFETIME = 86_400
# Helpers whose last snapshot is kept. A key may sign for any number of helper names.
MAX_ISSUERS = 64
# Bytes of what a name costs with one helper, and each of its addresses: the statement, the health.
NAME_COST, ADDRESS_COST = 400, 320
# Probes at one time. Each holds a descriptor and, with TLS, some 50 kB, for 2 s at most by default.
MAX_PROBES = 16
# Names in one event.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class OpenedSnapshot:
    """A verified snapshot, reduced to what is in scope here; ``token`` is its signed form."""

    snapshot: Snapshot
    key_id: str
    token: str

    # Bytes of memory that it takes, with what is known of its addresses: counted once, as names are many.
    cost: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        known = NAME_COST * len(self.snapshot.names) + ADDRESS_COST * self.snapshot.address_count
        object.__setattr__(self, "cost", len(self.token) + known)

    @property
    def origin(self) -> Origin:
        """What its statements refer to."""
        s = self.snapshot
        return Origin(s.issuer, s.serial, s.issued_at, s.expires_at, self.key_id)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one helper reports about one role of a registry, and the snapshot that says so."""

    found: Found
    snapshot: Origin


class AddressLifecycle:
    """The state of all names. ``now`` is monotonic, ``wall_now`` Unix time, both in seconds."""

    def __init__(self, policy: AddressPolicy) -> None:
        self.policy = policy
        # The state: the last snapshot of each helper, in the order of acceptance; what helpers discovered, by
        # helper, registry and role; each name; the commands in force and the history.
        self.snapshots: dict[str, OpenedSnapshot] = {}
        self.discoveries: dict[tuple[str, str, str], Discovery] = {}
        self.names: dict[str, NameState] = {}
        self.overrides = Overrides()
        # Grows with each change of the state; ``urgent`` with each change of more than ages and expiry.
        self.revision = 0
        self.urgent = 0
        # Counters for metrics: trials that ended, and addresses that became refused, by reason.
        self.outcomes: Counter[TrialOutcome] = Counter()
        self.refused: Counter[str] = Counter()
        self._log = EventBuffer()
        self._managed: dict[str, Wanted] = {}
        # Work for `settle`: statements to take, then names to evaluate, each queued once.
        self._statements: deque[tuple[LearnedName, Origin]] = deque()
        self._queue: deque[str] = deque()
        self._queued: set[str] = set()
        # What follows from the state, by name: the owner's statement, what is answered, what changed since
        # `take_changes` (the addresses before), what decides whether the file is out of date.
        self._owned: dict[str, Statement] = {}
        self._served: dict[str, Statement] = {}
        self._changes: dict[str, tuple[str, ...] | None] = {}
        self._fingerprints: dict[str, object] = {}
        self._on_trial: set[str] = set()
        self._accepted: Origin | None = None
        self._restated: dict[str, tuple[str, ...]] = {}
        self._is_unrecorded = False
        self._derived: set[str] | None = None
        # Names of these whose owner the file does not tell.
        self._unowned: set[str] = set()
        # Names and records that another policy has not been applied to, and whether it probes in another way.
        self._reconfigured: set[str] = set()
        self._unrestricted: deque[int] = deque()
        self._reprobed = False
        # Probes: due time, name, address. An item whose address is due at another time is skipped.
        self._probes: list[tuple[float, str, str]] = []
        self._in_flight = 0
        self._answered_at = float("-inf")
        self._manage()

    # -- input: snapshots -----------------------------------------------------------------

    def accept(self, opened: OpenedSnapshot) -> None:
        """Take a snapshot that `learned.judge` has accepted."""
        self._take(opened)
        self._manage()
        self._accepted = opened.origin
        self.revision += 1

    def _take(self, opened: OpenedSnapshot) -> None:
        snapshot, origin = opened.snapshot, opened.origin
        self.snapshots.pop(snapshot.issuer, None)
        self.snapshots[snapshot.issuer] = opened
        if len(self.snapshots) > MAX_ISSUERS:
            self._forget_issuer(next(iter(self.snapshots)))
        limit = snapshots_limit(len(self._managed))
        while sum(held.cost for held in self.snapshots.values()) > limit and len(self.snapshots) > 1:
            # The largest of the others: a stolen key can sign very many addresses.
            others = list(self.snapshots.values())[:-1]
            self._forget_issuer(max(others, key=lambda held: held.cost).snapshot.issuer)
        if snapshot.found:
            reported = {(origin.issuer, *entry.subject): Discovery(entry, origin) for entry in snapshot.found}
            views = Counter((registry, role) for _, registry, role in self.discoveries)
            # A helper that has seen no evidence yet reports no name, observed at 0: that withdraws none.
            # Those that have reported a role keep their place: a stolen key can sign for many helpers.
            known = {
                key: discovery
                for key, discovery in reported.items()
                if (discovery.found.observed_at if key in self.discoveries else views[key[1:]] < MAX_ISSUERS)
            }
            before = {key: d.found.names for key, d in self.discoveries.items()}
            self.discoveries = _current({**self.discoveries, **known})
            if before != {key: d.found.names for key, d in self.discoveries.items()}:
                self._note_change()
        self._statements.extend((learned, origin) for learned in snapshot.names if learned.addresses)

    def _forget_issuer(self, issuer: str) -> None:
        del self.snapshots[issuer]
        for name, state in self.names.items():
            if state.stated.pop(issuer, None) is not None:
                self._enqueue(name)

    def _manage(self) -> None:
        """Bring the managed names up to date, and drop the state of the others."""
        managed = {entry.name: entry for entry in with_found(self.policy.managed, self.discovered())}
        if managed == self._managed and self.names.keys() | self._owned.keys() <= managed.keys():
            return
        self._managed = managed
        for name in [name for name in self.names if name not in managed]:
            del self.names[name]
            self._fingerprints.pop(name, None)
            self._on_trial.discard(name)
            self._serve(name, None)
        for name in [name for name in self._owned if name not in managed]:
            self._own(name, None)
        freeze = self.overrides.freeze
        if freeze is not None and not freeze.sets.keys() <= managed.keys():
            self._keep({name: held for name, held in freeze.sets.items() if name in managed})
        for name, entry in managed.items():
            if name in self.names or entry.addresses or name in self.overrides.pins:
                self._enqueue(name)
        self._note_change()

    @property
    def managed_by_name(self) -> Mapping[str, Wanted]:
        """The managed names by name; another object after each change."""
        return self._managed

    def managed(self) -> list[Wanted]:
        """Return every managed name: the configured ones, then the discovered ones."""
        return list(self._managed.values())

    def discovered(self) -> list[Found]:
        """Return each discovered role, the views of all helpers united.

        At most as many names as one helper may report: a stolen key can sign for many helpers.
        """
        views: dict[tuple[str, str], list[Found]] = {}
        for _, discovery in sorted(self.discoveries.items()):
            views.setdefault(discovery.found.subject, []).append(discovery.found)
        united = []
        for (registry, role), found in views.items():
            # One of each helper in turn, so that no helper can displace all names of another one.
            in_turn = chain.from_iterable(zip_longest(*(view.names for view in found)))
            names = tuple(dict.fromkeys(filter(None, in_turn)))
            united.append(Found(registry, role, names[:MAX_FOUND], max(view.observed_at for view in found)))
        return united

    # -- input: another policy ----------------------------------------------------------------

    def configure(self, policy: AddressPolicy, opened: Iterable[OpenedSnapshot]) -> None:
        """Go by ``policy``; ``opened`` are ``snapshots``, verified again by its keys and for its names.

        What ``policy`` permits stays as it is. A state that was read from disk is treated in the same way.
        """
        before, self.policy = self.policy, policy
        opened = list(opened)
        issuers = {entry.snapshot.issuer for entry in opened}
        self.snapshots = {issuer: held for issuer, held in self.snapshots.items() if issuer in issuers}
        self.discoveries = {
            key: Discovery(replace(discovery.found, names=names), discovery.snapshot)
            for key, discovery in self.discoveries.items()
            if policy.permits(discovery.snapshot, discovery.found.registry)
            and (names := policy.discoverable(discovery.found)) is not None
        }
        for entry in opened:
            self._take(entry)
        self._manage()
        self._reconfigured = {*self._reconfigured, *self._managed}
        history = self.overrides.history[-policy.history :] if policy.history else ()
        self.overrides = replace(self.overrides, history=history)
        self._is_unrecorded |= not policy.history
        self._unrestricted = deque(record.serial for record in history)
        self._reprobed |= before.probing != policy.probing
        self._enqueue_all()
        self._note_change()

    def restore(self, names: dict[str, NameState], derived: set[str] | None, overrides: Overrides) -> None:
        """Take a state that was read; `configure` has to follow.

        The proven set of ``derived`` and of names that are not in ``names`` is the owner's in the snapshots;
        with None such a name has none.
        """
        self.names, self._derived, self.overrides = names, derived, overrides
        self._owned = dict(overrides.history[-1].sets) if overrides.history else {}

    def _restrict(self, name: str, now: float, wall_now: float) -> None:
        """Drop from one name what the policy forbids."""
        freeze, owned, registry = self.overrides.freeze, self._owned.get(name), self._managed[name].registry
        if owned is not None and not self.policy.permits(owned.snapshot, registry):
            self._own(name, None)
        state = self.names.get(name)
        if state is not None:
            state.registry = registry
            state.stated = {
                issuer: self._filtered(state, stated.statement)
                for issuer, stated in state.stated.items()
                if issuer in self.snapshots and self.policy.permits(stated.statement.snapshot, registry)
            }
            state.proven = self._permitted(name, state.proven, wall_now) if state.proven is not None else None
            is_probed = bool(self.policy.ports_of(name))
            for health in state.health.values() if self._reprobed or not is_probed else ():
                health.restart(now, is_probed=is_probed)
        if freeze is not None and name in freeze.sets:
            left = self._permitted(name, freeze.sets[name], wall_now)
            if left is not None and state is not None and state.confirmed is not None:
                state.confirmed = left.address_set, state.confirmed[1]
            if left is not freeze.sets[name]:
                rest = {other: held for other, held in freeze.sets.items() if other != name}
                self._keep(rest if left is None else {**rest, name: left})

    def _permitted(self, name: str, statement: Statement, wall_now: float) -> Statement | None:
        """Return what of a set that is kept may still be answered; None if nothing."""
        registry = self._managed[name].registry
        usable, _ = usable_part(statement, self.policy.limits.of(name, registry))
        if usable is None or self.policy.permits(statement.snapshot, registry):
            return usable
        stated = self.names[name].usable(self.policy, wall_now) if name in self.names else ()
        same = next((s for s in stated if s.address_set == usable.address_set), None)
        return same and same.confirmed(max(s.learned.observed_at for s in (same, usable)), wall_now)

    def _restrict_record(self, serial: int, wall_now: float) -> None:
        """Drop recorded sets that the policy forbids; a record keeps refused addresses."""
        record = self.overrides.find(serial)
        if record is None:
            return
        left = {name: self._recorded(name, held, wall_now) for name, held in record.sets.items()}
        sets = {name: held for name, held in left.items() if held is not None}
        if sets != record.sets:
            other = replace(record, sets=sets)
            history = tuple(other if held is record else held for held in self.overrides.history)
            self.overrides = replace(self.overrides, history=history)

    def _recorded(self, name: str, statement: Statement, wall_now: float) -> Statement | None:
        """Return a recorded set that a trusted key signed; None without one."""
        registry = self._managed[name].registry if name in self._managed else statement.learned.registry
        if self.policy.permits(statement.snapshot, registry):
            return statement
        same = self._permitted(name, statement, wall_now) if name in self._managed else None
        return same and Statement(statement.learned, same.snapshot)

    # -- work ---------------------------------------------------------------------------------

    def settle(self, limit: int, now: float, wall_now: float) -> bool:
        """Take statements and evaluate names, ``limit`` of both; return True when nothing was left to do."""
        if not (self._statements or self._queue):
            return self._complete(wall_now)
        for _ in range(limit):
            if self._statements:
                self._state(*self._statements.popleft())
            elif self._queue:
                name = self._queue.popleft()
                self._queued.discard(name)
                self._evaluate(name, now, wall_now)
            else:
                break
        return False

    def _complete(self, wall_now: float) -> bool:
        """Do one part of what concerns all names; return True when nothing was left to do."""
        if self._unrestricted:
            self._restrict_record(self._unrestricted.popleft(), wall_now)
            return False
        self._derived, self._reprobed = None, False
        self._unowned.clear()
        accepted, self._accepted = self._accepted, None
        if accepted is None:
            self._restated.clear()
            return True
        self._log_restated(accepted)
        if self._is_unrecorded and self.policy.history:
            self._is_unrecorded = False
            sets, limit = dict(self._owned), self.policy.history
            history = recorded(self.overrides.history, sets, accepted, limit, wall_now)
            self.overrides = replace(self.overrides, history=history)
            self._note_change()
        return False

    def _state(self, learned: LearnedName, origin: Origin) -> None:
        entry = self._managed.get(learned.name)
        if entry is None or not self.policy.permits(origin, entry.registry):
            return
        state = self.names.get(learned.name)
        # A file lacks what its snapshots have, also of a name that the configuration pins since.
        is_read = self._derived is not None and (state is None or origin.issuer not in state.stated)
        if entry.addresses and not is_read:
            return
        if state is None:
            state = self.names[learned.name] = NameState(learned.name, entry.registry)
            if self._derived is not None:
                self._derived.add(learned.name)
        before = state.stated.get(origin.issuer)
        statement = Statement(learned, origin)
        if before is not None and before.statement.address_set == statement.address_set:
            usable = before.usable and statement.with_addresses(before.usable.learned.addresses)
            state.stated[origin.issuer] = Stated(statement, usable, before.refused)
        else:
            refused = state.refused()
            state.stated[origin.issuer] = self._filtered(state, statement)
            self._log_refused(learned.name, refused, state.refused())
        if self._derived and learned.name in self._derived:
            state.derive(origin.issuer, self._unowned, self._owned)
        self._enqueue(learned.name)

    def _filtered(self, state: NameState, statement: Statement) -> Stated:
        usable, refused = usable_part(statement, self.policy.limits.of(state.name, state.registry))
        return Stated(statement, usable, refused)

    def _own(self, name: str, statement: Statement | None) -> None:
        """Take note of the owner's statement of a name."""
        before = self._owned.pop(name, None)
        if statement is not None:
            self._owned[name] = statement
        if statement is None or before is None or before.address_set != statement.address_set:
            self._restated.setdefault(name, before.learned.addresses if before is not None else ())
            self._is_unrecorded = True

    def _log_restated(self, accepted: Origin) -> None:
        log, self._restated, restated = self._log, {}, self._restated
        changed = {name: (old, _addresses(self._owned.get(name))) for name, old in restated.items()}
        changed = {name: sets for name, sets in changed.items() if sets[0] != sets[1]}
        if changed:
            fields = {"issuer": accepted.issuer, "serial": accepted.serial, "changed": len(changed)}
            log.info("learned.swapped", **fields, changes=_shown(changed))

    def _log_refused(self, name: str, before: tuple[Finding, ...], after: tuple[Finding, ...]) -> None:
        log = self._log
        if after == before:
            return
        self.refused.update(finding.reason.value for finding in after if finding not in before)
        if after:
            reasons = {finding.address: finding.reason.value for finding in after[:SHOWN]}
            log.warning("learned.refused", name=name, count=len(after), addresses=reasons)
        else:
            log.info("learned.refused_no_more", name=name)

    def _enqueue(self, name: str) -> None:
        if name not in self._queued:
            self._queued.add(name)
            self._queue.append(name)

    def _enqueue_all(self) -> None:
        for name in self._managed:
            self._enqueue(name)

    def _note_change(self) -> None:
        self.revision += 1
        self.urgent += 1

    def _evaluate(self, name: str, now: float, wall_now: float) -> None:
        entry = self._managed.get(name)
        if entry is None:
            return
        state = self.names.get(name)
        before = state.ages() if state is not None else None
        if name in self._reconfigured:
            self._reconfigured.discard(name)
            self._restrict(name, now, wall_now)
        overrides = self._overrides_of(entry)
        if state is None:
            if not overrides and not entry.addresses:
                return  # nothing is known
            state = self.names[name] = NameState(name, entry.registry)
            before = state.ages()
        held: tuple[str, ...] | None = None
        if overrides or entry.addresses or self.overrides.freeze is not None:
            held = (*entry.addresses, *(a for override in overrides for a in override.learned.addresses))
        outcome = state.evaluate(self.policy, held, now, wall_now, self._log)
        if outcome is not None:
            self.outcomes[outcome] += 1
        own = state.stated.get(state.owner or "")
        if own is not None:
            self._own(name, own.statement)
        (self._on_trial.add if state.trial is not None else self._on_trial.discard)(name)
        freeze = self.overrides.freeze
        if freeze is not None and name not in freeze.sets and not entry.addresses:
            overrides += self._keep_first(state, wall_now)
        self._serve(name, self._answer(state, overrides, wall_now))
        fingerprint = state.fingerprint()
        if self._fingerprints.get(name) != fingerprint:
            self._fingerprints[name] = fingerprint
            self._note_change()
        self.revision += state.ages() != before  # also without a snapshot: when the clock was set back
        self._schedule(name)

    def _schedule(self, name: str) -> None:
        if self.policy.ports_of(name):
            for address, health in self.names[name].health.items():
                if health.probe is None and health.queued != health.due:
                    health.queued = health.due
                    heapq.heappush(self._probes, (health.due, name, address))

    def _overrides_of(self, entry: Wanted) -> list[Statement]:
        """Return the sets that commands put in place of the answer; the first one counts."""
        pin, freeze = self.overrides.pins.get(entry.name), self.overrides.freeze
        if entry.addresses:
            return []
        held = freeze.sets.get(entry.name) if freeze is not None else None
        by_pin = [pinned(entry.name, pin.addresses, pin.since)] if pin is not None else []
        return by_pin + ([held] if held is not None else [])

    def _keep_first(self, state: NameState, wall_now: float) -> list[Statement]:
        """Keep the first set that a frozen name has."""
        freeze, whole = self.overrides.freeze, state.whole
        if freeze is None or whole is None or self.policy.is_gone(whole, wall_now):
            return []
        self._keep({**freeze.sets, state.name: whole})
        return [whole]

    def _keep(self, sets: Mapping[str, Statement]) -> None:
        freeze = self.overrides.freeze
        if freeze is not None:
            self.overrides = replace(self.overrides, freeze=replace(freeze, sets=sets))
            self._note_change()

    def _answer(self, state: NameState, overrides: list[Statement], wall_now: float) -> Statement | None:
        held = [state.keep(s, self.policy, wall_now) for s in overrides if s.snapshot.issuer != PINNED]
        if not held:
            state.confirmed = None
        if state.name in self.overrides.pins:
            return overrides[0]
        return held[0] if held else state.answer

    def _serve(self, name: str, statement: Statement | None) -> None:
        before = self._served.get(name)
        if statement == before:
            return
        self._changes.setdefault(name, before.learned.addresses if before is not None else None)
        if statement is None:
            del self._served[name]
        else:
            self._served[name] = statement

    # -- input: probes and time ---------------------------------------------------------------

    def next_probes(self, now: float) -> list[Probe]:
        """Return the probes to start now; the result of each must be given to `record`."""
        probes = []
        while self._in_flight < MAX_PROBES and (item := self._first()) is not None and item[0] <= now:
            _, name, address = heapq.heappop(self._probes)
            shown = server_name(name) if self.policy.tls else None
            probe = Probe(name, address, self.policy.ports_of(name), shown)
            health = self.names[name].health[address]
            health.probe, health.queued = probe, None
            self._in_flight += 1
            probes.append(probe)
        return probes

    def next_time(self) -> float | None:
        """Return when `next_probes` has something again (monotonic); None while it waits for results."""
        item = self._first()
        return item[0] if item is not None and self._in_flight < MAX_PROBES else None

    def _first(self) -> tuple[float, str, str] | None:
        while self._probes:
            due, name, address = item = self._probes[0]
            health = self.names[name].health.get(address) if name in self.names else None
            is_waiting = health is not None and health.probe is None and health.due == due
            if is_waiting and self.policy.ports_of(name):
                return item
            heapq.heappop(self._probes)
        return None

    def record(self, probe: Probe, result: Result, now: float, wall_now: float) -> None:
        """Take the result of a probe that `next_probes` returned."""
        log = self._log
        self._in_flight -= 1
        state = self.names.get(probe.name)
        health = state.health.get(probe.address) if state is not None else None
        if state is None or health is None or health.probe is not probe:
            return  # the address, or how it is probed, is no longer of interest
        if result.outcome is Outcome.ANSWERED:
            self._answered_at = now
        was = health.alive
        health.record(result, now, wall_now, answered_at=self._answered_at, interval=self.policy.interval)
        self._evaluate(probe.name, now, wall_now)
        if health.alive is not was:
            served = self._served.get(probe.name)
            serving = served is not None and probe.address in served.learned.addresses
            fields = {
                "name": probe.name,
                "address": probe.address,
                "serving": serving,
                "reason": result.problem,
            }
            if health.alive:
                log.info("learned.reachable", **fields)
            else:
                log.warning("learned.unreachable", **fields)

    def abandon(self, probe: Probe, now: float) -> None:
        """Take note that ``probe`` was cancelled: its address is due again."""
        self._in_flight -= 1
        state = self.names.get(probe.name)
        health = state.health.get(probe.address) if state is not None else None
        if health is not None and health.probe is probe:
            health.probe, health.due = None, now
            self._schedule(probe.name)

    def tick(self) -> None:
        """Take note that time has passed."""
        self._enqueue_all()

    def next_trial_end(self, wall_now: float) -> float | None:
        """Return the seconds until the ``hold`` of a trial is over; None when none runs."""
        canary = self.policy.canary
        return next_end(self.trials().values(), canary, wall_now) if canary is not None else None

    # -- input: commands ----------------------------------------------------------------------

    def pin(self, name: str, addresses: Iterable[str], wall_now: float) -> None:
        """Answer ``name`` with ``addresses`` only.

        Raises:
            OrderError: the name is not managed, is pinned in the configuration, or an address is not one.
        """
        managed = canonical_name(name)
        entry = self._managed.get(managed)
        if entry is None:
            raise OrderError(f"{managed} is no name of a configured registry")
        if entry.addresses:
            raise OrderError(f"{managed} is pinned in the configuration")
        pins = {**self.overrides.pins, managed: Pin(fixed_addresses(addresses), int(wall_now))}
        self._order(replace(self.overrides, pins=pins), managed)

    def unpin(self, name: str) -> None:
        """End a pin.

        Raises:
            OrderError: no command pinned the name.
        """
        managed = canonical_name(name)
        pins = {pinned: pin for pinned, pin in self.overrides.pins.items() if pinned != managed}
        if len(pins) == len(self.overrides.pins):
            raise OrderError(f"{managed} is not pinned by an order")
        self._order(replace(self.overrides, pins=pins), managed)

    def freeze(self, wall_now: float) -> None:
        """Keep every set that is answered; does nothing when frozen."""
        if self.overrides.freeze is None:
            self._order(replace(self.overrides, freeze=Freeze(int(wall_now), self._current_sets(wall_now))))

    def unfreeze(self) -> None:
        """End a freeze or a roll-back.

        Raises:
            OrderError: nothing is frozen.
        """
        if self.overrides.freeze is None:
            raise OrderError("nothing is frozen")
        self._order(replace(self.overrides, freeze=None))

    def rollback(self, serial: int, wall_now: float) -> None:
        """Keep the sets of a record; names that it lacks keep what is answered.

        Raises:
            OrderError: the history has no such record.
        """
        record = self.overrides.find(serial)
        if record is None:
            raise OrderError(f"serial {serial} is not in the history")
        sets = self._current_sets(wall_now)
        for name, statement in record.sets.items():
            usable = self._permitted(name, statement, wall_now) if name in self._managed else None
            if usable is None:
                continue
            # The age of a set that is known is that of its last confirmation.
            known = (sets.get(name), self.names[name].proven if name in self.names else None)
            same = (s for s in known if s is not None and s.address_set == usable.address_set)
            sets[name] = next(same, usable)
        self._order(replace(self.overrides, freeze=Freeze(int(wall_now), sets, serial)))

    def _current_sets(self, wall_now: float) -> dict[str, Statement]:
        freeze = self.overrides.freeze
        answered = {
            name: state.whole
            for name, state in self.names.items()
            if state.whole is not None and not self.policy.is_gone(state.whole, wall_now)
        }
        return answered if freeze is None else {**answered, **freeze.sets}

    def promote(self, name: str) -> None:
        """Make the candidate of ``name`` that is on trial, or was rolled back, the proven set.

        Raises:
            OrderError: there is none.
        """
        state, _ = self._tried(name)
        if state.candidate is None:
            raise OrderError(f"{state.name}: what was on trial is not what is learned now")
        new = list(state.candidate.learned.addresses)
        state.adopt(state.candidate)
        self._end_trial(state, TrialOutcome.ACCEPTED)
        log = self._log
        log.info("canary.promoted", name=state.name, new=new, reason=TrialOutcome.ACCEPTED.value)

    def refuse(self, name: str, wall_now: float) -> None:
        """Roll back the trial of ``name``.

        Raises:
            OrderError: there is none, or it is rolled back already.
        """
        state, trial = self._tried(name)
        if not trial.is_running:
            raise OrderError(f"{state.name}: the new addresses are refused already")
        state.trial = rolled_back(trial, TrialOutcome.REFUSED, "by an operator", wall_now)
        log_rolled_back(self._log, state.name, state.trial)
        self._end_trial(state, TrialOutcome.REFUSED)

    def _tried(self, name: str) -> tuple[NameState, Trial]:
        state = self.names.get(managed := canonical_name(name))
        if state is None or state.trial is None:
            raise OrderError(f"{managed}: no new addresses are on trial")
        return state, state.trial

    def _end_trial(self, state: NameState, outcome: TrialOutcome) -> None:
        self.outcomes[outcome] += 1
        self._enqueue(state.name)
        self._note_change()

    def _order(self, overrides: Overrides, name: str | None = None) -> None:
        log, self.overrides = self._log, overrides
        if name is None:
            self._enqueue_all()
        else:
            self._enqueue(name)
        self._note_change()
        freeze = overrides.freeze
        log.info(
            "learned.orders",
            pinned=sorted(overrides.pins)[:SHOWN],
            frozen=freeze is not None,
            rolled_back_to=freeze.serial if freeze else None,
        )

    # -- output -----------------------------------------------------------------------------

    def take_events(self) -> list[tuple[str, str, dict[str, object]]]:
        """Return the events since the last call: level, event, fields."""
        events, self._log.events = self._log.events, []
        return events

    def take_changes(self) -> list[str]:
        """Return the names whose answer, or its age or expiry, changed since the last call."""
        log, changes, self._changes = self._log, self._changes, {}
        sets = {
            name: (old or (), _addresses(self._served.get(name))) for name, old in sorted(changes.items())
        }
        changed = {name: both for name, both in sets.items() if both[0] != both[1]}
        if changed:
            log.info("learned.in_service", changed=len(changed), changes=_shown(changed))
        return list(changes)

    def table(self) -> ServedTable:
        """Return what is answered."""
        found = subjects(self.discovered())
        return ServedTable(tuple(self._managed.values()), dict(self._served), self.serial, found)

    @property
    def serial(self) -> int:
        """The highest serial accepted; 0 before the first."""
        return max((opened.snapshot.serial for opened in self.snapshots.values()), default=0)

    def served(self, name: str) -> Statement | None:
        """Return what is answered for ``name``, if it is not pinned in the configuration."""
        return self._served.get(name)

    def owned(self, name: str) -> Statement | None:
        """Return the owner's statement of ``name``, as stated."""
        return self._owned.get(name)

    def refused_of(self, name: str) -> tuple[Finding, ...]:
        """Return the refused addresses of ``name``."""
        state = self.names.get(name)
        return state.refused() if state is not None else ()

    def states(self, name: str) -> tuple[AddressState, ...]:
        """Return the state of each address of ``name`` that may be answered."""
        state, entry, served = self.names.get(name), self._managed.get(name), self._served.get(name)
        if state is None or entry is None:
            return ()
        return tuple(state.states(entry.addresses or (served.learned.addresses if served else ())))

    def routed(self, entry: Wanted, addresses: Iterable[str]) -> dict[str, bool | None]:
        """Return whether this side has a route to each of ``addresses``; None where no range is stated."""
        limits = self.policy.limits.of(entry.name, entry.registry)
        return {address: is_routed(address, limits.routed) for address in addresses}

    def trials(self) -> dict[str, Trial]:
        """Return the trials by name."""
        return {
            name: trial for name in sorted(self._on_trial) if (trial := self.names[name].trial) is not None
        }

    def canary(self) -> CanaryView:
        """Return what there is to report about trials."""
        trials = self.trials()
        proven = {name: self.names[name].proven for name in trials}
        return CanaryView(
            self.policy.canary,
            trials,
            {name: held.learned.addresses for name, held in proven.items() if held is not None},
            frozenset(name for name in trials if self.names[name].is_leading(self.policy)),
            dict(self.outcomes),
        )


def _addresses(statement: Statement | None) -> tuple[str, ...]:
    return statement.learned.addresses if statement is not None else ()


def _shown(changed: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> list[dict[str, object]]:
    first = islice(changed.items(), SHOWN)
    return [{"name": name, "old": list(old), "new": list(new)} for name, (old, new) in first]


def _current(discoveries: Mapping[tuple[str, str, str], Discovery]) -> dict[tuple[str, str, str], Discovery]:
    """Return ``discoveries`` without those that no longer count."""
    latest: dict[tuple[str, str], int] = {}
    for discovery in discoveries.values():
        found = discovery.found
        latest[found.subject] = max(found.observed_at, latest.get(found.subject, 0))
    return {
        key: discovery
        for key, discovery in discoveries.items()
        if latest[discovery.found.subject] - discovery.found.observed_at <= DISCOVERY_LIFETIME
    }
