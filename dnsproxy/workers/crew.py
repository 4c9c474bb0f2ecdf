"""The processes of all workers: started, looked after, followed by others, ended."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

import structlog

from dnsproxy.core.totals import WorkerView
from dnsproxy.errors import WorkerError
from dnsproxy.net.doors import Door
from dnsproxy.supervise import note_failure
from dnsproxy.workers.messages import Content
from dnsproxy.workers.seat import Seat

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds. An idle machine needs 0.05 for all to open, and 0.05 for all to stop.
START_SECONDS = 30.0
STOP_SECONDS = 5.0
# Between attempts to start a worker while no descriptor is free.
RETRY_SECONDS = 1.0


class Phase(Enum):
    """What the end of a worker means: no start, a restart, or what was asked for."""

    STARTING = auto()
    OPEN = auto()
    CLOSING = auto()


class Starter(Protocol):
    """Who makes the processes: `nursery.Nursery`."""

    sock: socket.socket

    def start_worker(self, process: int, number: int) -> socket.socket:
        """Make ``process``, as worker ``number``; return the socket to it."""

    def end_worker(self, process: int) -> None:
        """Kill it if it still runs."""

    def ended(self) -> tuple[int, str]:
        """Read from ``sock`` which one has ended, and how."""


class Owner(Protocol):
    """Whose crew it is: `fleet.Fleet`."""

    def brief(self, seat: Seat, process: int, sock: socket.socket) -> None:
        """Tell the new ``process`` in ``seat``, at the other end of ``sock``, what it is to do."""

    def heard(self, seat: Seat, content: Content) -> None:
        """Take a reply."""

    def ended(self, process: int) -> None:
        """Take note of the end of ``process``."""


class Crew:
    """``count`` seats, each with one process after another; with two while one follows another."""

    def __init__(self, owner: Owner, starter: Starter, count: int) -> None:
        self._owner = owner
        self._starter = starter
        self.seats = [self._seat(number) for number in range(1, count + 1)]
        self.processes: dict[int, Seat] = {}
        self.failure: str | None = None
        self.lost: WorkerError | None = None
        self._started = 0
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._changed = asyncio.Event()
        self._phase = Phase.STARTING
        self._renewing = asyncio.Lock()

    def _seat(self, number: int) -> Seat:
        return Seat(number, self._opened, self.end, self._owner.heard)

    def views(self, queries: Callable[[int], int]) -> list[WorkerView]:
        """Return what the status shows; ``queries`` counts those of a process."""
        return [seat.view(queries(seat.process)) for seat in self.seats]

    # -- all of them -------------------------------------------------------------------------

    async def open(self) -> str | None:
        """Start a process for each seat; return why not all answer, if so."""
        asyncio.get_running_loop().add_reader(self._starter.sock.fileno(), self._take_ending)
        for seat in self.seats:
            self._start(seat)
        if not await self._until(self._is_settled, START_SECONDS):
            self.failure = f"serve.workers: not all answer within {START_SECONDS:g} s"
        if self.failure is None:
            self._phase = Phase.OPEN
        return self.failure

    async def close(self, seconds: float, held: frozenset[Door] = frozenset()) -> None:
        """Have all end, and kill those that have not after ``seconds``.

        The service manager has ``held`` open.
        """
        self._phase = Phase.CLOSING
        for timer in self._timers.values():
            timer.cancel()
        for seat in self.processes.values():
            seat.stop(held=held)
        await self._until(self._is_empty, seconds)
        for seat in list(self.processes.values()):
            log.warning("worker.killed", worker=seat.number)
            self.end(seat)
        await self._until(self._is_empty, STOP_SECONDS)
        asyncio.get_running_loop().remove_reader(self._starter.sock.fileno())

    async def renew(self, seconds: float) -> str | None:
        """Replace all, one after another: each ends, within ``seconds``, once its successor answers.

        Return why that ended early, if it did; who had no successor by then stays.
        """
        if self._renewing.locked():
            return "they are being restarted already"
        async with self._renewing:
            for seat in list(self.seats):
                failure = await self._replace(seat, seconds)
                if failure is not None:
                    return failure
        return None

    async def _replace(self, seat: Seat, seconds: float) -> str | None:
        heir = self._seat(seat.number)
        heir.restarts = seat.restarts
        self._start(heir)
        await self._until(lambda: heir.is_open or not heir.is_there, START_SECONDS)
        if not heir.is_open:
            self.end(heir)
            return heir.reason or f"worker {seat.number}: its successor does not answer"
        timer = self._timers.pop(seat.number, None)
        if timer is not None:
            timer.cancel()
        self.seats[seat.number - 1] = heir
        log.info("worker.replaced", worker=seat.number)
        seat.stop(gently=True)
        if not await self._until(lambda: not seat.is_there, seconds):
            log.warning("worker.killed", worker=seat.number)
            self.end(seat)
        return None

    # -- starts and ends of one ----------------------------------------------------------------

    def _start(self, seat: Seat) -> None:
        self._timers.pop(seat.number, None)
        self._started += 1
        process = self._started
        try:
            sock = self._starter.start_worker(process, seat.number)
        except WorkerError as exc:
            self._lose(exc)
            return
        except OSError as exc:
            self._fail_start(seat, exc)
            if self._phase is Phase.OPEN and seat in self.seats:
                self._start_in(RETRY_SECONDS, seat)
            return
        self.processes[process] = seat
        try:
            self._owner.brief(seat, process, sock)
        except OSError as exc:
            # A process that has no sockets is ended, and another one started as after any end.
            self._fail_start(seat, exc)
            sock.close()
            self._end_process(process)

    def _fail_start(self, seat: Seat, exc: OSError) -> None:
        """Note that this host is short of something that a worker takes: descriptors, buffers."""
        seat.reason = f"serve.workers: worker {seat.number}: {exc.strerror or exc}"
        note_failure("worker start", exc, detail=f"worker {seat.number}")
        if self._phase is Phase.STARTING:
            self.failure = self.failure or seat.reason
            self._changed.set()

    def _start_in(self, seconds: float, seat: Seat) -> None:
        self._timers[seat.number] = asyncio.get_running_loop().call_later(seconds, self._start, seat)

    def _opened(self, seat: Seat) -> None:
        if self._phase is Phase.OPEN:
            log.info("worker.started", worker=seat.number, restarts=seat.restarts.count)
        self._changed.set()

    def end(self, seat: Seat) -> None:
        """Make sure of the end of a worker; `_take_ending` is told of it."""
        if seat.is_being_ended:
            return
        seat.is_being_ended = True
        self._end_process(seat.process)

    def _end_process(self, process: int) -> None:
        try:
            self._starter.end_worker(process)
        except WorkerError as exc:
            self._lose(exc)

    def _take_ending(self) -> None:
        try:
            process, how = self._starter.ended()
        except WorkerError as exc:
            self._lose(exc)
            return
        seat = self.processes.pop(process)
        lived = seat.end()
        self._owner.ended(process)
        how = seat.reason or how
        if self._phase is Phase.OPEN and seat in self.seats:
            delay = seat.restarts.delay(lived)
            log.error("worker.ended", worker=seat.number, how=how, restart_in=delay)
            self._start_in(delay, seat)
        elif self._phase is Phase.STARTING:
            ended = f"serve.workers: worker {seat.number} ended: {how}"
            self.failure = self.failure or seat.reason or ended
        self._changed.set()

    def _lose(self, exc: WorkerError) -> None:
        """Take note that the nursery has gone, and with it every worker."""
        asyncio.get_running_loop().remove_reader(self._starter.sock.fileno())
        self.lost = self.lost or exc
        self.failure = self.failure or str(exc)
        for seat in self.processes.values():
            seat.end()
        self.processes.clear()
        self._changed.set()

    # -- waiting ---------------------------------------------------------------------------------

    async def until_lost(self) -> WorkerError:
        """Return why no worker can be started any more, once that is so."""
        while self.lost is None:
            self._changed.clear()
            await self._changed.wait()
        return self.lost

    def _is_settled(self) -> bool:
        return self.failure is not None or all(seat.is_open for seat in self.seats)

    def _is_empty(self) -> bool:
        return not self.processes

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for ``condition``; return whether it came true within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
