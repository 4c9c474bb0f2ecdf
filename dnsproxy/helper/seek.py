"""Keep what registries tell about themselves: ask again and again, and let no failure take anything back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import structlog

from dnsproxy.core.registry import MAX_FOUND, Found
from dnsproxy.errors import DiscoverError, Doubt
from dnsproxy.helper.discover import Report, Target
from dnsproxy.supervise import supervise

# What a registry tells changes when it is moved or reconfigured: once in years. One request in ten
# rounds (five minutes with the default interval) leaves no trace in its logs that anybody minds.
ROUNDS = 10
# Seconds that a name is kept after a registry has told another one in its place. Clients keep
# tokens for minutes; the nodes of a registry that is being moved tell different names meanwhile.
KEEP = 3600.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

Ask = Callable[[Target], Awaitable[Report]]
_Subject = tuple[str, str]


class Findings:
    """What was found for each role of each registry. Times are Unix seconds. No I/O but the log."""

    def __init__(self) -> None:
        self._seen: dict[_Subject, dict[str, float]] = {}
        self._observed: dict[_Subject, float] = {}
        self.failing: dict[_Subject, Doubt] = {}
        self._told: set[_Subject] = set()
        self._exposed: set[str] = set()

    def restore(self, found: Iterable[Found]) -> None:
        """Take up what was known before a restart, or to another helper of the group.

        It is put together with what has been found out here: a name is kept as if all had been seen here.
        """
        for entry in found:
            at = float(entry.observed_at)
            seen = self._seen.get(entry.subject, {})
            newest = max(at, self._observed.get(entry.subject, at))
            both = {**seen, **{name: max(at, seen.get(name, at)) for name in entry.names}}
            self._observed[entry.subject] = newest
            self._seen[entry.subject] = _newest({n: t for n, t in both.items() if newest - t < KEEP})

    def bring_back(self, wall_now: float) -> None:
        """Let nothing have been seen after ``wall_now``: the clock may have been set back."""
        self._observed = {subject: min(seen, wall_now) for subject, seen in self._observed.items()}
        for seen in self._seen.values():
            seen.update({name: wall_now for name, at in seen.items() if at > wall_now})

    def found(self) -> tuple[Found, ...]:
        """Return what is known; a role that was never found out is not in it."""
        return tuple(
            Found(registry, role, tuple(sorted(self._seen[registry, role])), int(observed_at))
            for (registry, role), observed_at in sorted(self._observed.items())
        )

    def record(self, label: str, report: Report, wall_now: float) -> None:
        """Take what the registry with this label has told; each change is logged once."""
        for role, outcome in sorted(report.outcomes.items()):
            if isinstance(outcome, DiscoverError):
                self._record_failure((label, role), outcome)
            else:
                self._record_success((label, role), outcome, wall_now)
        if report.exposed and label not in self._exposed:
            advice = "everybody on this host can read the password; run: chmod o-rwx"
            log.warning("helper.credentials_exposed", registry=label, detail=advice)
        (self._exposed.add if report.exposed else self._exposed.discard)(label)

    def _record_failure(self, subject: _Subject, error: DiscoverError) -> None:
        if self.failing.get(subject) is not error.reason:
            registry, role = subject
            facts = {"registry": registry, "role": role, "reason": error.reason.value, "detail": str(error)}
            log.warning("helper.discover_failed", **facts, kept=sorted(self._seen.get(subject, ())))
        self.failing[subject] = error.reason

    def _record_success(self, subject: _Subject, names: Sequence[str], wall_now: float) -> None:
        before = self._seen.get(subject, {})
        kept = {name: seen for name, seen in before.items() if abs(wall_now - seen) < KEEP}
        kept |= dict.fromkeys(names, wall_now)
        newest = self._seen[subject] = _newest(kept)
        self._observed[subject] = wall_now
        recovered = self.failing.pop(subject, None) is not None
        if recovered or subject not in self._told or set(before) != set(newest):
            self._told.add(subject)
            registry, role = subject
            log.info("helper.discovered", registry=registry, role=role, names=sorted(newest))


def _newest(seen: dict[str, float]) -> dict[str, float]:
    newest = sorted(seen, key=lambda name: (-seen[name], name))[:MAX_FOUND]
    return {name: seen[name] for name in newest}


class Seeker:
    """Asks each of ``targets`` in its own time. ``interval`` is that of the helper's rounds, in seconds."""

    def __init__(
        self,
        targets: Sequence[Target],
        ask: Ask,
        *,
        interval: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.findings = Findings()
        self._targets = tuple(targets)
        self._ask = ask
        self._interval = interval
        self._wall = wall

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
        """Ask ``target`` now, and tell whether it told everything that is sought."""
        try:
            report = await self._ask(target)
        except Exception:  # a mistake of ours in here must not end the helper's rounds
            log.exception("helper.discover_crashed", registry=target.label)
            return False
        self.findings.record(target.label, report, self._wall())
        return not any(isinstance(outcome, DiscoverError) for outcome in report.outcomes.values())

    def delay(self, failures: int) -> float:
        """Seconds to the next time: `ROUNDS` rounds; after a failure one, doubled with each further one."""
        if not failures:
            return self._interval * ROUNDS
        return min(self._interval * 2.0 ** min(failures - 1, 16), self._interval * ROUNDS)


def _names(findings: Findings) -> dict[_Subject, tuple[str, ...]]:
    return {entry.subject: entry.names for entry in findings.found()}
