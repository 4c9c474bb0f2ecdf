"""A trial of new addresses: a share of the proxies answers with them first.

A *candidate* with addresses that the proven set lacks is on trial for ``hold`` seconds. Each proxy draws by
lot, from its own identity and the candidate, whether it is in the canary group, so that no proxy has to ask
another one, and each change meets other proxies. The group answers with the candidate while it works; all
proxies probe it. `judge` ends the trial.

All values; times are Unix seconds, since a trial outlives a restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from dnsproxy.core.addresses.health import Health
from dnsproxy.core.addresses.table import AddressSet, Statement
from dnsproxy.core.fields import Fields
from dnsproxy.core.learned import canonical_addresses


class State(StrEnum):
    """The state of a trial. A promoted one is forgotten: its candidate is the proven set."""

    RUNNING = "running"
    ROLLED_BACK = "rolled_back"


class TrialOutcome(StrEnum):
    """Why a trial ended: the first three promote the candidate, the others refuse it."""

    HELD = "held"
    OLD_FAILED = "old_failed"
    ACCEPTED = "accepted"
    FAILED = "failed"
    SILENT = "silent"
    REFUSED = "refused"
    FLEET = "fleet"


PROMOTIONS = (TrialOutcome.HELD, TrialOutcome.OLD_FAILED, TrialOutcome.ACCEPTED)
ROLLBACKS = (TrialOutcome.FAILED, TrialOutcome.SILENT, TrialOutcome.REFUSED, TrialOutcome.FLEET)


@dataclass(frozen=True, slots=True)
class CanaryPolicy:
    """``share`` of the proxies, 0 to 1; ``hold`` seconds; ``fall`` failures of an address in a row.

    ``identity`` names this proxy among all proxies.
    """

    share: float
    hold: float
    fall: int
    identity: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate. ``since`` has the time from which each of its new addresses is on trial.

    ``answered`` are those of them that have answered a probe since. After a roll-back ``ended_at``,
    ``outcome`` and ``detail`` say when and why.
    """

    addresses: tuple[str, ...]
    cname: str | None
    since: Mapping[str, int]
    answered: frozenset[str] = frozenset()
    state: State = State.RUNNING
    ended_at: int | None = None
    outcome: TrialOutcome | None = None
    detail: str = ""

    @property
    def candidate(self) -> AddressSet:
        """The set on trial."""
        return self.addresses, self.cname

    @property
    def started_at(self) -> int:
        """When the last of the new addresses was first stated."""
        return max(self.since.values())

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.state is State.RUNNING


@dataclass(frozen=True, slots=True)
class CanaryView:
    """What status and metrics report about trials; ``policy`` is None without a canary.

    ``stable`` are the addresses that each candidate would replace, ``leading`` the names that this proxy
    answers with the candidate. ``outcomes`` counts the trials that ended.
    """

    policy: CanaryPolicy | None = None
    trials: Mapping[str, Trial] = field(default_factory=dict)
    stable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    leading: frozenset[str] = frozenset()
    outcomes: Mapping[TrialOutcome, int] = field(default_factory=dict)

    def served_to(self, name: str) -> str:
        """Return whether clients get the candidate of ``name``: ``all`` or ``none``."""
        return "all" if name in self.leading else "none"


def is_in_group(policy: CanaryPolicy, name: str, candidate: AddressSet) -> bool:
    """Return whether this proxy is in the canary group; it stays in it when the share grows."""
    addresses, cname = candidate
    text = "\0".join((policy.identity, name, cname or "", *addresses))
    lot = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return lot < policy.share * 2**64


def new_addresses(proven: Statement, candidate: Statement) -> list[str]:
    """Return the addresses of ``candidate`` that ``proven`` lacks."""
    return [a for a in candidate.learned.addresses if a not in proven.learned.addresses]


def trial_of(proven: Statement, candidate: Statement, earlier: Trial | None, wall_now: float) -> Trial | None:
    """Return the trial of ``candidate``, which no ``earlier`` one refused; None without new addresses.

    An address that is on trial already continues where it is. Otherwise a set that changes all the time would
    never be promoted.
    """
    new = new_addresses(proven, candidate)
    if not new:
        return None
    now = int(wall_now)
    known = earlier if earlier is not None and earlier.is_running else None
    # After a clock step backward a trial starts no later than now.
    since = {a: min(known.since.get(a, now), now) if known else now for a in new}
    answered = frozenset(a for a in new if a in known.answered) if known else frozenset()
    return Trial(candidate.learned.addresses, candidate.learned.cname, since, answered)


def is_refused(trial: Trial, candidate: Statement) -> bool:
    """Return whether ``trial`` refused ``candidate``, for the fleet only while its helper reports that."""
    learned = candidate.learned
    is_same = not trial.is_running and trial.candidate == candidate.address_set
    return is_same and (trial.outcome is not TrialOutcome.FLEET or learned.addresses in learned.refused)


def judge(
    trial: Trial,
    health: Mapping[str, Health],
    policy: CanaryPolicy,
    wall_now: float,
    *,
    refused: bool = False,
    unroutable: frozenset[str] = frozenset(),
) -> Trial | TrialOutcome:
    """Return the running ``trial`` as it is at ``wall_now``, or the outcome that promotes the candidate.

    While the proven set does not work, rule 5 decides instead. ``refused``: a helper reports that the fleet
    rolled the candidate back. Addresses in ``unroutable`` do not count.
    """
    alive = {address: health[address].alive if address in health else None for address in trial.since}
    answered = trial.answered | {address for address in alive if alive[address]}
    if answered != trial.answered:
        trial = replace(trial, answered=answered)
    is_over = wall_now >= trial.started_at + policy.hold
    counted = [address for address in trial.since if address not in unroutable]
    dead = [address for address in counted if alive[address] is False]
    if refused:
        return rolled_back(trial, TrialOutcome.FLEET, "other proxies have rolled it back", wall_now)
    failed = [a for a in dead if a in answered and health[a].failures >= policy.fall]
    if failed:
        detail = f"{', '.join(failed)} failed {policy.fall} times in a row"
        return rolled_back(trial, TrialOutcome.FAILED, detail, wall_now)
    silent = [address for address in dead if address not in answered]
    if is_over and silent:
        return rolled_back(trial, TrialOutcome.SILENT, f"{', '.join(silent)} never answered", wall_now)
    if is_over and all(address in health and health[address].is_steady for address in counted):
        return TrialOutcome.HELD
    return trial


def rolled_back(trial: Trial, outcome: TrialOutcome, detail: str, wall_now: float) -> Trial:
    """Return ``trial`` as one whose candidate is refused."""
    return replace(trial, state=State.ROLLED_BACK, ended_at=int(wall_now), outcome=outcome, detail=detail)


def next_end(trials: Iterable[Trial], policy: CanaryPolicy, wall_now: float) -> float | None:
    """Return the seconds until the next ``hold`` is over; None when none is to come."""
    ends = [trial.started_at + policy.hold - wall_now for trial in trials if trial.is_running]
    return min((end for end in ends if end > 0), default=None)


# -- on disk -----------------------------------------------------------------------------


def to_json(trial: Trial) -> dict[str, Any]:
    """Return the JSON object that `from_fields` reads."""
    return {
        "addresses": list(trial.addresses),
        "cname": trial.cname,
        "new": [
            {"address": address, "since": since, "answered": address in trial.answered}
            for address, since in trial.since.items()
        ],
        "state": trial.state.value,
        "ended_at": trial.ended_at,
        "ending": trial.outcome and trial.outcome.value,
        "detail": trial.detail,
    }


def from_fields(fields: Fields) -> Trial:
    """Read the JSON object of `to_json`.

    Raises:
        SnapshotError: ``MALFORMED``, naming the first key that is wrong.
    """
    try:
        addresses = canonical_addresses(fields.texts("addresses"))
        state = State(fields.text("state"))
        outcome = TrialOutcome(fields.text("ending")) if fields.has("ending") else None
    except ValueError as exc:
        raise fields.wrong("addresses, state or ending", str(exc)) from exc
    since, answered = {}, set()
    for index, item in enumerate(fields.sequence("new")):
        new = Fields(item, f"trial.new[{index}]")
        address = new.text("address")
        if address not in addresses:
            raise new.wrong("address", "not one of the set")
        since[address] = new.whole("since")
        if new.flag("answered"):
            answered.add(address)
    if not since:
        raise fields.wrong("new", "none")
    ended_at = fields.whole("ended_at") if fields.has("ended_at") else None
    detail = fields.text("detail") if fields.has("detail") and outcome else ""
    cname = fields.optional_name("cname")
    return Trial(addresses, cname, since, frozenset(answered), state, ended_at, outcome, detail)
