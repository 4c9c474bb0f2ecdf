"""Who writes queries down: the query log and dnstap, each with its own share of the queries.

Listeners that are watched (`watched`, `watched_encrypted`) tell a `Watch` of each query. Without
one there are none of them, so that nothing of this is on the path of a query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from dnsproxy.core.chance import Chance
from dnsproxy.core.engine import Forward
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.seen import DROPPED, Seen, forwarded
from dnsproxy.core.stats import Stats
from dnsproxy.errors import DropReason
from dnsproxy.net.spool import Outlet, Spool


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


class SpoolWriter:
    """A `Writer` that puts what ``make`` returns into a `Spool`; ``name`` is what the metrics call it."""

    def __init__(
        self, name: str, sampler: Sampler, make: Callable[[Seen], Sequence[bytes]], outlet: Outlet
    ) -> None:
        self._name = name
        self._make = make
        self._outlet = outlet
        self._spool: Spool | None = None
        self._stats = Stats()
        self.picks = sampler.picks

    def open(self, stats: Stats) -> None:
        """See `Writer.open`."""
        self._stats = stats
        self._spool = Spool(self._outlet, self._count)

    def _count(self, written: int, lost: int) -> None:
        self._stats.records[self._name] += written
        if lost:
            self._stats.records_lost[self._name] += lost

    def write(self, seen: Seen) -> None:
        """See `Writer.write`."""
        if self._spool is not None:
            for record in self._make(seen):
                self._spool.put(record)

    async def close(self) -> None:
        """See `Writer.close`."""
        if self._spool is not None:
            await self._spool.close()


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
    """A token with what is known of the query that it is for."""

    __slots__ = ("exchange", "is_first", "other", "seen", "token")

    def __init__(self, token: object, seen: Seen, forward: Forward) -> None:
        self.token = token
        self.seen = seen
        self.exchange: Exchange = forward.exchange
        self.is_first = forward.is_new
        # Only now is it known: a race forgets the loser.
        self.other = forward.exchange.partner
