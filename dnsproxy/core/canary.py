"""A new set of addresses on trial: who is answered with it first, and whether all are in the end.

A name has a *stable* set, which is answered, and a newer one that has addresses besides: the *candidate*.
A proxy is in the canary group of a candidate by lot, drawn from what both are, so that each proxy knows by
itself, and other changes meet other proxies. The group answers with the candidate as it would without a
canary; all others go on with the stable set, and probe the candidate meanwhile.

A trial ends in one of these ways:

- the new addresses have answered when ``hold`` is over, and do so then: the candidate is stable from now on;
- one that had answered has failed ``fall`` times in a row, or one has not answered at all by the end of
  ``hold``, while the stable set works: *rolled back*; the candidate is refused until another one comes;
- a helper says that other proxies have rolled it back, while the stable set works: the same;
- the stable set works no more and the candidate does: it is taken at once (`core.verify` sees to that), also
  when it was refused. So of the two sets one that works is answered.

All are values; nothing here reads a clock or a file. Times are Unix seconds: trials outlive restarts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from dnsproxy.core.book import Entry
from dnsproxy.core.fields import Fields
from dnsproxy.core.health import Sign
from dnsproxy.core.learned import canonical_addresses

# Addresses and CNAME: what makes one set another than the next.
AddressSet = tuple[tuple[str, ...], str | None]


class State(StrEnum):
    """Where a trial is; one that ended well is forgotten."""

    RUNNING = "running"
    ROLLED_BACK = "rolled_back"


class Ending(StrEnum):
    """Why a trial ended: the first three put the candidate into service, the others refuse it."""

    HELD = "held"
    OLD_FAILED = "old_failed"
    ACCEPTED = "accepted"
    FAILED = "failed"
    SILENT = "silent"
    REFUSED = "refused"
    FLEET = "fleet"


PROMOTIONS = (Ending.HELD, Ending.OLD_FAILED, Ending.ACCEPTED)
ROLLBACKS = (Ending.FAILED, Ending.SILENT, Ending.REFUSED, Ending.FLEET)


@dataclass(frozen=True, slots=True)
class CanaryPolicy:
    """How to try: ``share`` of proxies, 0 to 1; ``hold`` seconds; ``fall`` failures of an address in a row.

    ``identity`` is this proxy among all others.
    """

    share: float
    hold: float
    fall: int
    identity: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate. ``since`` has its new addresses, each with when it was first on trial (Unix seconds).

    ``answered`` are those of them that have answered a probe since. After a roll-back ``ended_at`` and
    ``ending`` say when and why, and ``detail`` says it in words.
    """

    addresses: tuple[str, ...]
    cname: str | None
    since: Mapping[str, int]
    answered: frozenset[str] = frozenset()
    state: State = State.RUNNING
    ended_at: int | None = None
    ending: Ending | None = None
    detail: str = ""

    @property
    def candidate(self) -> AddressSet:
        """What is tried."""
        return self.addresses, self.cname

    @property
    def started_at(self) -> int:
        """When the last of the new addresses came, in Unix seconds."""
        return max(self.since.values())

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.state is State.RUNNING


@dataclass(frozen=True, slots=True)
class CanaryView:
    """All that status and metrics tell of trials.

    ``policy`` is None where there is no canary. ``stable`` are the addresses that each candidate would take
    the place of. ``leading`` are the names whose candidate this proxy answers with. ``endings`` counts
    trials by how they ended.
    """

    policy: CanaryPolicy | None = None
    trials: Mapping[str, Trial] = field(default_factory=dict)
    stable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    leading: frozenset[str] = frozenset()
    endings: Mapping[Ending, int] = field(default_factory=dict)

    def served_to(self, name: str) -> str:
        """Return who is answered with the candidate of ``name``: ``all`` clients or ``none``."""
        return "all" if name in self.leading else "none"


def set_of(entry: Entry) -> AddressSet:
    """Return what ``entry`` answers with."""
    return entry.learned.addresses, entry.learned.cname


def is_in_group(policy: CanaryPolicy, name: str, candidate: AddressSet) -> bool:
    """Tell whether this proxy is in the canary group; who is stays there when the share grows."""
    addresses, cname = candidate
    text = "\0".join((policy.identity, name, cname or "", *addresses))
    lot = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return lot < policy.share * 2**64


def trial_of(stable: Entry | None, newest: Entry, earlier: Trial | None, wall_now: float) -> Trial | None:
    """Return the trial of ``newest``, perhaps the ``earlier`` one; None when there is nothing to try.

    Nothing to try is a first set, or one without new addresses: a probe could tell nothing new. Addresses
    that were on trial in the set before go on where they are, or a set that changes all the time would
    never be taken.
    """
    if stable is None:
        return None
    new = [a for a in newest.learned.addresses if a not in stable.learned.addresses]
    if not new:
        return None
    if earlier is not None and earlier.candidate == set_of(newest) and not earlier.is_running:
        return earlier
    known = earlier if earlier is not None and earlier.is_running else None
    now = int(wall_now)
    since = {a: min(known.since.get(a, now), now) if known else now for a in new}
    answered = frozenset(a for a in new if a in known.answered) if known else frozenset()
    return Trial(newest.learned.addresses, newest.learned.cname, since, answered)


def judge(
    trial: Trial,
    signs: Mapping[str, Sign],
    policy: CanaryPolicy,
    wall_now: float,
    *,
    stable_works: bool,
    refused: bool = False,
    beyond: frozenset[str] = frozenset(),
) -> Trial | Ending:
    """Return the trial as it is at ``wall_now``, or how it ended: the candidate is stable from then on.

    ``signs`` are of its new addresses; one without is not probed at this time. With ``refused`` the helper
    says that other proxies have rolled the candidate back. Those in ``beyond`` say nothing: this host has no
    route to their whole family (IPv6, mostly).
    """
    if not trial.is_running:
        return trial
    answered = trial.answered | {a for a in trial.since if a in signs and signs[a].alive}
    trial = replace(trial, answered=answered) if answered != trial.answered else trial
    is_over = wall_now >= trial.started_at + policy.hold
    telling = [a for a in trial.since if a not in beyond]
    dead = [a for a in telling if a in signs and signs[a].alive is False]
    if stable_works:
        if refused:
            return rolled_back(trial, Ending.FLEET, "other proxies have rolled it back", wall_now)
        failed = [a for a in dead if a in answered and signs[a].failures >= policy.fall]
        if failed:
            detail = f"{', '.join(failed)} failed {policy.fall} times in a row"
            return rolled_back(trial, Ending.FAILED, detail, wall_now)
        silent = [a for a in dead if a not in answered]
        if is_over and silent:
            return rolled_back(trial, Ending.SILENT, f"{', '.join(silent)} never answered", wall_now)
    if is_over and all(a in signs and signs[a].is_good for a in telling):
        return Ending.HELD
    return trial


def rolled_back(trial: Trial, ending: Ending, detail: str, wall_now: float) -> Trial:
    """Return ``trial`` as one whose candidate is refused."""
    return replace(trial, state=State.ROLLED_BACK, ended_at=int(wall_now), ending=ending, detail=detail)


def next_end(trials: Iterable[Trial], policy: CanaryPolicy, wall_now: float) -> float | None:
    """Return in how many seconds the next ``hold`` is over; None when none is to come."""
    ends = [trial.started_at + policy.hold - wall_now for trial in trials if trial.is_running]
    return min((end for end in ends if end > 0), default=None)


# -- on disk -----------------------------------------------------------------------------


def to_list(trials: Mapping[str, Trial]) -> list[dict[str, Any]]:
    """Return JSON values that `from_list` reads."""
    return [
        {
            "name": name,
            "addresses": list(trial.addresses),
            "cname": trial.cname,
            "new": [
                {"address": address, "since": since, "answered": address in trial.answered}
                for address, since in trial.since.items()
            ],
            "state": trial.state.value,
            "ended_at": trial.ended_at,
            "ending": trial.ending and trial.ending.value,
            "detail": trial.detail,
        }
        for name, trial in trials.items()
    ]


def from_list(document: Fields, key: str) -> dict[str, Trial]:
    """Read the list under ``key``; none where there is none, as in files of earlier versions.

    Raises:
        SnapshotError: ``MALFORMED``, naming the first key that is wrong.
    """
    listed = document.sequence(key) if document.has(key) else []
    items = (Fields(item, f"{key}[{index}]") for index, item in enumerate(listed))
    return {fields.name("name"): _trial(fields, key) for fields in items}


def _trial(fields: Fields, place: str) -> Trial:
    try:
        addresses = canonical_addresses(fields.texts("addresses"))
        state = State(fields.text("state"))
        ending = Ending(fields.text("ending")) if fields.has("ending") else None
    except ValueError as exc:
        raise fields.wrong("addresses, state or ending", str(exc)) from exc
    since, answered = {}, set()
    for index, item in enumerate(fields.sequence("new")):
        new = Fields(item, f"{place}.new[{index}]")
        address = new.text("address")
        if address not in addresses:
            raise new.wrong("address", "not one of the set")
        since[address] = new.whole("since")
        if new.flag("answered"):
            answered.add(address)
    if not since:
        raise fields.wrong("new", "none")
    ended_at = fields.whole("ended_at") if fields.has("ended_at") else None
    detail = fields.text("detail") if ending else ""
    cname = fields.optional_name("cname")
    return Trial(addresses, cname, since, frozenset(answered), state, ended_at, ending, detail)
