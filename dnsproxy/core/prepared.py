"""The prepared table: the octets of a UDP query after its id, to a response without its id.

It lives for one second, so the TTLs in it are right without being touched, and a
change of the learned names empties it. A hit costs one dictionary look-up in
place of the scan, the policy, the cache and the making of a response.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from math import floor

from dnsproxy.core.stats import Source, Stats
from dnsproxy.core.wire import Query, rcode_name

# At about 400 octets each the table stays under 10 MB; it is emptied every second.
MAX_PREPARED = 20_000


class Prepared:
    """Responses for one exact packet: ``next_tail()`` gives them in turn, without their id."""

    __slots__ = ("hits", "next_tail", "rcode", "request", "source")

    def __init__(self, tails: list[bytes], request: tuple[str, str], rcode: int, source: str) -> None:
        self.next_tail: Callable[[], bytes] = cycle(tails).__next__
        self.hits = 0
        self.request = request
        self.rcode = rcode
        self.source = source


class PreparedTable:
    """Responses prepared in the running second."""

    __slots__ = ("_stats", "_table", "_turns_at")

    def __init__(self, stats: Stats) -> None:
        self._table: dict[bytes, Prepared] = {}
        self._stats = stats
        self._turns_at = 0.0

    def __len__(self) -> int:
        return len(self._table)

    def current(self, now: float) -> dict[bytes, Prepared]:
        """Return this second's table: message without id, and without the octets of a client cookie.

        A cookie changes with each query of dig and of unbound and means nothing to us
        (RFC 7873 §5.2.1 lets a server ignore it), so the packet up to it is the key.
        """
        if now >= self._turns_at:
            self.turn(now)
        return self._table

    def keep(
        self, query: Query, responses: list[bytes], request: tuple[str, str], rcode: int, source: str
    ) -> None:
        """Give ``responses`` in turn to whoever sends the packet of ``query`` in this second."""
        if len(self._table) < MAX_PREPARED:
            end = -8 if query.cookie else None
            tails = [response[2:] for response in responses]
            self._table[query.data[2:end]] = Prepared(tails, request, rcode, source)

    def turn(self, now: float) -> None:
        """Start a new second: count the hits of the last one and empty the table."""
        self._turns_at = floor(now) + 1.0
        stats = self._stats
        for prepared in self._table.values():
            if prepared.hits:
                stats.requests[prepared.request] += prepared.hits
                stats.responses[rcode_name(prepared.rcode), prepared.source] += prepared.hits
                if prepared.source == Source.CACHE:
                    stats.cache_hits += prepared.hits
        self._table.clear()
