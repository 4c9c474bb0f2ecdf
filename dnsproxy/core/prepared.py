"""The prepared table: the octets of a UDP query after its id, to a response without its id.

A hit costs one dictionary look-up in place of the scan, the policy, the cache and the
making of a response. The TTLs in a prepared response are taken down once a second; it is
dropped when what it was made from ends, and all are when the learned names change.
"""

from __future__ import annotations

from collections import deque
from math import floor

from dnsproxy.core.memory import BYTES_OBJECT, NUMBER, PREPARED, PREPARED_ENTRY
from dnsproxy.core.response import aged
from dnsproxy.core.stats import CACHE, Stats, over_tcp
from dnsproxy.core.wire import TC_OCTET, Query

# Entries, and bytes of all of them together: usual ones cost 600, those of a name with 70 addresses 20,000.
MAX_PREPARED = 20_000
MAX_BYTES = PREPARED


class Prepared:
    """Responses for one exact packet, given in turn.

    ``request`` and ``response`` are the numbers that `Stats` counts a hit under, ``hits`` those over UDP,
    ``streamed`` those over TCP; so many as ``settled`` are counted there already. Times are monotonic
    seconds: ``until`` is when nothing here may be given any more, ``made`` when the TTLs at
    ``ttl_offsets`` were right; without offsets they do not change. Only one response may have them.
    """

    __slots__ = (
        *("_made", "_right_until", "_tail", "_ttl_offsets", "_turns", "_until"),
        *("hits", "request", "response", "settled", "size", "streamed"),
    )

    def __init__(
        self,
        tails: list[bytes],
        request: int,
        response: int,
        until: float,
        made: float = 0.0,
        ttl_offsets: tuple[int, ...] = (),
    ) -> None:
        # They are in this order in memory, and few of 10,000 are in the processor's cache: what every hit
        # looks at comes first, so that it needs one line of it.
        self._right_until = min(made + 1.0, until) if ttl_offsets else until
        self.hits = 0
        self._turns = tails if len(tails) > 1 else None
        self._tail = tails[0]
        self.streamed = 0
        self._made = made
        self._until = until
        self._ttl_offsets = ttl_offsets
        self.settled = 0, 0
        self.request = request
        self.response = response
        # Bytes, counted by the table when it takes this in.
        self.size = 0

    def cost(self) -> int:
        """Return the bytes of memory that the responses take."""
        tails = [self._tail] if self._turns is None else self._turns
        return sum([len(tail) + BYTES_OBJECT for tail in tails]) + NUMBER * len(self._ttl_offsets)

    def take(self, now: float) -> bytes | None:
        """Count a hit and return the next response, without its id; None when its time is over."""
        if now >= self._right_until and not self._renew(now):
            return None
        self.hits += 1
        return self._tail if self._turns is None else self._turn(self._turns)

    def take_for_stream(self, now: float) -> bytes | None:
        """Do as `take` for a query over TCP; None also when the responses were cut to fit a datagram."""
        if now >= self._right_until and not self._renew(now):
            return None
        # Cut are all of them or none: they have the same length.
        if self._tail[0] & TC_OCTET:
            return None
        self.streamed += 1
        return self._tail if self._turns is None else self._turn(self._turns)

    def _turn(self, turns: list[bytes]) -> bytes:
        return turns[(self.hits + self.streamed - 1) % len(turns)]

    def _renew(self, now: float) -> bool:
        if now >= self._until:
            return False
        elapsed = floor(now - self._made)
        self._tail = aged(self._tail, self._ttl_offsets, elapsed)
        self._made += elapsed
        self._right_until = min(self._made + 1.0, self._until)
        return True


class PreparedTable:
    """`Prepared` by message without id, and without the bytes of a client cookie (`wire.without_cookie`).

    Bounded by `MAX_PREPARED` and `MAX_BYTES`; the oldest entry is evicted.
    """

    __slots__ = ("_keys", "_stats", "entries", "size")

    def __init__(self, stats: Stats) -> None:
        self.entries: dict[bytes, Prepared] = {}
        self._stats = stats
        # Oldest first. The first key of a dict is found behind all that were removed.
        self._keys: deque[bytes] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self.entries)

    def keep(self, query: Query, prepared: Prepared) -> None:
        """Give the responses of ``prepared`` to whoever sends the packet of ``query``."""
        data = query.data
        # By the scan, not by the looks of it: what only looks like a cookie is never found again.
        key = data[2:-8] if query.cookie else data[2:]
        prepared.size = len(key) + prepared.cost() + PREPARED_ENTRY
        held = self.entries.get(key)
        if held is not None:
            self._settle(held)
            self.size -= held.size
        else:
            self._keys.append(key)
        self.entries[key] = prepared
        self.size += prepared.size
        while self.size > MAX_BYTES or len(self._keys) > MAX_PREPARED:
            # One after the other, not all: to count the hits of 20,000 costs one query 4 ms.
            evicted = self.entries.pop(self._keys.popleft())
            self._settle(evicted)
            self.size -= evicted.size

    def settle(self) -> None:
        """Bring the statistics up to date with the hits."""
        for prepared in self.entries.values():
            self._settle(prepared)

    def _settle(self, prepared: Prepared) -> None:
        settled_hits, settled_streamed = prepared.settled
        hits, streamed = prepared.hits - settled_hits, prepared.streamed - settled_streamed
        if not hits and not streamed:
            return
        prepared.settled = prepared.hits, prepared.streamed
        if hits:
            self._stats.count_request(prepared.request, hits)
        if streamed:
            self._stats.count_request(over_tcp(prepared.request), streamed)
        self._stats.count_response(prepared.response, hits + streamed)
        if prepared.response & 7 == CACHE:
            self._stats.cache_hits += hits + streamed

    def clear(self) -> None:
        """Count the hits and forget every response."""
        self.settle()
        self.entries.clear()
        self._keys.clear()
        self.size = 0
