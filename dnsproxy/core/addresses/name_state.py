"""One managed name: which of the sets that helpers state for it is answered.

`NameState.evaluate` applies the rules of docs/concepts.md ("Names"), whose numbers stand beside the code. It
runs after every event that concerns the name; the same state and time always give the same answer.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace

from dnsproxy.core.addresses.canary import (
    CanaryPolicy,
    Trial,
    TrialOutcome,
    is_in_group,
    is_refused,
    judge,
    new_addresses,
    trial_of,
)
from dnsproxy.core.addresses.filter import Finding, LimitTable
from dnsproxy.core.addresses.health import UNPROBED, Health, Outcome, Result
from dnsproxy.core.addresses.table import AddressSet, Origin, Statement, kept
from dnsproxy.core.registry import Found, Sought, Wanted

# Seconds. Two helpers may see different members of a large set. The owner changes only after it has missed
# about two rounds of the default 30 s interval; otherwise the answers would alternate between the two views.
TAKEOVER_AFTER = 75
# Changes of the proven set that one event can cause; two are the most that is known.
MAX_CHANGES = 4


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The settings that decide. Nothing of it is part of the state.

    ``managed`` are the configured names, ``sought`` the roles whose names registries report. ``keys`` are the
    trusted keys by id, each with the registries that it may speak for (None: all). ``ports``, ``tls`` and
    ``interval`` (seconds) say how to probe; ``own_ports`` are those of names that have their own;
    certificates are from ``authority``. ``accept``: a changed set needs no proof. ``max_stale`` is in
    seconds. ``history`` counts records.
    """

    managed: tuple[Wanted, ...] = ()
    sought: tuple[Sought, ...] = ()
    keys: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    limits: LimitTable = field(default_factory=LimitTable)
    ports: tuple[int, ...] = (443,)
    own_ports: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tls: bool = True
    authority: object = None
    interval: float = 30.0
    accept: bool = False
    max_stale: float = float("inf")
    history: int = 10
    canary: CanaryPolicy | None = None

    def sharing(self, other: AddressPolicy) -> AddressPolicy:
        """Return this policy with the objects of ``other`` where both are equal: these compare fast."""
        same = {f.name: getattr(other, f.name) for f in fields(self)}
        return replace(self, **{name: held for name, held in same.items() if held == getattr(self, name)})

    def ports_of(self, name: str) -> tuple[int, ...]:
        """Return the ports that the addresses of ``name`` must answer on; none: they are not probed."""
        return self.own_ports.get(name, self.ports)

    def is_gone(self, statement: Statement, wall_now: float) -> bool:
        """Return whether ``statement`` expired longer ago than ``max_stale``."""
        return wall_now >= statement.snapshot.expires_at + self.max_stale

    @property
    def probing(self) -> object:
        """How addresses are probed; two policies with equal values probe alike."""
        return self.ports, self.own_ports, self.tls, self.authority

    def permits(self, snapshot: Origin, registry: str) -> bool:
        """Return whether the key that signed ``snapshot`` may speak for ``registry``."""
        registries = self.keys.get(snapshot.key_id, frozenset())
        return registries is None or registry in registries

    def discoverable(self, found: Found) -> tuple[str, ...] | None:
        """Return the names in ``found`` that may be taken; None when its role is not discovered here."""
        sought = next((entry for entry in self.sought if entry.subject == found.subject), None)
        return None if sought is None else tuple(filter(sought.allows, found.names))


class EventBuffer:
    """Events to log, as level, event and fields."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        """Add an event of level info."""
        self.events.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        """Add a warning."""
        self.events.append(("warning", event, fields))


@dataclass(frozen=True, slots=True)
class Stated:
    """What one helper states: ``usable`` is the part that the filter accepts, None when nothing is left."""

    statement: Statement
    usable: Statement | None
    refused: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class AddressState:
    """One address of a name, for status. ``alive`` is None while unknown; ``reason`` is for people, or None.

    ``checked_at`` and ``since`` are as in `Health`.
    """

    address: str
    serving: bool
    alive: bool | None
    reason: str | None
    result: Result | None
    checked_at: float | None
    since: float | None = None


class NameState:
    """The state of one name, and what follows from it."""

    __slots__ = (
        "answer",
        "candidate",
        "confirmed",
        "health",
        "name",
        "owner",
        "proven",
        "registry",
        "stated",
        "trial",
        "whole",
    )

    def __init__(self, name: str, registry: str) -> None:
        self.name = name
        self.registry = registry
        # The state: the last statement of each helper, the helper that counts, the set that passed last, its
        # candidate's trial, and what probes showed.
        self.stated: dict[str, Stated] = {}
        self.owner: str | None = None
        self.proven: Statement | None = None
        self.trial: Trial | None = None
        self.health: dict[str, Health] = {}
        # The set that an override keeps, and when a helper last confirmed it (Unix seconds).
        self.confirmed: tuple[AddressSet, int] | None = None
        # What `evaluate` derives from it: the owner's usable set while it is not the proven one, the set
        # that is answered, and the part of it that is given to clients.
        self.candidate: Statement | None = None
        self.whole: Statement | None = None
        self.answer: Statement | None = None

    # -- the rules --------------------------------------------------------------------

    def evaluate(
        self,
        policy: AddressPolicy,
        override: Iterable[str] | None,
        now: float,
        wall_now: float,
        log: EventBuffer,
    ) -> TrialOutcome | None:
        """Apply the rules; return the outcome of a trial that ended.

        ``override`` are the addresses of the pin or kept set that is in force for the name, None without one.
        ``now`` is monotonic, ``wall_now`` Unix time, both in seconds.
        """
        usable = self.usable(policy, wall_now)
        own = self._choose_owner(usable)
        if self.proven is None:
            self.proven = own  # rule 2
        if self.proven is not None:
            self.proven = self._confirmed(self.proven, usable, wall_now)  # rule 3
        self._watch(policy, usable, override or (), now)
        proven, before = self.proven, self.trial
        if proven is None:
            self.candidate = self.whole = self.answer = self.trial = None
            return None
        held = override is not None
        outcome: TrialOutcome | None = None
        for _ in range(MAX_CHANGES):
            self._set_candidate(own)
            self.trial = self._trial(policy, held=held, wall_now=wall_now)
            adopted, ended = self._next_set(policy, usable, before, held=held, wall_now=wall_now)
            if adopted is None:
                break
            outcome = ended or outcome
            self.adopt(self._confirmed(adopted, usable, wall_now))
            own = self._choose_owner(usable)
        self._answer(policy, own, usable, wall_now)
        self._log_trial(log, policy, proven, before, outcome)
        self._watch(policy, usable, override or (), now)  # an adopted set replaces addresses
        if outcome is None and (before is None or before.is_running) and self.trial is not None:
            return self.trial.outcome
        return outcome

    def _next_set(
        self,
        policy: AddressPolicy,
        usable: list[Statement],
        before: Trial | None,
        *,
        held: bool,
        wall_now: float,
    ) -> tuple[Statement | None, TrialOutcome | None]:
        """Return the set that becomes the proven one, if any, and the outcome of the trial that this ends."""
        candidate, trial, proven = self.candidate, self.trial, self.proven
        if candidate is not None and proven is not None and trial is None:  # rule 4
            is_held_back = held and policy.canary is not None and new_addresses(proven, candidate)
            may_change = policy.accept or (self.works(policy, wall_now) and self.alive(candidate))
            if may_change and not is_held_back:
                return candidate, None
        if not self.works(policy, wall_now):  # rule 5
            others = () if policy.accept else usable
            found = next((s for s in (candidate, *others) if s is not None and self.alive(s)), None)
            if found is not None:
                self.owner = found.snapshot.issuer
            is_tried = found is not None and found is candidate and (trial or before) is not None
            return found, TrialOutcome.OLD_FAILED if is_tried else None
        if candidate is not None and trial is not None and trial.is_running and policy.canary is not None:
            outcome = self._judge(candidate, trial, policy.canary, wall_now)
            return (candidate if outcome is not None else None), outcome
        return None, None

    def usable(self, policy: AddressPolicy, wall_now: float) -> list[Statement]:
        """Return the usable statements of all helpers, the latest confirmed first."""
        found = [
            s.usable for s in self.stated.values() if s.usable and not policy.is_gone(s.usable, wall_now)
        ]
        if len(found) > 1:
            found.sort(key=lambda s: (-s.learned.observed_at, s.snapshot.issuer))
        return found

    def _choose_owner(self, usable: list[Statement]) -> Statement | None:
        """Return the owner's usable set (rule 1)."""
        if not usable:
            return None
        latest = usable[0]
        own = next((s for s in usable if s.snapshot.issuer == self.owner), None)
        if own is None or latest.learned.observed_at - own.learned.observed_at > TAKEOVER_AFTER:
            own = latest
        self.owner = own.snapshot.issuer
        return own

    def _set_candidate(self, own: Statement | None) -> None:
        is_same = own is None or self.proven is None or own.address_set == self.proven.address_set
        self.candidate = None if is_same else own

    def _confirmed(self, held: Statement, usable: list[Statement], wall_now: float) -> Statement:
        """Return ``held`` with the latest confirmation of it, and the expiry of the longest one (rule 3)."""
        same = [s for s in usable if s.address_set == held.address_set]
        records = (*same, held)
        longest = max(records, key=lambda s: s.snapshot.expires_at)
        return longest.confirmed(max(s.learned.observed_at for s in records), wall_now)

    def _watch(
        self, policy: AddressPolicy, usable: Iterable[Statement], override: Iterable[str], now: float
    ) -> None:
        """Keep the health of every address that may be answered, and of no other."""
        assumed = dict.fromkeys(override)
        if self.proven is not None:
            assumed |= dict.fromkeys(self.proven.learned.addresses)
        wanted = {address: None for s in usable for address in s.learned.addresses} | assumed
        if self.health.keys() == wanted.keys():
            return
        is_probed = bool(policy.ports_of(self.name))
        is_assumed = policy.accept or not is_probed
        health = self.health
        self.health = {
            address: health.get(address)
            or Health(
                True if is_assumed or address in assumed else None, now, None if is_probed else UNPROBED
            )
            for address in wanted
        }

    def _trial(self, policy: AddressPolicy, *, held: bool, wall_now: float) -> Trial | None:
        trial, candidate = self.trial, self.candidate
        if policy.canary is None or candidate is None or self.proven is None:
            return None
        if trial is not None and is_refused(trial, candidate):
            return trial
        return None if held else trial_of(self.proven, candidate, trial, wall_now)

    def _judge(
        self, candidate: Statement, trial: Trial, canary: CanaryPolicy, wall_now: float
    ) -> TrialOutcome | None:
        """Take note of how the trial goes; return the outcome when the candidate is promoted."""
        judged = judge(
            trial,
            self.health,
            canary,
            wall_now,
            refused=candidate.learned.addresses in candidate.learned.refused,
            unroutable=self._unroutable(candidate),
        )
        if isinstance(judged, TrialOutcome):
            return judged
        self.trial = judged
        return None

    def adopt(self, statement: Statement) -> None:
        """Make ``statement`` the proven set; a trial of another set continues."""
        self.proven = statement
        if self.trial is not None and self.trial.candidate == statement.address_set:
            self.trial = None

    def _answer(
        self, policy: AddressPolicy, own: Statement | None, usable: list[Statement], wall_now: float
    ) -> None:
        """Choose what is answered (rule 6)."""
        if not self.works(policy, wall_now):
            whole = own or self.proven
        else:
            whole = self.candidate if self.is_leading(policy) else self.proven
        if whole is None:
            self.whole = self.answer = None
            return
        whole = self._confirmed(whole, usable, wall_now)
        addresses = self.alive(whole) or whole.learned.addresses
        if whole is not self.whole or self.answer is None or self.answer.learned.addresses != addresses:
            self.whole, self.answer = whole, whole.with_addresses(addresses)

    # -- what follows from the state -----------------------------------------------------

    def alive(self, statement: Statement) -> tuple[str, ...]:
        """Return the addresses of ``statement`` that are alive."""
        health = self.health
        return tuple(a for a in statement.learned.addresses if a in health and health[a].alive)

    def works(self, policy: AddressPolicy, wall_now: float) -> bool:
        """Return whether the proven set works."""
        proven = self.proven
        return proven is not None and bool(self.alive(proven)) and not policy.is_gone(proven, wall_now)

    def is_leading(self, policy: AddressPolicy) -> bool:
        """Return whether this proxy answers with a candidate that is on trial."""
        trial, candidate = self.trial, self.candidate
        if trial is None or candidate is None or policy.canary is None or not trial.is_running:
            return False
        return is_in_group(policy.canary, self.name, trial.candidate) and bool(self.alive(candidate))

    def _unroutable(self, candidate: Statement) -> frozenset[str]:
        """Return members of ``candidate`` whose whole family this host has no route to.

        Empty while no member is alive: then this host cannot use the set.
        """
        if not self.alive(candidate):
            return frozenset()
        families = {_is_ipv6(address) for address, health in self.health.items() if health.alive}
        return frozenset(
            address
            for address in candidate.learned.addresses
            if _is_ipv6(address) not in families
            and (result := self.health[address].result) is not None
            and result.outcome is Outcome.NO_ROUTE
        )

    def keep(self, held: Statement, policy: AddressPolicy, wall_now: float) -> Statement:
        """Return what is answered with a set that an override keeps: it does not become stale."""
        usable = self.usable(policy, wall_now)
        known = (*usable, self.proven) if self.proven is not None else usable
        observed = [s.learned.observed_at for s in known if s.address_set == held.address_set]
        if self.confirmed is not None and self.confirmed[0] == held.address_set:
            observed.append(self.confirmed[1])
        else:
            observed.append(held.learned.observed_at)
        self.confirmed = held.address_set, min(max(observed), int(wall_now))
        never = kept(held).confirmed(self.confirmed[1], wall_now)
        return never.with_addresses(self.alive(never) or never.learned.addresses)

    def fingerprint(self) -> object:
        """Return what a file must have, without ages and expiry."""
        proven = self.proven
        stated = tuple((s.statement.address_set, s.statement.learned.refused) for s in self.stated.values())
        alive = tuple((address, health.alive) for address, health in self.health.items())
        proven_set = proven and (proven.address_set, proven.snapshot.issuer)
        return self.owner, proven_set, self.trial, tuple(self.stated), stated, alive

    def ages(self) -> object:
        """Return what `fingerprint` lacks: ages and expiry of the sets that `evaluate` confirms."""
        proven = self.proven
        return proven and (proven.learned.observed_at, proven.snapshot), self.confirmed

    def derive(self, issuer: str, unowned: set[str], recorded: Container[str]) -> None:
        """Take what ``issuer`` states as proven: the file leaves that out where it owns the name.

        ``unowned`` are the names whose owner the file does not tell: they were not managed, or their set was
        older than `max_stale`, in which case the latest record of the history has it (``recorded``). Where
        several helpers state such a name, rules 1 and 2 decide.
        """
        usable = self.stated[issuer].usable
        if self.owner is None:
            unowned.add(self.name)
        if self.name in unowned:
            is_only = len(self.stated) == 1
            self.owner = issuer if is_only and self.name in recorded else None
            self.proven = usable if is_only else None
        elif self.owner == issuer:
            self.proven = usable

    def refused(self) -> tuple[Finding, ...]:
        """Return the refused addresses of all statements."""
        return tuple(dict.fromkeys(finding for stated in self.stated.values() for finding in stated.refused))

    def states(self, serving: Iterable[str]) -> Iterator[AddressState]:
        """Yield each address, those of the owner's set first; ``serving`` are those that clients get."""
        served = set(serving)
        own = self.candidate.learned.addresses if self.candidate is not None else ()
        for address in dict.fromkeys((*(a for a in own if a in self.health), *self.health)):
            health, is_served = self.health[address], address in served
            reason = _reason(health, is_served=is_served)
            yield AddressState(
                address, is_served, health.alive, reason, health.result, health.checked_at, health.since
            )

    # -- events --------------------------------------------------------------------------

    def _log_trial(
        self,
        log: EventBuffer,
        policy: AddressPolicy,
        proven: Statement,
        before: Trial | None,
        outcome: TrialOutcome | None,
    ) -> None:
        trial, was = self.trial, before and before.candidate
        if outcome is not None:
            new = list(self.proven.learned.addresses if self.proven else ())
            log.info("canary.promoted", name=self.name, new=new, reason=outcome.value)
        elif before is not None and trial is None:
            log.info("canary.withdrawn", name=self.name, new=list(before.addresses))
        is_again = trial is not None and trial.is_running and before is not None and not before.is_running
        if trial is not None and (trial.candidate != was or is_again):
            old, new = list(proven.learned.addresses), list(trial.addresses)
            group = policy.canary is not None and is_in_group(policy.canary, self.name, trial.candidate)
            log.info("canary.started", name=self.name, old=old, new=new, group=group)
        if (
            trial is not None
            and not trial.is_running
            and (before is None or before.is_running or trial.candidate != was)
        ):
            log_rolled_back(log, self.name, trial)


def log_rolled_back(log: EventBuffer, name: str, trial: Trial) -> None:
    """Add the event that the candidate of ``name`` is refused."""
    reason = (trial.outcome or TrialOutcome.REFUSED).value
    log.warning(
        "canary.rolled_back", name=name, new=list(trial.addresses), reason=reason, detail=trial.detail
    )


def _is_ipv6(address: str) -> bool:
    return ":" in address


def _reason(health: Health, *, is_served: bool) -> str | None:
    if health.result is not None and health.result.outcome is not Outcome.ANSWERED:
        return health.result.problem
    if is_served:
        return None
    return "not probed yet" if health.alive is None else "not in the set that is answered"
