"""Runs the state machine of learned addresses: its file, its probes, its clock and the operator's program.

Each input changes the state at once. `AddressService.run` then settles the names that it concerns in slices,
writes the state, and only then gives changed answers to ``publish``. The service lives as long as the
process; `configure` gives it other settings.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from dnsproxy.core.addresses.change_event import name_statuses
from dnsproxy.core.addresses.lifecycle import AddressLifecycle, OpenedSnapshot
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.addresses.state_file import encode
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.convergence import Convergence
from dnsproxy.core.registry import Wanted
from dnsproxy.core.trust import Trust
from dnsproxy.net.hook import Hook, check_program
from dnsproxy.net.probe import ProbeLoop, Prober
from dnsproxy.net.statefile import StateFile, load_state, overrides_path, set_aside
from dnsproxy.settings import Settings
from dnsproxy.supervise import supervise
from dnsproxy.trust import address_policy

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Names evaluated before queries have their turn: 1 ms; lines of the state made: 5 ms.
SLICE = 50
LINES = 250
# Seconds between two writes that change ages only, and before a failed write is retried.
REFRESH_GAP = 60.0
# Seconds between two looks for sets that `learn.max_stale` has ended.
TICK = 30.0
# Seconds between two attempts to write while the disk fails.
RETRY_GAP = 5.0
# Seconds. Answers expire at monotonic times, which are computed again once the wall clock was set by more.
CLOCK_STEP = 5.0


@dataclass(frozen=True, slots=True)
class AddressSettings:
    """What the service takes from one configuration; making it changes nothing."""

    policy: AddressPolicy
    prober: Prober
    program: Path | None
    state_file: Path

    @classmethod
    def make(cls, settings: Settings, trust: Trust) -> AddressSettings:
        """Return them.

        Raises:
            StartError: ``learn.verify.ca_file`` or ``learn.on_change`` cannot be used.
        """
        learn = settings.learn
        if learn.on_change is not None:
            check_program(learn.on_change)
        return cls(address_policy(settings, trust), Prober(learn.verify), learn.on_change, learn.state_file)


class AddressService:
    """Owns the state of learned addresses; ``publish`` gets each table to answer from."""

    def __init__(
        self,
        settings: AddressSettings,
        publish: Callable[[ServedTable], None],
        update: Callable[[ServedTable, Iterable[str]], None] | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.lifecycle = AddressLifecycle(settings.policy)
        self.convergence = Convergence(wall())
        # What clients are answered from; the state may be ahead of it, because its file is written first.
        self._answered = self.lifecycle.table()
        self._publish_table = publish
        self._update = update
        self._wall = wall
        self._file = StateFile(settings.state_file)
        self._probes = ProbeLoop(self.lifecycle, settings.prober, self._wake_up)
        self._hook = Hook(settings.program)
        self._is_offer_due = True
        self._wake = asyncio.Event()
        # What of the state is on disk, and when it was written.
        self._revision = self._urgent = 0
        self._measured = -1  # the revision whose changes that overrides keep out are not measured any more
        self._written_at = -math.inf
        self._managed: Mapping[str, Wanted] = {}
        # Names whose change is not answered yet.
        self._unanswered: set[str] = set()
        self._expiry_offset = self._clock_offset()
        self._publishing = asyncio.Lock()

    @property
    def table(self) -> ServedTable:
        """What clients are answered from, and the highest serial accepted."""
        return replace(self._answered, serial=self.lifecycle.serial)

    @property
    def disk_failure(self) -> str | None:
        """Why the state could not be written last; None when it could."""
        return self._file.failure

    # -- start, other settings, end -------------------------------------------------------

    def load(self, trust: Trust, disk_failure: str | None = None) -> None:
        """Answer from what is on disk. Never raises: what cannot be used is set aside."""
        path = self._file.path
        self._file.failure = disk_failure
        lifecycle = self.lifecycle
        is_new = True
        try:
            problems = load_state(path, lifecycle, trust)
        except OSError as exc:
            # A traceback would say nothing more than the system's reason.
            log.error("learned.state_unreadable", file=str(path), reason=exc.strerror)  # noqa: TRY400
            set_aside(path, self._wall())
        else:
            for problem in problems or ():
                log.warning("learned.state_rejected", detail=problem)
            damaged = (path, overrides_path(path)) if problems else ()
            for file in filter(Path.exists, damaged):
                set_aside(file, self._wall())
            is_new = bool(problems) or overrides_path(path).exists()
        ages = lifecycle.revision - lifecycle.urgent
        while not lifecycle.settle(SLICE, time.monotonic(), self._wall()):
            pass
        table = lifecycle.table()
        if lifecycle.snapshots:
            log.info("learned.loaded", names=len(table.sets), serial=lifecycle.serial)
        self._log_events()
        lifecycle.take_changes()
        lifecycle.take_events()  # nothing changed for clients
        self._managed = lifecycle.managed_by_name
        self._publish_table(table)
        self._answered = table
        self._pass_over(lifecycle.names)
        self.convergence.record(dict(table.sets), self._wall())
        if not is_new:
            # The clock may have been set back: then the file has other ages.
            self._revision, self._urgent = ages + lifecycle.urgent, lifecycle.urgent
        self._wake_up()

    def configure(self, settings: AddressSettings, opened: Iterable[OpenedSnapshot] | None) -> None:
        """Go by other settings; ``opened`` are the snapshots, verified by other keys, None by the same."""
        lifecycle = self.lifecycle
        if opened is not None or settings.policy != lifecycle.policy:
            held = list(lifecycle.snapshots.values()) if opened is None else opened
            lifecycle.configure(settings.policy, held)
        self._probes.prober = settings.prober
        self._hook.change(settings.program)
        self._is_offer_due = True
        if settings.state_file != self._file.path:
            self._file, self._revision, self._urgent = StateFile(settings.state_file), -1, -1
        self._wake_up()

    async def run(self) -> None:
        """Publish, probe and run the operator's program, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(supervise("publication of addresses", self._keep_published))
            tasks.create_task(supervise("probes", self._probes.run))
            tasks.create_task(supervise("hook", self._hook.run))

    async def close(self) -> None:
        """Write what is not on disk."""
        await self._publish(is_last=True)

    # -- inputs ---------------------------------------------------------------------------

    def accept(self, opened: OpenedSnapshot) -> None:
        """Take an accepted snapshot."""
        self.lifecycle.accept(opened)
        self._wake_up()

    async def order(self, command: Callable[[AddressLifecycle, float], None]) -> str | None:
        """Have ``command`` change the state at a Unix time; return when that is on disk and answered.

        Returns why it is not on disk, None when it is.

        Raises:
            OrderError: as the command; nothing has changed.
        """
        command(self.lifecycle, self._wall())
        self._wake_up()  # `run` completes it if the caller is cancelled
        await self._publish(is_order=True)
        return self._file.failure

    # -- publication ----------------------------------------------------------------------

    def _wake_up(self) -> None:
        self._wake.set()

    def _clock_offset(self) -> float:
        """Return by how much the wall clock is ahead of the monotonic one; setting it changes that."""
        return self._wall() - time.monotonic()

    async def _keep_published(self) -> None:
        while True:
            change, look = self._next_change(), self._next_look()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(change, look)):
                    await self._wake.wait()
            if not self._wake.is_set() and change <= look:
                self.lifecycle.tick()
            self._wake.clear()
            try:
                await self._publish()
            except BaseException:
                self._wake_up()
                raise

    def _next_change(self) -> float:
        """Return the seconds until time alone may change the state."""
        trial_end = self.lifecycle.next_trial_end(self._wall()) or math.inf
        return min(trial_end, TICK) if self.lifecycle.policy.max_stale < math.inf else trial_end

    def _next_look(self) -> float:
        """Return the seconds until a write may be due, or the clocks are compared again."""
        if self._revision == self.lifecycle.revision:
            return TICK
        return min(TICK, max(0.0, self._written_at + REFRESH_GAP - time.monotonic()))

    async def _publish(self, *, is_last: bool = False, is_order: bool = False) -> None:
        """Settle, write, then answer."""
        async with self._publishing:
            lifecycle = self.lifecycle
            is_clock_set = abs(self._clock_offset() - self._expiry_offset) > CLOCK_STEP
            if is_clock_set:
                lifecycle.tick()
                self._expiry_offset = self._clock_offset()
            while not lifecycle.settle(SLICE, time.monotonic(), self._wall()):  # noqa: ASYNC110 - work in slices
                await asyncio.sleep(0)  # queries first
            self._probes.kick()
            self._log_events()
            self._pass_over_held()
            self._unanswered.update(self._changed_names(lifecycle.take_changes()))
            if is_clock_set:
                self._unanswered.update(lifecycle.names)
            table, managed = lifecycle.table() if self._unanswered else None, lifecycle.managed_by_name
            is_urgent = await self._write_if_due(is_last=is_last, is_order=is_order)
            if table is not None:
                await self._serve(table, managed, list(self._unanswered))
                self._unanswered.clear()
            self._log_events()
            if self._hook.is_wanted and (table is not None or is_urgent or self._is_offer_due):
                self._is_offer_due = False
                is_frozen = lifecycle.overrides.freeze is not None
                self._hook.offer(name_statuses(lifecycle), lifecycle.serial, frozen=is_frozen)

    async def _write_if_due(self, *, is_last: bool, is_order: bool) -> bool:
        """Write the state if the file is old, or wrong in more than ages; return whether that was so."""
        lifecycle, file = self.lifecycle, self._file
        waited = time.monotonic() - self._written_at
        may_try = is_last or is_order or file.failure is None or waited >= RETRY_GAP
        is_urgent = self._urgent != lifecycle.urgent and may_try
        is_due = is_urgent or (self._revision != lifecycle.revision and (is_last or waited >= REFRESH_GAP))
        if not is_due:
            return False
        revision, urgent = lifecycle.revision, lifecycle.urgent
        lines: list[str] = []
        for number, line in enumerate(encode(lifecycle), 1):
            if line:
                lines.append(line)
            if not number % LINES:
                await asyncio.sleep(0)
        await file.write(lines)
        if file is not self._file:
            return await self._write_if_due(
                is_last=is_last, is_order=is_order
            )  # `configure` has put another one in its place
        self._written_at = time.monotonic()
        if file.failure is None:
            self._revision, self._urgent = revision, urgent
            with suppress(OSError):
                overrides_path(file.path).unlink(missing_ok=True)
        return True

    def _changed_names(self, changed: list[str]) -> list[str]:
        """Return ``changed`` and the names that are managed in another way than before, or no longer."""
        before, managed = self._managed, self.lifecycle.managed_by_name
        if before is managed:
            return changed
        other = [
            name
            for name in {**before, **managed}
            if (entry := managed.get(name)) is not (earlier := before.get(name)) and entry != earlier
        ]
        return list(dict.fromkeys((*changed, *other)))

    async def _serve(self, table: ServedTable, managed: Mapping[str, Wanted], changed: list[str]) -> None:
        """Answer ``changed`` by ``table``."""
        self._managed = managed
        if self._update is None:
            self._publish_table(table)
        for start in range(0, len(changed), SLICE):
            names = changed[start : start + SLICE]
            if self._update is not None:
                self._update(table, names)
            self.convergence.record({name: table.sets.get(name) for name in names}, self._wall())
            await asyncio.sleep(0)
        self._answered = table

    def _pass_over_held(self) -> None:
        """Do not measure what commands keep out at this time."""
        lifecycle = self.lifecycle
        if self._measured != lifecycle.revision:
            self._measured = lifecycle.revision
            freeze = lifecycle.overrides.freeze
            self._pass_over({*lifecycle.overrides.pins, *(freeze.sets if freeze is not None else ())})

    def _pass_over(self, names: Iterable[str]) -> None:
        """Measure no change of what helpers state for ``names`` at this time."""
        stated = (self.lifecycle.owned(name) for name in names)
        self.convergence.pass_over(statement for statement in stated if statement is not None)

    def _log_events(self) -> None:
        for level, event, fields in self.lifecycle.take_events():
            getattr(log, level)(event, **fields)
