"""Discovered names: look at registries at intervals, keep known names through failures and odd responses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import structlog

from dnsproxy.core.registry import MAX_FOUND, Found
from dnsproxy.core.withdrawal import KEEP, RoleNames
from dnsproxy.errors import DiscoverError, Doubt
from dnsproxy.helper.discover import Inconclusive, Report, Target
from dnsproxy.supervise import supervise

# The hosts of a registry change when it is moved or reconfigured: once in years. One request in ten
# rounds (five minutes with the default interval) is no load for it.
ROUNDS = 10

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

Ask = Callable[[Target], Awaitable[Report]]
_Subject = tuple[str, str]


class Findings:
    """The known names of each role of each registry. No I/O but the log.

    ``longest_gap`` is that of `RoleNames`. ``now`` is monotonic time, which no clock step changes;
    ``wall_now`` is Unix time.
    """

    def __init__(self, longest_gap: float) -> None:
        self.failing: dict[_Subject, Doubt] = {}
        self._longest_gap = longest_gap
        self._roles: dict[_Subject, RoleNames] = {}
        # Of the last conclusive look; without one a subject is missing.
        self._observed: dict[_Subject, float] = {}
        # Of the last inconclusive look at a role with known names, until it is long past.
        self._inconclusive_at: dict[_Subject, float] = {}
        self._logged: set[_Subject] = set()
        self._exposed: set[str] = set()

    def restore(self, found: Iterable[Found]) -> None:
        """Add the names known before a restart, or to another helper of the group; withdraw none."""
        for entry in found:
            self._role(entry.subject).restore(entry.names)
            at = float(entry.observed_at)
            self._observed[entry.subject] = max(at, self._observed.get(entry.subject, at))

    def bring_back(self, wall_now: float) -> None:
        """Date no look after ``wall_now``: the clock may have been set back."""
        self._observed = {subject: min(at, wall_now) for subject, at in self._observed.items()}

    def found(self) -> tuple[Found, ...]:
        """Return the known names, without roles of which nothing is known.

        ``observed_at`` is 0 after inconclusive looks alone: they outdate no finding of another helper.
        """
        return tuple(
            Found(*subject, role.names, int(self._observed.get(subject, 0)))
            for subject, role in sorted(self._roles.items())
            if role.is_known
        )

    def record(self, label: str, report: Report, now: float, wall_now: float) -> None:
        """Record a look at the registry with this label; log each change once."""
        for name, outcome in sorted(report.outcomes.items()):
            subject = (label, name)
            if isinstance(outcome, DiscoverError):
                self._record_failure(subject, outcome)
            elif isinstance(outcome, Inconclusive):
                self._record_inconclusive(subject, outcome, now)
            else:
                self._record_names(subject, outcome, now, wall_now)
        if report.exposed and label not in self._exposed:
            advice = "other users of this host can read the password; run: chmod o-rwx"
            log.warning("helper.credentials_exposed", registry=label, detail=advice)
        (self._exposed.add if report.exposed else self._exposed.discard)(label)

    def knows(self, label: str, roles: Iterable[str]) -> bool:
        """Return whether the names of all ``roles`` of a registry are known."""
        return all((label, role) in self._roles and self._roles[label, role].is_known for role in roles)

    def _role(self, subject: _Subject) -> RoleNames:
        return self._roles.setdefault(subject, RoleNames(self._longest_gap))

    def _record_failure(self, subject: _Subject, error: DiscoverError) -> None:
        if self.failing.get(subject) is not error.reason:
            registry, role = subject
            facts = {"registry": registry, "role": role, "reason": error.reason.value, "detail": str(error)}
            log.warning("helper.discover_failed", **facts, kept=list(self._role(subject).names))
        self.failing[subject] = error.reason

    def _record_inconclusive(self, subject: _Subject, outcome: Inconclusive, now: float) -> None:
        known = self._role(subject)
        known.note_inconclusive()
        if known.names:
            if subject not in self._inconclusive_at:
                registry, role = subject
                facts = {"registry": registry, "role": role, "reason": outcome.reason.value}
                kept = list(known.names)
                log.warning("helper.discover_inconclusive", **facts, detail=outcome.detail, kept=kept)
            self._inconclusive_at[subject] = now
        if known.is_known:
            self._record_success(subject, known.names)
        else:
            self.failing.pop(subject, None)

    def _record_names(self, subject: _Subject, names: Sequence[str], now: float, wall_now: float) -> None:
        known = self._role(subject)
        before = known.names
        change = known.conclude(names, now)
        self._observed[subject] = wall_now
        # Nodes of a registry may differ: what comes and goes is logged once.
        if now - self._inconclusive_at.get(subject, now) > max(KEEP, self._longest_gap):
            del self._inconclusive_at[subject]
        if change.withdrawn:
            registry, role = subject
            withdrawn = list(change.withdrawn)
            log.info("helper.discovered_withdrawn", registry=registry, role=role, withdrawn=withdrawn)
        if change.refused:
            detail = f"{', '.join(change.refused)}: {MAX_FOUND} names are known, and none is withdrawn yet"
            self._record_failure(subject, DiscoverError(Doubt.TOO_MANY, detail))
        else:
            self._record_success(subject, before)

    def _record_success(self, subject: _Subject, before: tuple[str, ...]) -> None:
        names = self._role(subject).names
        recovered = self.failing.pop(subject, None) is not None
        if recovered or subject not in self._logged or before != names:
            self._logged.add(subject)
            registry, role = subject
            log.info("helper.discovered", registry=registry, role=role, names=list(names))


class Seeker:
    """Looks at each of ``targets`` independently. ``interval`` is that of the helper's rounds, in seconds."""

    def __init__(
        self,
        targets: Sequence[Target],
        ask: Ask,
        *,
        interval: float,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        # A look takes time too, and one that fails need not be a pause.
        self.findings = Findings(longest_gap=2 * interval * ROUNDS)
        self._targets = tuple(targets)
        self._ask = ask
        self._interval = interval
        self._wall = wall
        self._monotonic = monotonic

    async def run(self, on_change: Callable[[], None]) -> None:
        """Ask until cancelled; ``on_change`` is called when other names are known than before."""
        async with asyncio.TaskGroup() as group:
            for target in self._targets:
                follow = partial(self._follow, target, on_change)
                group.create_task(supervise("registry", follow, detail=target.label))

    async def _follow(self, target: Target, on_change: Callable[[], None]) -> None:
        failures = 0
        while True:
            before = _names(self.findings)
            good = await self.ask_once(target)
            if _names(self.findings) != before:
                on_change()
            failures = 0 if good else failures + 1
            await asyncio.sleep(self.delay(failures))

    async def ask_once(self, target: Target) -> bool:
        """Look at ``target`` now; return whether nothing failed and the names of all roles are known."""
        try:
            report = await self._ask(target)
        except Exception:  # an internal error in here must not end the helper's rounds
            log.exception("helper.discover_crashed", registry=target.label)
            return False
        self.findings.record(target.label, report, self._monotonic(), self._wall())
        failed = any((target.label, role) in self.findings.failing for role in report.outcomes)
        return not failed and self.findings.knows(target.label, report.outcomes)

    def delay(self, failures: int) -> float:
        """Seconds to the next look: `ROUNDS` rounds; after a failure one, doubled with each further one."""
        if not failures:
            return self._interval * ROUNDS
        return min(self._interval * 2.0 ** min(failures - 1, 16), self._interval * ROUNDS)


def _names(findings: Findings) -> dict[_Subject, tuple[str, ...]]:
    return {entry.subject: entry.names for entry in findings.found()}
