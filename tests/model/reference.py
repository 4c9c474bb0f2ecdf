"""Reference model of the life cycle of learned addresses: that section of docs/concepts.md as code.

It is written from the documentation alone and favours reading over speed. Each rule cites the documentation;
`CHOICE` marks a place where the documentation leaves a question open. A test compares the model with the
program after every event of random sequences.

Every event is a method that takes the wall time. Times are seconds; addresses, names and keys are plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

# Rule 1: how much later than the owner another helper must have confirmed its statement to become the owner.
OWNER_LEAD: Final = 75.0

Life = Literal["alive", "dead", "unknown"]
Outcome = Literal["answered", "failed", "no_route", "host"]
Phase = Literal["unknown", "proven", "candidate", "trial", "refused", "failed"]


class AddressSet(NamedTuple):
    """*Set*: the addresses of a name, and its CNAME. Two sets are the same when both are equal."""

    addresses: frozenset[str]
    cname: str | None = None


class Confirmation(NamedTuple):
    """That a helper saw a set: when, until when that counts, and the key that signed it.

    CHOICE confirmation-time: the time is `observed_at` of the name, not `issued_at` of the snapshot.
    CHOICE confirmation-order: the tuple order decides; of two at one time, the one that expires last.
    """

    observed_at: float
    expires_at: float
    key: str


class Held(NamedTuple):
    """A set with its last confirmation: a proven, kept or recorded set, or the usable set of a helper."""

    set: AddressSet
    confirmation: Confirmation


class Listed(NamedTuple):
    """What one snapshot lists for one name."""

    set: AddressSet
    observed_at: float
    refused_sets: frozenset[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Snapshot:
    """A published snapshot with a valid signature."""

    helper: str
    key: str
    serial: int
    issued_at: float
    expires_at: float
    names: Mapping[str, Listed]
    discoveries: Mapping[str, frozenset[str]] = field(
        default_factory=dict
    )  # role → names; absent: nothing is said


@dataclass(frozen=True)
class Canary:
    """`learn.canary`."""

    hold: float
    fall: int


@dataclass(frozen=True)
class Policy:
    """The configuration, as far as it concerns learned addresses."""

    names: frozenset[str]  # managed by configuration
    discoverable: frozenset[str]  # roles with `discover`
    keys: Mapping[str, frozenset[str] | None]  # trusted key → the names that it speaks for; None: all
    refuses: Callable[[str, str], bool] = lambda _name, _address: False  # the address filter
    in_group: Callable[[str, AddressSet], bool] = lambda _name, _set: False  # canary group, for this set
    max_stale: float | None = None  # None: forever
    history: int = 10
    ports: bool = True  # False: `learn.verify.ports: []`
    accept: bool = False  # `learn.verify.on_failure: accept`
    canary: Canary | None = None

    def speaks(self, key: str, name: str) -> bool:
        """Whether a snapshot that this key signed counts for this name."""
        scope = self.keys.get(key, frozenset())
        return scope is None or name in scope


@dataclass
class Statement:
    """*Statement*: the last set that one helper published for a name, before the address filter.

    CHOICE refused-returns: the statement keeps addresses that the filter refuses. When a reload allows one of
    them again, it is usable at once. Proven, kept and recorded sets lose it for good.
    """

    held: Held
    refused_sets: frozenset[frozenset[str]]


@dataclass
class Address:
    """State of one address of one name."""

    life: Life
    failures: int = 0  # in a row
    has_answered: bool = False
    last: Outcome | None = None
    no_route_pending: bool = False  # the last probe found no route, and no other address has answered since


@dataclass
class Name:
    """State of one managed name."""

    statements: dict[str, Statement] = field(default_factory=dict)
    owner: str | None = None
    proven: Held | None = None
    refused: AddressSet | None = None  # the candidate whose trial was rolled back
    first_stated: dict[str, float] = field(default_factory=dict)
    override_ended: float = float("-inf")


@dataclass
class Record:
    """One record of the history."""

    serial: int
    sets: dict[str, Held]


class Answer(NamedTuple):
    """What a query for a name gets."""

    addresses: frozenset[str]
    cname: str | None
    stale: bool


NOT_READY: Final = "not ready"  # SERVFAIL with EDE 14
NOT_OWNED: Final = "not owned"  # the query is forwarded


def reduced(policy: Policy, name: str, held: Held) -> Held | None:
    """The set without the addresses that the filter refuses; None when none is left."""
    kept = frozenset(a for a in held.set.addresses if not policy.refuses(name, a))
    return held._replace(set=held.set._replace(addresses=kept)) if kept else None


def overdue(policy: Policy, held: Held, now: float) -> bool:
    """Whether the set expired longer ago than `learn.max_stale`."""
    return policy.max_stale is not None and now > held.confirmation.expires_at + policy.max_stale


class Model:
    """The documented behaviour of one proxy. Events change it; queries do not."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now = 0.0
        self.names: dict[str, Name] = {}
        self.pinned: dict[str, frozenset[str]] = {}
        self.kept: dict[str, Held] | None = None  # None: not frozen
        self.records: list[Record] = []
        self.serials: dict[tuple[str, str], int] = {}  # (helper, key) → serial of its last snapshot
        self.reports: dict[tuple[str, str], tuple[str, frozenset[str]]] = {}  # (helper, role) → (key, names)
        self.addresses: dict[tuple[str, str], Address] = {}  # (name, address); pins outlive their name

    # --- events

    def snapshot(self, snapshot: Snapshot, now: float) -> bool:
        """Take a snapshot; False when check 1 refuses it."""
        self.now = now
        if not self.accepts(snapshot):
            return False
        before = {name: self._owner_set(name) for name in self.names}
        self.serials[snapshot.helper, snapshot.key] = snapshot.serial
        for role, found in snapshot.discoveries.items():
            if role in self.policy.discoverable:
                names = frozenset(name for name in found if self.policy.speaks(snapshot.key, name))
                self.reports[snapshot.helper, role] = (snapshot.key, names)
        self._forbid()
        for name, listed in snapshot.names.items():
            if name in self.managed() and listed.set.addresses and self.policy.speaks(snapshot.key, name):
                self._state(name, listed, snapshot)
        self._apply()
        self._record(before, snapshot.serial)
        return True

    def probe(self, name: str, address: str, outcome: Outcome, now: float) -> None:
        """Take the result of a probe. One of an address that is in no set any more changes nothing."""
        self.now = now
        state = self.addresses.get((name, address))
        if state is not None and self.policy.ports and outcome != "host":
            self._result(address, state, outcome)
        self._apply()

    def pin(self, name: str, addresses: Iterable[str], now: float) -> None:
        """CHOICE pin-filter: the filter does not apply to pins, and any name can be pinned."""
        self.now = now
        self.pinned[name] = frozenset(addresses)
        self._apply()

    def unpin(self, name: str, now: float) -> None:
        self.now = now
        if self.pinned.pop(name, None) is not None:
            self._override_ends([name])
        self._apply()

    def freeze(self, now: float) -> None:
        """Keep for each name the set that is answered.

        CHOICE freeze-pinned: for a pinned name, the set that would be answered without the pin.
        CHOICE freeze-twice: kept sets stay.
        """
        self.now = now
        self.kept = self._unpinned_sets()
        self._apply()

    def unfreeze(self, now: float) -> None:
        self.now = now
        if self.kept is not None:
            self.kept = None
            self._override_ends(self.names)
        self._apply()

    def rollback(self, serial: int, now: float) -> bool:
        """Freeze with the sets of a record; False when the history has no such record.

        CHOICE rollback-max-stale: a recorded set is kept however old it is.
        """
        self.now = now
        record = next((each for each in self.records if each.serial == serial), None)
        if record is not None:
            self.kept = self._unpinned_sets() | record.sets
        self._apply()
        return record is not None

    def promote(self, name: str, now: float) -> bool:
        """Trials, *promoted*: by an operator, also when the candidate is refused already (the diagram)."""
        self.now = now
        candidate = self._candidate(name) if name in self.names else None
        effective = candidate is not None and self.phase(name) in {"trial", "refused"}
        if effective and candidate is not None:
            self._prove(name, candidate)
        self._apply()
        return effective

    def refuse(self, name: str, now: float) -> bool:
        """Trials, *rolled back*: by an operator."""
        self.now = now
        effective = name in self.names and self.phase(name) == "trial"
        candidate = self._candidate(name) if effective else None
        if candidate is not None:
            self.names[name].refused = candidate.set
        self._apply()
        return effective

    def passes(self, now: float) -> None:
        """Time passes, or the wall clock is set; it may go back."""
        self.now = now
        self._apply()

    def restart(self, now: float) -> None:
        """*Restart*: changes nothing.

        CHOICE restart-counts: failures in a row, and the last result of each probe, are part of "everything
        above" and survive. Only the times of the next probes, which are no part of this model, may differ.
        """
        self.now = now
        self._apply()

    def reload(self, policy: Policy, now: float) -> None:
        """*Reload*: changes nothing, except what the new configuration forbids."""
        self.now = now
        self.policy = policy
        self._forbid()
        self._apply()

    # --- queries

    def managed(self) -> frozenset[str]:
        """Names of the configuration, and those that a helper reports ("managed while a helper reports it").

        CHOICE report-expiry: a report counts until the same helper says something else; it does not expire.
        """
        return self.policy.names.union(*(names for _, names in self.reports.values()))

    def answer(self, name: str) -> Answer | str:
        """Rule 6 and the overrides.

        CHOICE pin-unmanaged: a pin also answers a name that is managed no more.
        """
        if name in self.pinned:
            return Answer(self.pinned[name], None, stale=False)
        if name not in self.names:
            return NOT_OWNED
        held, whole = self._served(name)
        if held is None:
            return NOT_READY
        alive = self._alive(name, held.set)
        stale = not (self.kept and name in self.kept) and self.now >= held.confirmation.expires_at
        return Answer(held.set.addresses if whole or not alive else alive, held.set.cname, stale)

    def age(self, name: str) -> float | None:
        """Seconds since the last confirmation of the answered set; None for a pin and without a set.

        CHOICE negative-age: 0 when the confirmation is in the future of this clock.
        """
        if name in self.pinned or name not in self.names:
            return None
        held, _ = self._served(name)
        return None if held is None else max(0.0, self.now - held.confirmation.observed_at)

    def owner(self, name: str) -> str | None:
        """The helper whose statement counts; CHOICE no-owner: none while no helper has a usable statement."""
        return self.names[name].owner if name in self.names else None

    def alive(self, name: str, address: str) -> Life | None:
        """State of an address; None when no set has it. Without ports, every address is alive."""
        state = self.addresses.get((name, address))
        return None if state is None else self._life(state)

    def phase(self, name: str) -> Phase:
        """The state in the diagram."""
        if self.names[name].proven is None:
            return "unknown"
        candidate = self._candidate(name)
        if candidate is not None and candidate.set == self.names[name].refused:
            return "refused"
        if not self._proven_works(name):
            return "failed"
        if candidate is None:
            return "proven"
        on_trial = self._needs_trial(name, candidate) and not self._overridden(name)
        return "trial" if on_trial else "candidate"

    def trial(self, name: str) -> Literal["trial", "refused"] | None:
        """Whether a trial runs for the name, or was rolled back and its candidate is refused."""
        phase = self.phase(name) if name in self.names else "unknown"
        return phase if phase == "trial" or phase == "refused" else None  # noqa: PLR1714 (narrows the type)

    def history(self) -> list[tuple[int, dict[str, AddressSet]]]:
        """Records, the oldest first."""
        return [(r.serial, {name: held.set for name, held in r.sets.items()}) for r in self.records]

    @property
    def pins(self) -> dict[str, frozenset[str]]:
        return dict(self.pinned)

    @property
    def frozen(self) -> dict[str, AddressSet] | None:
        """The kept sets; None when no freeze is in force."""
        return None if self.kept is None else {name: held.set for name, held in self.kept.items()}

    def probed(self) -> frozenset[tuple[str, str]]:
        """Addresses: "the sets of all helpers are probed, and the proven set, and those of overrides"."""
        return frozenset(self.addresses) if self.policy.ports else frozenset()

    # --- check 1

    def accepts(self, snapshot: Snapshot) -> bool:
        """Check 1: a trusted key, in time, newer than the last one of the same helper, not emptied.

        CHOICE in-time: it has not expired; `issued_at` is not looked at.
        CHOICE newer: by serial. A helper with another key counts as another helper.
        CHOICE unmanaged: a name that is not managed, or that the key does not speak for, is left out.
        CHOICE emptied: a snapshot without any address is refused as a whole when its helper has a statement.
        """
        return (
            snapshot.key in self.policy.keys
            and self.now < snapshot.expires_at
            and snapshot.serial > self.serials.get((snapshot.helper, snapshot.key), -1)
            and (
                any(listed.set.addresses for listed in snapshot.names.values())
                or not any(snapshot.helper in state.statements for state in self.names.values())
            )
        )

    def _state(self, name: str, listed: Listed, snapshot: Snapshot) -> None:
        confirmation = Confirmation(listed.observed_at, snapshot.expires_at, snapshot.key)
        statement = Statement(Held(listed.set, confirmation), listed.refused_sets)
        self.names.setdefault(name, Name()).statements[snapshot.helper] = statement

    # --- addresses

    def _result(self, address: str, state: Address, outcome: Outcome) -> None:
        """The table of probe results.

        CHOICE no-route: the result waits. It counts as a failure, once, when the probe of another address (of
        any name) answers after it; the next result of the same address replaces it.
        """
        state.last = outcome
        state.no_route_pending = outcome == "no_route"
        if outcome == "answered":
            state.life, state.failures, state.has_answered = "alive", 0, True
            for (_, other), waiting in self.addresses.items():
                if waiting.no_route_pending and other != address:
                    waiting.no_route_pending = False
                    self._failed(waiting)
        elif outcome == "failed":
            self._failed(state)

    def _failed(self, state: Address) -> None:
        """CHOICE in-a-row: results that change nothing do not interrupt a row of failures."""
        state.failures += 1
        if state.life == "unknown" or state.failures > 1:
            state.life = "dead"

    def _life(self, state: Address) -> Life:
        return state.life if self.policy.ports else "alive"

    def _alive(self, name: str, which: AddressSet) -> frozenset[str]:
        return frozenset(a for a in which.addresses if self.alive(name, a) == "alive")

    def _first_seen(self, name: str, which: AddressSet, life: Life) -> None:
        for address in which.addresses:
            self.addresses.setdefault((name, address), Address(life))

    def _sets(self, name: str) -> Iterator[AddressSet]:
        """Sets whose addresses have a state.

        CHOICE records-not-probed: records of the history are not among them.
        CHOICE expired-probed: statements and proven sets are, also after `learn.max_stale`.
        """
        if name in self.names:
            state = self.names[name]
            for statement in state.statements.values():
                held = reduced(self.policy, name, statement.held)
                if held is not None:
                    yield held.set
            if state.proven is not None:
                yield state.proven.set
        yield from self._override_sets(name)

    def _override_sets(self, name: str) -> Iterator[AddressSet]:
        if name in self.pinned:
            yield AddressSet(self.pinned[name])
        if self.kept and name in self.kept:
            yield self.kept[name].set

    # --- names: the rules

    def _apply(self) -> None:
        """Apply the rules, once and in their order, to every name."""
        for name in sorted(self.managed()):
            self.names.setdefault(name, Name())
            self._rule_1_owner(name)
            self._rule_2_first_set(name)
            self._see_others(name)
            self._rule_3_confirmation(name)
            self._end_trial(name)
            self._rule_4_change(name)
            self._rule_5_failure(name)
            if self.kept is not None and name not in self.kept:
                self._keep_first(name, self.kept)
        for name in self.pinned.keys() - self.names.keys():
            self._see_others(name)
        in_sets = {
            (name, a) for name in {*self.names, *self.pinned} for s in self._sets(name) for a in s.addresses
        }
        self.addresses = {key: state for key, state in self.addresses.items() if key in in_sets}

    def _usable(self, name: str) -> dict[str, Held]:
        """*Usable* statements, by helper."""
        found = {}
        for helper, statement in self.names[name].statements.items():
            held = reduced(self.policy, name, statement.held)
            if held is not None and not overdue(self.policy, held, self.now):
                found[helper] = held
        return found

    def _owner_set(self, name: str) -> AddressSet | None:
        state = self.names[name]
        held = self._usable(name).get(state.owner) if state.owner is not None else None
        return None if held is None else held.set

    def _candidate(self, name: str) -> Held | None:
        """*Candidate*: the owner's usable set, while it is not the proven set."""
        state = self.names[name]
        held = self._usable(name).get(state.owner) if state.owner is not None else None
        return held if held and state.proven and held.set != state.proven.set else None

    def _works(self, name: str, held: Held) -> bool:
        """*Works*: at least one member is alive, and the set is not overdue."""
        return not overdue(self.policy, held, self.now) and bool(self._alive(name, held.set))

    def _proven_works(self, name: str) -> bool:
        proven = self.names[name].proven
        return proven is not None and self._works(name, proven)

    def _prove(self, name: str, held: Held) -> None:
        self.names[name].proven = held
        self._rule_3_confirmation(name)

    def _rule_1_owner(self, name: str) -> None:
        """CHOICE owner-tie: of equal confirmations, that of the first helper by name."""
        state = self.names[name]
        times = {helper: held.confirmation.observed_at for helper, held in self._usable(name).items()}
        if state.owner in times and max(times.values()) <= times[state.owner] + OWNER_LEAD:
            return
        state.owner = next(iter(self._latest_first(name)), None)

    def _latest_first(self, name: str) -> list[str]:
        usable = self._usable(name)
        return sorted(sorted(usable), key=lambda helper: usable[helper].confirmation[:2], reverse=True)

    def _rule_2_first_set(self, name: str) -> None:
        """A proven set that is overdue is still one. CHOICE overdue-proven: it is not dropped."""
        state = self.names[name]
        if state.proven is None and state.owner is not None:
            held = self._usable(name)[state.owner]
            self._first_seen(name, held.set, "alive")
            self._prove(name, held)

    def _see_others(self, name: str) -> None:
        """Give a state to new addresses other than those of a first set (*Addresses*, first sentence)."""
        for kept in self._override_sets(name):
            self._first_seen(name, kept, "alive")
        for stated in self._sets(name):
            self._first_seen(
                name, stated, "alive" if self.policy.accept or not self.policy.ports else "unknown"
            )
        if name not in self.names:
            return
        # CHOICE first-stated: by any helper, by this proxy's clock, and forgotten when no statement has it.
        state = self.names[name]
        stated_now = {a for each in state.statements.values() for a in each.held.set.addresses}
        state.first_stated = {a: state.first_stated.get(a, self.now) for a in stated_now}

    def _rule_3_confirmation(self, name: str) -> None:
        """Also for the set that an override keeps: "its age is still that of the last confirmation"."""
        state = self.names[name]
        if state.proven is not None:
            state.proven = self._confirmed(name, state.proven)
        if self.kept and name in self.kept:
            self.kept[name] = self._confirmed(name, self.kept[name])

    def _confirmed(self, name: str, held: Held) -> Held:
        same = [each.confirmation for each in self._usable(name).values() if each.set == held.set]
        return held._replace(confirmation=max([held.confirmation, *same]))

    def _rule_4_change(self, name: str) -> None:
        candidate = self._candidate(name)
        if candidate is None or not self._proven_works(name) or self._held_back(name, candidate):
            return
        if self.policy.accept or self._alive(name, candidate.set):
            self._prove(name, candidate)

    def _rule_5_failure(self, name: str) -> None:
        state = self.names[name]
        if state.proven is None or self._proven_works(name):
            return
        usable = self._usable(name)
        first = [state.owner] if state.owner is not None and self._candidate(name) else []
        for helper in first + [each for each in self._latest_first(name) if each != state.owner]:
            if self._works(name, usable[helper]):
                state.owner = helper
                self._prove(name, usable[helper])
                return

    def _rule_6_answer(self, name: str) -> tuple[Held | None, bool]:
        """The set that is answered without overrides, and whether it is answered whole.

        CHOICE overdue-answer: "After `learn.max_stale` it is no longer answered" wins over "without one
        the proven set whole".
        """
        state = self.names[name]
        candidate = self._candidate(name)
        if candidate and self._answers_candidate(name, candidate):
            return self._confirmed(name, candidate), False
        if self._proven_works(name):
            return state.proven, False
        if state.owner is not None:
            return self._confirmed(name, self._usable(name)[state.owner]), True
        if state.proven is not None and not overdue(self.policy, state.proven, self.now):
            return state.proven, True
        return None, True

    # --- trials

    def _new_addresses(self, name: str, candidate: Held) -> frozenset[str]:
        """New addresses that count.

        CHOICE no-route-family: a family has no route when the last probe of each of its members in the
        candidate found none. When no new address is left that counts, the candidate is not on trial.
        """
        proven = self.names[name].proven
        new = candidate.set.addresses - (proven.set.addresses if proven else frozenset())
        members = {a: self.addresses[name, a] for a in candidate.set.addresses if (name, a) in self.addresses}
        for v6 in (False, True):
            family = [state for a, state in members.items() if (":" in a) == v6]
            others = [state for a, state in members.items() if (":" in a) != v6]
            if all(state.last == "no_route" for state in family) and "alive" in map(self._life, others):
                new = frozenset(a for a in new if (":" in a) != v6)
        return new

    def _needs_trial(self, name: str, candidate: Held) -> bool:
        return self.policy.canary is not None and bool(self._new_addresses(name, candidate))

    def _held_back(self, name: str, candidate: Held) -> bool:
        """Whether a trial, its refusal, or an override keeps the candidate from becoming the proven set."""
        return candidate.set == self.names[name].refused or self._needs_trial(name, candidate)

    def _answers_candidate(self, name: str, candidate: Held) -> bool:
        """The canary group "answers with the candidate as long as it works"."""
        in_group = self.phase(name) == "trial" and self.policy.in_group(name, candidate.set)
        return in_group and self._works(name, candidate)

    def _end_trial(self, name: str) -> None:
        """Trials, the two ways in which one ends.

        CHOICE failed-trial: none ends by time or refusal while the proven set does not work.
        CHOICE fleet-first: what the fleet refused is rolled back, even if the trial would be promoted now.
        """
        state = self.names[name]
        candidate = self._candidate(name)
        if candidate is None or candidate.set != state.refused:
            state.refused = None  # "until another one follows"
        if candidate is None or self.policy.canary is None or self.phase(name) != "trial":
            return
        if self._fleet_refused(name, candidate):
            state.refused = candidate.set
        elif self._promoted(name, candidate, self.policy.canary):
            self._prove(name, candidate)
        elif self._rolled_back(name, candidate, self.policy.canary):
            state.refused = candidate.set

    def _fleet_refused(self, name: str, candidate: Held) -> bool:
        """CHOICE fleet-refusal: any helper's statement counts, and it lists usable addresses."""
        return any(
            candidate.set.addresses in each.refused_sets for each in self.names[name].statements.values()
        )

    def _hold_is_over(self, name: str, candidate: Held, canary: Canary) -> bool:
        """CHOICE hold-clock: wall time; a clock that is set back prolongs a trial."""
        state = self.names[name]
        began = max(state.first_stated.get(a, self.now) for a in self._new_addresses(name, candidate))
        return self.now >= max(began, state.override_ended) + canary.hold

    def _promoted(self, name: str, candidate: Held, canary: Canary) -> bool:
        """By time. When the proven set does not work and the candidate does, rule 5 promotes it.

        CHOICE no-ports-trial: without ports every address counts as one that has answered.
        """
        new = [self.addresses[name, a] for a in self._new_addresses(name, candidate)]
        fit = all(self._life(state) == "alive" and state.last == "answered" for state in new)
        return self._hold_is_over(name, candidate, canary) and (fit or not self.policy.ports)

    def _rolled_back(self, name: str, candidate: Held, canary: Canary) -> bool:
        new = [self.addresses[name, a] for a in self._new_addresses(name, candidate)]
        if not self.policy.ports:
            return False
        if self._proven_works(name) and any(s.has_answered and s.failures >= canary.fall for s in new):
            return True
        return self._hold_is_over(name, candidate, canary) and any(not s.has_answered for s in new)

    # --- overrides

    def _overridden(self, name: str) -> bool:
        return name in self.pinned or self.kept is not None

    def _override_ends(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self.names and not self._overridden(name):
                self.names[name].override_ended = self.now

    def _served(self, name: str) -> tuple[Held | None, bool]:
        """The set that is answered without a pin, and whether it is answered whole."""
        if self.kept is not None and name in self.kept:
            return self.kept[name], False
        return self._rule_6_answer(name)

    def _unpinned_sets(self) -> dict[str, Held]:
        served = {name: self._served(name)[0] for name in self.names}
        return {name: held for name, held in served.items() if held is not None}

    def _keep_first(self, name: str, kept: dict[str, Held]) -> None:
        """*Freeze*: a name that has no kept set keeps the first set that could be answered.

        CHOICE kept-dropped: the same after a reload has dropped the kept set.
        """
        held, _ = self._rule_6_answer(name)
        if held is not None:
            kept[name] = held

    # --- history

    def _record(self, before: Mapping[str, AddressSet | None], serial: int) -> None:
        """A record for each snapshot that changed the owner's set of a name.

        CHOICE record-content: the owner's usable sets of all names, also of those that did not change.
        CHOICE record-withdrawn: a name that lost its usable set is no change.
        CHOICE record-serial: where one more than the record before is taken too, the next free one.
        """
        after = {name: self._owner_set(name) for name in self.names}
        if not any(found is not None and found != before.get(name) for name, found in after.items()):
            return
        taken = {record.serial for record in self.records}
        if serial in taken:
            serial = self.records[-1].serial + 1
            while serial in taken:
                serial += 1
        sets = {}
        for name, state in self.names.items():
            if state.owner is not None:
                sets[name] = self._usable(name)[state.owner]
        self.records.append(Record(serial, sets))
        self._shorten()

    def _shorten(self) -> None:
        self.records = self.records[max(0, len(self.records) - self.policy.history) :]

    # --- what the configuration forbids

    def _forbid(self) -> None:
        """The table of *Restart and reload*, and the withdrawal of a discovered name."""
        policy = self.policy
        # CHOICE serials-forgotten: a key that comes back may sign any serial first.
        self.serials = {pair: serial for pair, serial in self.serials.items() if pair[1] in policy.keys}
        # CHOICE report-dropped: a report goes with its key, and with `discover` of its role.
        self.reports = {
            (helper, role): (key, frozenset(name for name in names if policy.speaks(key, name)))
            for (helper, role), (key, names) in self.reports.items()
            if role in policy.discoverable
        }
        # CHOICE withdrawn-pin: pins also outlive a discovered name that is withdrawn.
        self.names = {name: state for name, state in self.names.items() if name in self.managed()}
        for name, state in self.names.items():
            state.statements = {
                helper: each
                for helper, each in state.statements.items()
                if policy.speaks(each.held.confirmation.key, name)
            }
            state.proven = state.proven and self._allowed(name, state.proven)
            if policy.canary is None:
                state.refused = None  # CHOICE canary-removed: refusals end with the trials
        if self.kept is not None:
            self.kept = self._allowed_sets(self.kept)
        self.records = [replace(record, sets=self._allowed_sets(record.sets)) for record in self.records]
        self.records = [
            record for record in self.records if record.sets
        ]  # CHOICE empty-record: it is dropped
        self._shorten()

    def _allowed_sets(self, sets: Mapping[str, Held]) -> dict[str, Held]:
        found = {name: self._allowed(name, held) for name, held in sets.items() if name in self.names}
        return {name: held for name, held in found.items() if held is not None}

    def _allowed(self, name: str, held: Held) -> Held | None:
        """The set as the configuration allows it, or None.

        CHOICE signer: the key of the last confirmation signed a set; without it, the last confirmation by a
        helper that states the same set now takes its place.
        """
        remaining = reduced(self.policy, name, held)
        if remaining is None or self.policy.speaks(held.confirmation.key, name):
            return remaining
        same = [each.confirmation for each in self._usable(name).values() if each.set == remaining.set]
        return remaining._replace(confirmation=max(same)) if same else None
