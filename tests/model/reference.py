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
# How long a report counts that its helper no longer confirms while another helper reports the role.
DAY: Final = 86_400.0
SKEW: Final = 300.0
# A name of the registry whose role is discovered: it represents the role in the scope of a key.
DISCOVERED: Final = "found.example"

Life = Literal["alive", "dead", "unknown"]
Outcome = Literal["answered", "failed", "no_route", "host"]
Phase = Literal["unknown", "proven", "candidate", "trial", "refused", "failed"]


class AddressSet(NamedTuple):
    """*Set*: the addresses of a name, and its CNAME. Two sets are the same when both are equal."""

    addresses: frozenset[str]
    cname: str | None = None


class Confirmation(NamedTuple):
    """That a helper saw a set: when (`observed_at`), until when that counts, and who signed it."""

    observed_at: float
    expires_at: float
    key: str
    issued_at: float


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
    """*Statement*: the last set that one helper published for a name, before the address filter."""

    held: Held
    refused_sets: frozenset[frozenset[str]]


@dataclass
class Address:
    """State of one address of one name."""

    life: Life
    failures: int = 0  # in a row
    answers_before: int = 0  # probes that had answered before the first failure of the row
    last: Outcome | None = None


@dataclass
class Name:
    """State of one managed name."""

    statements: dict[str, Statement] = field(default_factory=dict)
    owner: str | None = None
    proven: Held | None = None
    refused: AddressSet | None = None  # the candidate whose trial was rolled back
    by_fleet: bool = False  # because the owner's statement reported that the fleet refused it
    tried_since: dict[str, float] = field(default_factory=dict)  # new addresses of the trial that runs
    answered: set[str] = field(default_factory=set)  # those of them that were alive since
    learned: Held | None = None  # the owner's statement, also when it is not usable any more


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
        self.names: dict[str, Name] = {name: Name() for name in policy.names}
        self.pinned: dict[str, frozenset[str]] = {}
        self.kept: dict[str, Held] | None = None  # None: not frozen
        self.records: list[Record] = []
        self.latest: dict[str, Snapshot] = {}  # helper → its last snapshot
        # (helper, role) → (key, names, issued at)
        self.reports: dict[tuple[str, str], tuple[str, frozenset[str], float]] = {}
        self.answers = 0  # probes that answered
        self.addresses: dict[tuple[str, str], Address] = {}  # (name, address); pins outlive their name

    # --- events

    def snapshot(self, snapshot: Snapshot, now: float) -> bool:
        """Take a snapshot; False when check 1 refuses it."""
        self.now = now
        if not self.accepts(snapshot):
            return False
        self.latest[snapshot.helper] = snapshot
        self._learn_roles(snapshot)
        self._forbid()
        self._learn_names(snapshot)
        self._apply()
        self._record(snapshot.serial)
        return True

    def _learn_roles(self, snapshot: Snapshot) -> None:
        for role, found in snapshot.discoveries.items():
            if role in self.policy.discoverable and self.policy.speaks(snapshot.key, DISCOVERED):
                self.reports[snapshot.helper, role] = (snapshot.key, found, snapshot.issued_at)

    def _learn_names(self, snapshot: Snapshot) -> None:
        for name, listed in self._in_scope(snapshot).items():
            if listed.set.addresses and name in self.managed():
                self._state(name, listed, snapshot)

    def _in_scope(self, snapshot: Snapshot) -> dict[str, Listed]:
        """What the key may speak for: configured names, and those that this snapshot itself reports."""
        reported = {
            name
            for role, names in snapshot.discoveries.items()
            for name in names
            if role in self.policy.discoverable
        }
        return {
            name: listed
            for name, listed in snapshot.names.items()
            if self.policy.speaks(snapshot.key, name) and name in {*self.policy.names, *reported}
        }

    def probe(self, name: str, address: str, outcome: Outcome, now: float) -> None:
        """Take the result of a probe. One of an address that is in no set any more changes nothing."""
        self.now = now
        state = self.addresses.get((name, address))
        if state is not None and self.policy.ports and outcome != "host":
            self._result(state, outcome)
        self._apply()

    def pin(self, name: str, addresses: Iterable[str], now: float) -> None:
        """The filter does not apply to pins. Only a managed name can be pinned."""
        self.now = now
        if name in self.managed():
            self.pinned[name] = frozenset(addresses)
        self._apply()

    def unpin(self, name: str, now: float) -> None:
        self.now = now
        self.pinned.pop(name, None)
        self._apply()

    def freeze(self, now: float) -> None:
        """Keep for each name the set that is answered, or would be without its pin."""
        self.now = now
        if self.kept is None:
            self.kept = self._unpinned_sets()
        self._apply()

    def unfreeze(self, now: float) -> None:
        self.now = now
        self.kept = None
        self._apply()

    def rollback(self, serial: int, now: float) -> bool:
        """Freeze with the usable part of the sets of a record, however old; False without that record."""
        self.now = now
        record = next((each for each in self.records if each.serial == serial), None)
        if record is not None:
            before = self._unpinned_sets()
            self.kept = before | self._allowed_sets(record.sets)
            for name, held in before.items():
                if held.set == self.kept[name].set:  # its age stays
                    self.kept[name] = held
            for name, state in self.names.items():
                kept, proven = self.kept.get(name), state.proven
                if (
                    kept is not None and proven is not None and proven.set == kept.set and name not in before
                ) or (kept is not None and proven is not None and proven.set == kept.set != before[name].set):
                    self.kept[name] = proven
        self._apply()
        return record is not None

    def promote(self, name: str, now: float) -> bool:
        """Trials, *promoted*: by an operator, also when the candidate is refused already (the diagram)."""
        self.now = now
        candidate = self._candidate(name) if name in self.names else None
        effective = candidate is not None and (self._on_trial(name) or self._is_refused(name))
        if effective and candidate is not None:
            self._prove(name, candidate)
        self._apply()
        return effective

    def refuse(self, name: str, now: float) -> bool:
        """Trials, *rolled back*: by an operator."""
        self.now = now
        effective = name in self.names and self._on_trial(name)
        candidate = self._candidate(name) if effective else None
        if candidate is not None:
            self.names[name].refused, self.names[name].by_fleet = candidate.set, False
        self._apply()
        return effective

    def passes(self, now: float) -> None:
        """Time passes, or the wall clock is set; it may go back."""
        self.now = now
        self._apply()

    def restart(self, now: float) -> None:
        """*Restart*: failures in a row and the results of probes are forgotten, nothing else."""
        self.now = now
        self._forget_probes()
        self._apply()

    def _forget_probes(self) -> None:
        for state in self.addresses.values():
            state.failures, state.last = 0, None if self.policy.ports else "answered"

    def reload(self, policy: Policy, now: float) -> None:
        """*Reload*: changes nothing, except what the new configuration forbids."""
        self.now = now
        had_ports, self.policy = self.policy.ports, policy
        self._forbid_reports()
        for snapshot in self.latest.values():  # what is configured again, keys that may speak again
            self._learn_roles(snapshot)
        for snapshot in self.latest.values():
            self._learn_names(snapshot)
        self._forbid()
        if policy.ports != had_ports:
            self._forget_probes()
        if not policy.ports:
            for state in self.addresses.values():
                state.life = "alive"
        self._apply()

    # --- queries

    def managed(self) -> frozenset[str]:
        """Names of the configuration, and those that a helper reports."""
        return self.policy.names.union(*(names for _, names, _ in self.reports.values()))

    def answer(self, name: str) -> Answer | str:
        """Rule 6 and the overrides."""
        if name not in self.names:
            return NOT_OWNED
        if name in self.pinned:
            return Answer(self.pinned[name], None, stale=False)
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
        """The helper whose statement counts; none while no helper has a usable statement."""
        return self.names[name].owner if name in self.names and self._usable(name) else None

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
        return "trial" if self._on_trial(name) else "candidate"

    def trial(self, name: str) -> Literal["trial", "refused"] | None:
        """Whether a trial runs for the name, or was rolled back and its candidate is refused."""
        if name not in self.names:
            return None
        return "refused" if self._is_refused(name) else "trial" if self._on_trial(name) else None

    def _is_refused(self, name: str) -> bool:
        candidate = self._candidate(name)
        return candidate is not None and candidate.set == self.names[name].refused

    def _on_trial(self, name: str) -> bool:
        candidate = self._candidate(name)
        if candidate is None or self._is_refused(name) or self._overridden(name):
            return False
        return self._needs_trial(name, candidate)

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
        """Check 1: a trusted key, in time, newer than the last one of the same helper, of use, not emptied.

        CHOICE skew: 300 s of difference between two clocks are granted. A last snapshot that was issued
        later than that from now orders nothing: a clock was set back since.
        """
        last = self.latest.get(snapshot.helper)
        is_newer = (
            last is None
            or (snapshot.serial, snapshot.issued_at) > (last.serial, last.issued_at)
            or (last.issued_at > self.now + SKEW and snapshot.issued_at != last.issued_at)
        )
        in_scope = self._in_scope(snapshot)
        had_addresses = last is not None and any(
            listed.set.addresses for listed in self._in_scope(last).values()
        )
        return (
            snapshot.key in self.policy.keys
            and self.now < snapshot.expires_at + SKEW
            and is_newer
            and bool(in_scope or not snapshot.names)
            and (any(listed.set.addresses for listed in in_scope.values()) or not had_addresses)
        )

    def _state(self, name: str, listed: Listed, snapshot: Snapshot) -> None:
        observed_at = min(listed.observed_at, snapshot.issued_at)
        confirmation = Confirmation(observed_at, snapshot.expires_at, snapshot.key, snapshot.issued_at)
        statement = Statement(Held(listed.set, confirmation), listed.refused_sets)
        self.names.setdefault(name, Name()).statements[snapshot.helper] = statement

    # --- addresses

    def _result(self, state: Address, outcome: Outcome) -> None:
        """The table of probe results."""
        state.last = outcome
        if outcome == "answered":
            self.answers += 1
            state.life, state.failures = "alive", 0
            return
        if not state.failures:
            state.answers_before = self.answers
        state.failures += 1
        proves = outcome == "failed" or self.answers > state.answers_before
        if proves and (state.life != "alive" or state.failures > 1):
            state.life = "dead"

    def _life(self, state: Address) -> Life:
        return state.life if self.policy.ports else "alive"

    def _alive(self, name: str, which: AddressSet) -> frozenset[str]:
        return frozenset(a for a in which.addresses if self.alive(name, a) == "alive")

    def _first_seen(self, name: str, which: AddressSet, life: Life) -> None:
        for address in which.addresses:
            last: Outcome | None = None if self.policy.ports else "answered"
            self.addresses.setdefault((name, address), Address(life, last=last))

    def _sets(self, name: str) -> Iterator[AddressSet]:
        """Sets whose addresses have a state: usable ones, the proven set, those of overrides."""
        if name in self.names:
            state = self.names[name]
            yield from (held.set for held in self._usable(name).values())
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
            self._follow_trial(name)
            for _ in range(4):  # until nothing changes any more
                before = self.names[name].proven
                if self._proven_works(name):
                    self._end_trial(name)
                if self.names[name].proven is before:
                    self._rule_4_change(name)
                self._rule_5_failure(name)
                self._follow_trial(name)
                if self.names[name].proven is before:
                    break
            if self.kept is not None and name not in self.kept:
                self._keep_first(name, self.kept)
            self._note_learned(name)
        in_sets = {(name, a) for name in self.names for s in self._sets(name) for a in s.addresses}
        self.addresses = {key: state for key, state in self.addresses.items() if key in in_sets}

    def _note_learned(self, name: str) -> None:
        state = self.names[name]
        if state.owner is not None and state.owner in state.statements:
            state.learned = state.statements[state.owner].held

    def _usable(self, name: str) -> dict[str, Held]:
        """*Usable* statements, by helper."""
        found = {}
        for helper, statement in self.names[name].statements.items():
            held = reduced(self.policy, name, statement.held)
            if held is not None and not overdue(self.policy, held, self.now):
                found[helper] = held
        return found

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
        """Of equal confirmations, that of the first helper by name."""
        state = self.names[name]
        times = {helper: held.confirmation.observed_at for helper, held in self._usable(name).items()}
        if not times or (state.owner in times and max(times.values()) <= times[state.owner] + OWNER_LEAD):
            return
        state.owner = self._latest_first(name)[0]

    def _latest_first(self, name: str) -> list[str]:
        usable = self._usable(name)
        return sorted(usable, key=lambda helper: (-usable[helper].confirmation.observed_at, helper))

    def _rule_2_first_set(self, name: str) -> None:
        """A proven set that is overdue is still one."""
        state = self.names[name]
        if state.proven is None and state.owner in self._usable(name):
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

    def _rule_3_confirmation(self, name: str) -> None:
        """Also for the set that an override keeps: "its age is still that of the last confirmation"."""
        state = self.names[name]
        if state.proven is not None:
            state.proven = self._confirmed(name, state.proven)
        if self.kept and name in self.kept:
            held = self.kept[name]
            observed_at = self._confirmed(name, held).confirmation.observed_at
            held = self.kept[name] = held._replace(
                confirmation=held.confirmation._replace(observed_at=observed_at)
            )
            if state.proven is not None and state.proven.set == held.set:
                latest = max(held.confirmation.observed_at, state.proven.confirmation.observed_at)
                self.kept[name] = held._replace(confirmation=held.confirmation._replace(observed_at=latest))

    def _confirmed(self, name: str, held: Held) -> Held:
        """Age of the latest confirmation, expiry and key of the one that lasts longest."""
        same = [each.confirmation for each in self._usable(name).values() if each.set == held.set]
        same.append(held.confirmation)
        longest = max(same, key=lambda each: each.expires_at)
        observed_at = min(max(each.observed_at for each in same), int(self.now))
        ahead = max(0, longest.issued_at - int(self.now))
        return held._replace(
            confirmation=longest._replace(
                observed_at=observed_at,
                issued_at=longest.issued_at - ahead,
                expires_at=longest.expires_at - ahead,
            )
        )

    def _rule_4_change(self, name: str) -> None:
        candidate = self._candidate(name)
        if candidate is None or self._held_back(name, candidate):
            return
        if self.policy.accept or (self._proven_works(name) and self._alive(name, candidate.set)):
            self._prove(name, candidate)

    def _rule_5_failure(self, name: str) -> None:
        """With `accept` only the owner's set counts."""
        state = self.names[name]
        if state.proven is None or self._proven_works(name):
            return
        usable = self._usable(name)
        first = [state.owner] if state.owner in usable and state.owner and self._candidate(name) else []
        others = [] if self.policy.accept else [h for h in self._latest_first(name) if h != state.owner]
        for helper in first + others:
            if self._works(name, usable[helper]):
                state.owner = helper
                self._prove(name, usable[helper])
                self._rule_1_owner(name)
                return

    def _rule_6_answer(self, name: str) -> tuple[Held | None, bool]:
        """The set that is answered without overrides, and whether it is answered whole."""
        state = self.names[name]
        candidate = self._candidate(name)
        if candidate and self._answers_candidate(name, candidate):
            return self._confirmed(name, candidate), False
        if self._proven_works(name):
            return state.proven, False
        usable = self._usable(name)
        if state.owner is not None and state.owner in usable:
            return self._confirmed(name, usable[state.owner]), True
        if state.proven is not None and not overdue(self.policy, state.proven, self.now):
            return state.proven, True
        return None, True

    # --- trials

    def _new_addresses(self, name: str, candidate: Held) -> frozenset[str]:
        """Addresses of the candidate that the proven set lacks."""
        proven = self.names[name].proven
        return candidate.set.addresses - (proven.set.addresses if proven else frozenset())

    def _counts(self, name: str, candidate: Held, address: str) -> bool:
        """Whether a new address decides: not without a route to its whole family, if the set is of use."""
        if not self._alive(name, candidate.set) or self.addresses[name, address].last != "no_route":
            return True
        v6 = ":" in address
        same = [st for (n, a), st in self.addresses.items() if n == name and (":" in a) == v6]
        return "alive" in map(self._life, same)

    def _needs_trial(self, name: str, candidate: Held) -> bool:
        return self.policy.canary is not None and bool(self._new_addresses(name, candidate))

    def _held_back(self, name: str, candidate: Held) -> bool:
        """Whether a trial, its refusal, or an override keeps the candidate from becoming the proven set."""
        return self._is_refused(name) or self._needs_trial(name, candidate)

    def _answers_candidate(self, name: str, candidate: Held) -> bool:
        """The canary group "answers with the candidate as long as it works"."""
        in_group = self._on_trial(name) and self.policy.in_group(name, candidate.set)
        return in_group and self._proven_works(name) and bool(self._alive(name, candidate.set))

    def _follow_trial(self, name: str) -> None:
        """Since when each new address is on trial, and which of them were alive since."""
        state = self.names[name]
        candidate = self._candidate(name)
        if candidate is None or candidate.set != state.refused:
            state.refused = None  # "until another one follows"
        elif state.by_fleet and not self._fleet_refuses(state, candidate):
            state.refused = None  # "until the owner's statement no longer reports it"
        if candidate is None or not self._on_trial(name):
            state.tried_since, state.answered = {}, set()
            return
        new = self._new_addresses(name, candidate)
        # A clock that was set back begins it no later than now.
        state.tried_since = {a: min(state.tried_since.get(a, self.now), self.now) for a in new}
        state.answered &= new
        if self._proven_works(name):
            state.answered |= {a for a in new if self.alive(name, a) == "alive"}

    def _fleet_refuses(self, state: Name, candidate: Held) -> bool:
        """Whether the owner's statement reports that the fleet refused the candidate."""
        return candidate.set.addresses in state.statements[state.owner or ""].refused_sets

    def _end_trial(self, name: str) -> None:
        """The two ways in which a trial ends while the proven set works; refused by the fleet comes first."""
        state, canary = self.names[name], self.policy.canary
        candidate = self._candidate(name)
        if candidate is None or canary is None or not self._on_trial(name):
            return
        is_over = self.now >= max(state.tried_since.values()) + canary.hold
        new = {a: self.addresses[name, a] for a in state.tried_since if self._counts(name, candidate, a)}
        dead = {a for a in new if self._life(new[a]) == "dead"}
        state.by_fleet = self._fleet_refuses(state, candidate)
        if state.by_fleet or any(
            (a in state.answered and new[a].failures >= canary.fall) or (is_over and a not in state.answered)
            for a in dead
        ):
            state.refused = candidate.set
        elif is_over and all(self._life(a) == "alive" and a.last == "answered" for a in new.values()):
            self._prove(name, candidate)

    # --- overrides

    def _overridden(self, name: str) -> bool:
        return name in self.pinned or self.kept is not None

    def _served(self, name: str) -> tuple[Held | None, bool]:
        """The set that is answered without a pin, and whether it is answered whole."""
        if self.kept is not None and name in self.kept:
            return self.kept[name], False
        return self._rule_6_answer(name)

    def _unpinned_sets(self) -> dict[str, Held]:
        served = {name: self._served(name)[0] for name in self.names}
        return {name: held for name, held in served.items() if held is not None}

    def _keep_first(self, name: str, kept: dict[str, Held]) -> None:
        """*Freeze*: a name that has no kept set keeps the first set that could be answered."""
        held, _ = self._rule_6_answer(name)
        if held is not None:
            kept[name] = held

    # --- history

    def _record(self, serial: int) -> None:
        """A record for each snapshot after which the owner states another set than in the last one."""
        sets = {name: state.learned for name, state in self.names.items() if state.learned is not None}
        last = self.records[-1].sets if self.records else {}
        sets = {n: last[n] if n in last and last[n].set == held.set else held for n, held in sets.items()}
        if {name: held.set for name, held in sets.items()} == {name: held.set for name, held in last.items()}:
            return
        taken = {record.serial for record in self.records}
        self.records.append(Record(serial if serial not in taken else max(taken) + 1, sets))
        self._shorten()

    def _shorten(self) -> None:
        self.records = self.records[max(0, len(self.records) - self.policy.history) :]

    # --- what the configuration forbids

    def _forbid_reports(self) -> None:
        policy = self.policy
        self.latest = {h: last for h, last in self.latest.items() if last.key in policy.keys}
        newest = {
            role: max(at for (_, r), (_, _, at) in self.reports.items() if r == role)
            for _, role in self.reports
        }
        self.reports = {
            (helper, role): (key, names, at)
            for (helper, role), (key, names, at) in self.reports.items()
            if role in policy.discoverable and policy.speaks(key, DISCOVERED) and newest[role] - at <= DAY
        }

    def _forbid(self) -> None:
        """The table of *Restart and reload*, and the withdrawal of a discovered name."""
        policy = self.policy
        self._forbid_reports()
        self.names = {name: state for name, state in self.names.items() if name in self.managed()}
        for name, state in self.names.items():
            state.statements = {
                helper: each
                for helper, each in state.statements.items()
                if policy.speaks(each.held.confirmation.key, name) and helper in self.latest
            }
            state.proven = state.proven and self._allowed(name, state.proven)
            if state.learned is not None and not policy.speaks(state.learned.confirmation.key, name):
                state.learned = None
            if policy.canary is None:
                state.refused = None
        if self.kept is not None:
            self.kept = self._allowed_sets(self.kept)
        self.records = [replace(record, sets=self._permitted_sets(record.sets)) for record in self.records]
        self._shorten()

    def _permitted_sets(self, sets: Mapping[str, Held]) -> dict[str, Held]:
        """Recorded sets whose key is trusted, or that are stated now; names need not be managed."""
        found = {}
        for name, held in sets.items():
            if self.policy.speaks(held.confirmation.key, name):
                found[name] = held
            elif name in self.names and (same := self._allowed(name, held)) is not None:
                found[name] = held._replace(confirmation=same.confirmation)
        return found

    def _allowed_sets(self, sets: Mapping[str, Held]) -> dict[str, Held]:
        found = {name: self._allowed(name, held) for name, held in sets.items() if name in self.names}
        return {name: held for name, held in found.items() if held is not None}

    def _allowed(self, name: str, held: Held) -> Held | None:
        """The set as the configuration allows it, or None; a helper may take the place of its signer."""
        remaining = reduced(self.policy, name, held)
        if remaining is None or self.policy.speaks(held.confirmation.key, name):
            return remaining
        same = [each.confirmation for each in self._usable(name).values() if each.set == remaining.set]
        if not same:
            return None
        observed_at = max(same[0].observed_at, held.confirmation.observed_at)
        return remaining._replace(confirmation=same[0]._replace(observed_at=observed_at))
