"""The workers as one: started, given what to answer, asked what they did, started again when they end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum, auto
from typing import Protocol

import structlog

from dnsproxy.core.book import Book
from dnsproxy.core.explain import Explanation, Question
from dnsproxy.core.totals import Totals, Traffic, WorkerView
from dnsproxy.errors import StartError, WorkerError
from dnsproxy.server import Server
from dnsproxy.settings import Settings
from dnsproxy.workers.messages import Content, Explain, Flush, Request, TakeBook, TellTraffic, frame
from dnsproxy.workers.seat import Seat

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds. An idle machine needs 0.05 for all to open, and 0.05 for all to stop.
START_SECONDS = 30.0
STOP_SECONDS = 5.0
# Between two questions to each worker. At most so much of its counts is lost when it is killed.
BEAT_SECONDS = 1.0
# How long a scrape, and an operator's command, waits for the slowest worker.
GATHER_SECONDS = 0.25
ANSWER_SECONDS = 2.0


class Phase(Enum):
    """What the end of a worker means: no start, a restart, or what was asked for."""

    STARTING = auto()
    OPEN = auto()
    CLOSING = auto()


class Starter(Protocol):
    """Who makes the processes: `nursery.Nursery`."""

    sock: socket.socket

    def start_worker(self, number: int) -> socket.socket:
        """Make worker ``number``; return the socket to it."""

    def end_worker(self, number: int) -> None:
        """Kill it if it still runs."""

    def ended(self) -> tuple[int, str]:
        """Read from ``sock`` which one has ended, and how."""


class Fleet:
    """What answers queries when `server.Server` does it in workers; see `server.Plane`."""

    def __init__(
        self, starter: Starter, settings: Settings, count: int, *, beat_seconds: float = BEAT_SECONDS
    ) -> None:
        self._starter = starter
        self._settings = settings
        self._beat_seconds = beat_seconds
        self._book = Book()
        self._framed = frame(TakeBook(self._book))
        self._totals = Totals()
        self._seats = [Seat(number, self._opened, self._end, self._heard) for number in range(1, count + 1)]
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._changed = asyncio.Event()
        self._phase = Phase.STARTING
        self._failure: str | None = None
        self._lost: WorkerError | None = None

    # -- Plane --------------------------------------------------------------------------

    def swap_book(self, book: Book) -> None:
        """Have every worker answer with the addresses of ``book`` from now on."""
        try:
            framed = frame(TakeBook(book))
        except WorkerError as exc:
            log.error("workers.book_too_large", reason=str(exc))  # noqa: TRY400 - the trace would say no more
            return
        self._book, self._framed = book, framed
        for seat in self._seats:
            seat.offer(framed)

    async def open(self) -> None:
        """Start all workers; return when each of them answers.

        Raises:
            StartError: one cannot; none is left.
        """
        await self._check_free()
        asyncio.get_running_loop().add_reader(self._starter.sock.fileno(), self._take_ending)
        for seat in self._seats:
            self._start(seat)
        if not await self._until(self._is_settled, START_SECONDS):
            self._failure = f"serve.workers: not all answer within {START_SECONDS:g} s"
        if self._failure is not None:
            await self.close()
            raise StartError(self._failure)
        self._phase = Phase.OPEN

    async def _check_free(self) -> None:
        """See that nobody listens yet: workers would share the port with another program of this user.

        Raises:
            StartError: somebody does.
        """
        server = Server(self._settings)
        server.swap_book(self._book)
        await server.open()
        await server.close()

    async def run(self) -> None:
        """Look after the workers until cancelled.

        Raises:
            WorkerError: no worker can be started any more.
        """
        log.info("workers.started", pids=[view.pid for view in self._views()])
        while self._lost is None:
            await asyncio.sleep(self._beat_seconds)
            for seat in self._seats:
                if seat.is_there and seat.beat() and not seat.is_being_ended:
                    log.error("worker.stuck", worker=seat.number)
                    self._end(seat)
        raise self._lost

    async def close(self) -> None:
        """Have all workers end; kill those that do not in time."""
        self._phase = Phase.CLOSING
        for timer in self._timers.values():
            timer.cancel()
        for seat in self._seats:
            seat.stop()
        await self._until(self._is_empty, STOP_SECONDS)
        for seat in self._seats:
            if seat.is_there:
                log.warning("worker.killed", worker=seat.number)
                self._end(seat)
        await self._until(self._is_empty, STOP_SECONDS)
        asyncio.get_running_loop().remove_reader(self._starter.sock.fileno())

    async def gather(self) -> None:
        """Have the figures of `traffic` brought up to date, as far as workers answer at once."""
        await self._ask(self._seats, TellTraffic(), GATHER_SECONDS)

    def traffic(self) -> Traffic:
        """Return what all workers did together, and each by itself."""
        return self._totals.traffic(self._views())

    async def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of a name, or all, in every worker; return how many."""
        contents = await self._ask(self._seats, Flush(name_key), ANSWER_SECONDS)
        if len(contents) < len(self._seats):
            # One that is being started has nothing to forget.
            log.warning("workers.not_all_flushed", answered=len(contents), workers=len(self._seats))
        return sum(content for content in contents if isinstance(content, int))

    async def explain(self, question: Question) -> Explanation:
        """Return what the first worker that answers would do with ``question``.

        Raises:
            WorkerError: none answers.
        """
        for seat in self._seats:
            for content in await self._ask([seat], Explain(question), ANSWER_SECONDS):
                if isinstance(content, Explanation):
                    return replace(content, worker=seat.number)
        raise WorkerError("no worker answers")

    # -- questions -------------------------------------------------------------------------

    async def _ask(self, seats: Iterable[Seat], request: Request, seconds: float) -> list[Content]:
        """Return the replies that come within ``seconds``; who was silent of late is not waited for."""
        asked = [future for seat in seats if seat.is_well and (future := seat.ask(request)) is not None]
        if not asked:
            return []
        done, late = await asyncio.wait(asked, timeout=seconds)
        for future in late:
            future.cancel()
        return [future.result() for future in done if not future.cancelled()]

    def _heard(self, seat: Seat, content: Content) -> None:
        if isinstance(content, Traffic):
            self._totals.take(seat.number, content)

    def _views(self) -> list[WorkerView]:
        return [seat.view(self._totals.queries(seat.number)) for seat in self._seats]

    # -- starts and ends ------------------------------------------------------------------------

    def _start(self, seat: Seat) -> None:
        self._timers.pop(seat.number, None)
        try:
            sock = self._starter.start_worker(seat.number)
        except WorkerError as exc:
            self._lose(exc)
        else:
            seat.begin(sock, self._framed)

    def _opened(self, seat: Seat) -> None:
        if self._phase is Phase.OPEN:
            log.info("worker.started", worker=seat.number, restarts=seat.restarts.count)
        self._changed.set()

    def _end(self, seat: Seat) -> None:
        """Make sure of the end of a worker; `_take_ending` is told of it."""
        if seat.is_being_ended:
            return
        seat.is_being_ended = True
        try:
            self._starter.end_worker(seat.number)
        except WorkerError as exc:
            self._lose(exc)

    def _take_ending(self) -> None:
        try:
            number, how = self._starter.ended()
        except WorkerError as exc:
            self._lose(exc)
            return
        seat = self._seats[number - 1]
        lived = seat.end()
        self._totals.end(number)
        how = seat.reason or how
        if self._phase is Phase.OPEN:
            delay = seat.restarts.delay(lived)
            log.error("worker.ended", worker=number, how=how, restart_in=delay)
            self._timers[number] = asyncio.get_running_loop().call_later(delay, self._start, seat)
        elif self._phase is Phase.STARTING:
            self._failure = self._failure or seat.reason or f"serve.workers: worker {number} ended: {how}"
        self._changed.set()

    def _lose(self, exc: WorkerError) -> None:
        """Take note that the nursery has gone, and with it every worker."""
        asyncio.get_running_loop().remove_reader(self._starter.sock.fileno())
        self._lost = self._lost or exc
        self._failure = self._failure or str(exc)
        for seat in self._seats:
            seat.end()
        self._changed.set()

    # -- waiting --------------------------------------------------------------------------------

    def _is_settled(self) -> bool:
        return self._failure is not None or all(seat.is_open for seat in self._seats)

    def _is_empty(self) -> bool:
        return not any(seat.is_there for seat in self._seats)

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
