"""The prepared table: the octets of a UDP query after its id, to a response without its id.

It lives for one second, so the TTLs in it are right without being touched, and a
change of the learned names empties it. A hit costs one dictionary look-up in
place of the scan, the policy, the cache and the making of a response.
"""

from __future__ import annotations

from math import floor

from dnsproxy.core.stats import CACHE, Stats
from dnsproxy.core.wire import Query

# At about 400 octets each the table stays under 10 MB; it is emptied every second.
MAX_PREPARED = 20_000


class Prepared:
    """Responses for one exact packet; what they count as is in ``request`` and ``response`` (see `Stats`)."""

    __slots__ = ("_tails", "hits", "request", "response")

    def __init__(self, tails: list[bytes], request: int, response: int) -> None:
        self._tails = tails
        self.hits = 0
        self.request = request
        self.response = response

    def take(self) -> bytes:
        """Count a hit and return the next response, without its id."""
        hits = self.hits
        self.hits = hits + 1
        return self._tails[hits % len(self._tails)]


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

    def keep(self, query: Query, responses: list[bytes], request: int, response: int) -> None:
        """Give ``responses`` in turn to whoever sends the packet of ``query`` in this second."""
        if len(self._table) < MAX_PREPARED:
            data = query.data
            key = data[2:-8] if query.cookie else data[2:]
            self._table[key] = Prepared([one[2:] for one in responses], request, response)

    def turn(self, now: float) -> None:
        """Start a new second: count the hits of the last one and empty the table."""
        self._turns_at = floor(now) + 1.0
        stats = self._stats
        for prepared in self._table.values():
            if prepared.hits:
                stats.count_request(prepared.request, prepared.hits)
                stats.count_response(prepared.response, prepared.hits)
                if prepared.response & 7 == CACHE:
                    stats.cache_hits += prepared.hits
        self._table.clear()
