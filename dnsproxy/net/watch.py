"""Who writes queries down: the query log and dnstap, each with its own share of the queries.

Listeners that are watched (`watched`, `watched_encrypted`) tell a `Watch` of each query. Without
one there are none of them, so that nothing of this is on the path of a query.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from dnsproxy.core.chance import Chance
from dnsproxy.core.engine import Forward
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.seen import DROPPED, Seen, forwarded
from dnsproxy.core.stats import Stats
from dnsproxy.errors import DropReason
from dnsproxy.writer import BackgroundWriter, Sink

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds that a record may wait for others, to be written with them.
DELAY_SECONDS = 0.2
# Seconds that the last batch may take at the end: a reader that has stopped does not delay the end.
CLOSE_SECONDS = 2.0


class Writer(Protocol):
    """Makes records of queries and keeps them somewhere."""

    def picks(self) -> bool:
        """Whether it wants the next query."""

    def open(self, stats: Stats) -> None:
        """Be ready on the running loop; count in ``stats`` what is written and lost."""

    def write(self, seen: Seen) -> None:
        """Write down a query that is over."""

    async def close(self) -> None:
        """Write what waits, within bounds."""


class Sampler:
    """Picks one in ``every`` at random distances: clients that ask for A and AAAA in turn are not halved."""

    def __init__(self, every: int, chance: Chance) -> None:
        self._most = 2 * every - 1
        self._chance = chance
        self._left = 1 + chance.below(self._most)

    def picks(self) -> bool:
        """Whether the next one is picked."""
        self._left -= 1
        if self._left:
            return False
        # From 1 to 2 * every - 1, so every on average.
        self._left = 1 + self._chance.below(self._most)
        return True


class QueuedWriter:
    """A `Writer` that queues what ``make`` returns for ``sink``; ``name`` is what the metrics call it."""

    def __init__(
        self, name: str, sampler: Sampler, make: Callable[[Seen], Sequence[bytes]], sink: Sink
    ) -> None:
        self._name = name
        self._make = make
        self._sink = sink
        self._queue: BackgroundWriter | None = None
        self._stats = Stats()
        self.picks = sampler.picks

    def open(self, stats: Stats) -> None:
        """See `Writer.open`."""
        self._stats = stats
        # The keys are there before the thread counts: another thread may read the counters.
        self._count(0, 0)
        self._queue = BackgroundWriter(
            self._sink, delay=DELAY_SECONDS, count=self._count, recovered=self._report
        )

    def _count(self, written: int, lost: int) -> None:
        self._stats.records[self._name] += written
        self._stats.records_lost[self._name] += lost

    def _report(self, lost: int) -> None:
        log.warning("log.records_lost", log=self._name, count=lost)

    def write(self, seen: Seen) -> None:
        """See `Writer.write`."""
        if self._queue is not None:
            for record in self._make(seen):
                self._queue.put(record)

    async def close(self) -> None:
        """Write what waits, for `CLOSE_SECONDS` at most; the rest is counted as lost."""
        queue, self._queue = self._queue, None
        if queue is None:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def end() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: the thread was late
                loop.call_soon_threadsafe(ended.set)

        queue.close(end)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await ended.wait()
        except TimeoutError:
            queue.abandon()


class Watch:
    """Tells ``writers`` of the queries that they pick."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = tuple(writers)

    def open(self, stats: Stats) -> None:
        """Be ready on the running loop."""
        for writer in self._writers:
            writer.open(stats)

    async def close(self) -> None:
        """Have all written that waits, within bounds."""
        for writer in self._writers:
            await writer.close()

    # -- what watched listeners tell -----------------------------------------------------------

    def begin(
        self, protocol: str, client: bytes, port: int, query: bytes, arrived: float, wall: float
    ) -> Seen | None:
        """Return what to complete for a query that has arrived; None when nobody wants it."""
        writers = [writer for writer in self._writers if writer.picks()]
        if not writers:
            return None
        seen = Seen(writers, protocol, client, port, query, arrived)
        seen.wall = wall
        return seen

    def end(self, seen: Seen, response: bytes, source: int, now: float) -> None:
        """Take the end of a query that was answered here; ``source`` is a number of `stats.SOURCES`."""
        seen.response = response
        seen.source = source
        seen.duration = now - seen.arrived
        for writer in seen.writers:
            writer.write(seen)

    def drop(self, seen: Seen, reason: DropReason, now: float) -> None:
        """Take the end of a query that gets no response."""
        seen.reason = reason.value
        self.end(seen, b"", DROPPED, now)

    def end_forwarded(self, awaited: Awaited, response: bytes, now: float) -> None:
        """Take the end of a query that was forwarded."""
        seen = awaited.seen
        source, told = forwarded(awaited.exchange, awaited.other, response)
        if told is not None:
            seen.upstream = told.upstream.name
            seen.told = told if awaited.is_first else None
        self.end(seen, response, source, now)


class Awaited:
    """A token with what is known of the query that it is for; equal to another one where its token is."""

    __slots__ = ("exchange", "is_first", "other", "seen", "token")

    def __init__(self, token: object, seen: Seen, forward: Forward) -> None:
        self.token = token
        self.seen = seen
        self.exchange: Exchange = forward.exchange
        self.is_first = forward.is_new
        # Only now is it known: a race forgets the loser.
        self.other = forward.exchange.partner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Awaited) and self.token == other.token

    def __hash__(self) -> int:
        return hash(self.token)
