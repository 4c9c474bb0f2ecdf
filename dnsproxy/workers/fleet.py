"""The workers as one: given what to answer, and on what; asked what they did."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import replace

import structlog

from dnsproxy import output
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.explain import Explanation, Question
from dnsproxy.core.totals import Totals, Traffic
from dnsproxy.errors import StartError, WorkerError
from dnsproxy.net.doors import Door, Doorkeeper, dns_doors
from dnsproxy.outfit import Outfit
from dnsproxy.plane import Change
from dnsproxy.settings import Settings
from dnsproxy.settings.plain import pack
from dnsproxy.supervise import in_thread, supervise
from dnsproxy.workers.channel import MAX_SOCKETS
from dnsproxy.workers.crew import STOP_SECONDS, Crew, Starter
from dnsproxy.workers.messages import (
    MAX_SETTINGS,
    Begin,
    Content,
    Explain,
    Flush,
    Refit,
    Request,
    TellTraffic,
)
from dnsproxy.workers.seat import Seat
from dnsproxy.workers.start import MAX_UPSTREAMS, for_one_of
from dnsproxy.workers.table_feed import SharedTable, TableFeed
from dnsproxy.workers.worker import GENTLE_SECONDS

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds between two questions to each worker. At most so much of its counts is lost when it is killed.
BEAT_SECONDS = 1.0
# How long a scrape, and an operator's command, waits for the slowest worker.
GATHER_SECONDS = 0.25
ANSWER_SECONDS = 2.0
# How long a worker may take for another configuration; between two attempts to tell it.
REFIT_SECONDS = 5.0
RETRY_SECONDS = 0.05


class Fleet:
    """What answers queries when `server.Server` does it in workers; see `plane.Plane`.

    The sockets are the control process's (``keeper``); each worker is handed its share of them, as is who
    comes after it. So what clients have sent waits where it is until somebody reads it.
    """

    def __init__(
        self,
        starter: Starter,
        settings: Settings,
        count: int,
        keeper: Doorkeeper,
        *,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._settings = settings
        self._count = count
        self._keeper = keeper
        self._beat_seconds = beat_seconds
        self._encoded = pack(settings)
        self._shared = SharedTable(ServedTable())
        self._totals = Totals()
        self._version = 0
        self._crew = Crew(self, starter, count)

    # -- Plane --------------------------------------------------------------------------

    @property
    def is_well(self) -> bool:
        """Whether a worker answers; one that does not is replaced, which needs no service manager."""
        return any(seat.is_well for seat in self._crew.seats)

    def swap_table(self, table: ServedTable) -> None:
        """Have every worker answer with the addresses of ``table`` from now on."""
        self._offer(self._shared.replace(table))

    def update(self, table: ServedTable, names: Iterable[str]) -> None:
        """See `Plane.update`."""
        self._offer(self._shared.update(table, names))

    def _offer(self, names: list[str]) -> None:
        for seat in self._crew.processes.values():
            seat.offer(names)

    async def open(self) -> None:
        """Start all workers; return when each of them answers.

        Raises:
            StartError: one cannot; none is left.
        """
        _check(self._settings, self._encoded)
        self._keeper.open(dns_doors(self._settings))
        failure = await self._crew.open()
        if failure is not None:
            await self.close()
            raise StartError(failure)

    async def run(self) -> None:
        """Look after the workers until cancelled.

        Raises:
            WorkerError: no worker can be started any more.
        """
        log.info("workers.started", pids=[view.pid for view in self._crew.views(self._totals.queries)])
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(supervise("workers", self._beat))
            lost = await self._crew.until_lost()
            beating.cancel()
        raise lost

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_seconds)
            for seat in self._crew.seats:
                if seat.is_there and seat.beat() and not seat.is_being_ended:
                    log.error("worker.stuck", worker=seat.number)
                    self._crew.end(seat)
            await self._deal()

    async def finish(self) -> None:
        """Have all workers answer what clients have sent, and end; kill those that do not in time."""
        held = self._keeper.given
        self._keeper.close()
        await self._crew.close(self._settings.forward.timeout.total + STOP_SECONDS, held)

    async def close(self) -> None:
        """As `finish`: workers that have nothing to do end at once."""
        await self.finish()

    async def restart_workers(self) -> str | None:
        """Replace every worker, one after another; see `plane.Plane`."""
        longest = GENTLE_SECONDS + self._settings.forward.timeout.total + STOP_SECONDS
        return await self._crew.renew(longest)

    # -- what each answers by, and on ----------------------------------------------------------

    async def prepare(self, settings: Settings) -> Change:
        """See `plane.Plane.prepare`."""
        shared = await in_thread(for_one_of, settings, self._count)
        encoded = await in_thread(pack, shared)
        await in_thread(_check, shared, encoded)
        return _Refitting(self, shared, encoded)

    async def refit(self, settings: Settings, encoded: bytes) -> None:
        """Have every worker answer by ``settings``, its part; one that cannot is replaced."""
        self._settings, self._encoded = settings, encoded
        self._version += 1
        await self._deal()

    def brief(self, seat: Seat, process: int, sock: socket.socket) -> None:
        """See `crew.Owner.brief`."""
        seat.served = (self._version, (seat.number,))
        sockets = self._sockets([seat.number])
        begin = Begin(self._encoded, tuple(sockets))
        seat.begin(process, sock, begin, sockets.values(), TableFeed(self._shared))

    async def _deal(self) -> None:
        """See that all sockets are served, each by its worker or, until that one is back, by another one."""
        seats = [seat for seat in self._crew.seats if seat.is_open]
        other = [seat for seat in seats if seat.served != self._dealt(seat)]
        await asyncio.gather(*(self._tell(seat, self._dealt(seat)) for seat in other))

    def _dealt(self, seat: Seat) -> tuple[int, tuple[int, ...]]:
        """Return by which settings, and on whose share of the sockets, the worker is to answer."""
        shares = [seat.number]
        first = next((held for held in self._crew.seats if held.is_open), None)
        if seat is first:
            shares += [held.number for held in self._crew.seats if not held.is_there]
        return self._version, tuple(shares)

    def _sockets(self, shares: Iterable[int]) -> dict[Door, socket.socket]:
        found: dict[Door, socket.socket] = {}
        for number in shares:
            for door, sock in self._keeper.share(dns_doors(self._settings), number - 1).items():
                if door in found:
                    sock.close()
                else:
                    found[door] = sock
        return found

    async def _tell(self, seat: Seat, dealt: tuple[int, tuple[int, ...]]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REFIT_SECONDS
        reason = "it does not read what it is told"
        while seat.is_open and loop.time() < deadline:
            sockets = self._sockets(dealt[1])
            asked = seat.ask(Refit(self._encoded, tuple(sockets)), sockets.values())
            if asked is None:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await asyncio.wait([asked], timeout=REFIT_SECONDS)
            if asked.done() and not asked.cancelled() and asked.result() == "":
                seat.served = dealt
                return
            reason = str(asked.result()) if asked.done() and not asked.cancelled() else "it does not answer"
            break
        if seat.is_open:
            # The one in its place begins with what this one was to be told.
            log.error("worker.not_changed", worker=seat.number, reason=reason)
            self._crew.end(seat)

    # -- what they did ---------------------------------------------------------------------------

    async def gather(self) -> None:
        """Have the figures of `traffic` brought up to date, as far as workers answer at once."""
        await self._ask(self._crew.seats, TellTraffic(), GATHER_SECONDS)

    def traffic(self) -> Traffic:
        """Return what all workers did together, and each by itself."""
        traffic = self._totals.traffic(self._crew.views(self._totals.queries))
        # This process writes a log as each worker does.
        written, lost = output.counts()
        traffic.stats.records["program"] += written
        traffic.stats.records_lost["program"] += lost
        return traffic

    async def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of a name, or all, in every worker; return how many."""
        contents = await self._ask(self._crew.seats, Flush(name_key), ANSWER_SECONDS)
        if len(contents) < len(self._crew.seats):
            # One that is being started has nothing to forget.
            log.warning("workers.not_all_flushed", answered=len(contents), workers=len(self._crew.seats))
        return sum(content for content in contents if isinstance(content, int))

    async def explain(self, question: Question) -> Explanation:
        """Return what the first worker that answers would do with ``question``.

        Raises:
            WorkerError: none answers.
        """
        for seat in self._crew.seats:
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

    def heard(self, seat: Seat, content: Content) -> None:
        """See `crew.Owner.heard`."""
        if isinstance(content, Traffic):
            self._totals.take(seat.process, content)

    def ended(self, process: int) -> None:
        """See `crew.Owner.ended`."""
        self._totals.end(process)


class _Refitting:
    """See `plane.Change`; ``settings`` are one worker's part, ``encoded`` the same as it is sent."""

    def __init__(self, fleet: Fleet, settings: Settings, encoded: bytes) -> None:
        self._fleet = fleet
        self._settings = settings
        self._encoded = encoded

    async def commit(self) -> None:
        """See `plane.Change.commit`."""
        await self._fleet.refit(self._settings, self._encoded)


def _check(settings: Settings, encoded: bytes) -> None:
    """See that workers can answer by ``settings``, so that what is wrong is said once.

    Raises:
        StartError: as `Outfit`, or there is more than can be sent to a worker.
    """
    if len(encoded) > MAX_SETTINGS:
        raise StartError(
            f"the configuration is too large for workers: {len(encoded)} bytes, of {MAX_SETTINGS}"
        )
    doors = len(dns_doors(settings))
    # One worker may have the share of another one as well.
    if 2 * doors > MAX_SOCKETS:
        raise StartError(f"serve.listen: {doors} sockets are too many for workers")
    upstreams = len(settings.forward.upstreams) + sum(map(len, settings.forward.zones.values()))
    if upstreams > MAX_UPSTREAMS:
        raise StartError(f"forward: {upstreams} upstreams are too many for workers")
    Outfit(settings)
