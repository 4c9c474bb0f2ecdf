"""The answer cache: positive answers, NXDOMAIN, NODATA and, briefly, failures (RFC 2308, RFC 9520).

Bounded by entries and by bytes. Eviction is CLOCK (second chance): a hand
sweeps a ring of keys, spares what was used since its last pass, and takes the
first that was not; of `MAX_SPARED` in a row that were all used it takes the least
used. It costs one list cell per entry and constant time per put, and a flood of
names that are asked once passes through without pushing out what is asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import floor
from typing import Final, NamedTuple

from dnsproxy.core.memory import CACHE_BYTES_PER_ENTRY, CACHE_ENTRY, NUMBER
from dnsproxy.core.response import Response, with_ttls
from dnsproxy.core.wire import AD, NOERROR, NXDOMAIN

# Used entries that are spared to evict one. Without a bound a million of them cost one query 60 ms.
MAX_SPARED: Final = 64


class Entry:
    """One cached response, without id, question and OPT. Times are monotonic seconds.

    ``hits`` counts the look-ups since the clock's hand passed, or since it was stored.
    """

    __slots__ = ("counts", "expires", "flags", "hits", "rcode", "sections", "slot", "stored", "ttl_offsets")

    def __init__(self, response: Response, stored: float, ttl: float) -> None:
        self.flags = response.flags & AD
        self.rcode = response.rcode
        self.counts = response.counts
        self.sections = response.sections
        self.ttl_offsets = response.ttl_offsets
        self.stored = stored
        self.expires = stored + ttl
        self.slot = -1
        self.hits = 0


class CachePolicy(NamedTuple):
    """Bounds on lifetimes, in seconds; ``stale`` is how long an expired answer may still be of use."""

    min_ttl: float = 0.0
    max_ttl: float = 3600.0
    negative_ttl: float = 60.0
    stale: float = 0.0


DEFAULT_POLICY = CachePolicy()


class Cache:
    """Entries by key (name, type, class and the flags that change an answer).

    ``size`` is the maximum of entries, ``max_bytes`` that of the memory they cost, by default in proportion
    to ``size``. Both are hard bounds.
    """

    def __init__(
        self, size: int, policy: CachePolicy = DEFAULT_POLICY, *, max_bytes: int | None = None
    ) -> None:
        self._size = size
        self._min_ttl = policy.min_ttl
        self._max_ttl = policy.max_ttl
        self._negative_ttl = policy.negative_ttl
        self.stale_for = policy.stale
        self._max_bytes = size * CACHE_BYTES_PER_ENTRY if max_bytes is None else max_bytes
        self._entries: dict[bytes, Entry] = {}
        self._ring: list[bytes] = []
        self._hand = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> Entry | None:
        """Return the entry for ``key`` if it is fresh at ``now``."""
        entry = self._entries.get(key)
        if entry is None or entry.expires <= now:
            return None
        entry.hits += 1
        return entry

    def stale(self, key: bytes, now: float) -> Entry | None:
        """Return the entry for ``key``, fresh or expired, unless it expired too long ago (RFC 8767)."""
        entry = self._entries.get(key)
        if entry is None or entry.expires + self.stale_for <= now:
            return None
        entry.hits += 1
        return entry

    def peek(self, key: bytes) -> Entry | None:
        """Return the entry for ``key`` whatever its age; nothing is changed."""
        return self._entries.get(key)

    def keep(self, key: bytes, response: Response, now: float) -> Entry:
        """Return ``response`` as an entry, and put it in if it may live (RFC 2308, RFC 2181 §8).

        Only NOERROR and NXDOMAIN with a lifetime are kept. TTLs outside the policy's bounds
        are changed in the entry, so that clients see what they get.
        """
        entry = Entry(response, now, 0.0)
        if response.ttl is None or (response.rcode != NOERROR and response.rcode != NXDOMAIN):  # noqa: PLR1714 - a set is made for each `in`
            if response.rcode == NOERROR or response.rcode == NXDOMAIN:  # noqa: PLR1714 - as above
                self.remove(key)  # what was there is out of date, and this must not be kept
            return entry
        cap = self._negative_ttl if response.negative else self._max_ttl
        ttl = float(response.ttl)
        if ttl < self._min_ttl or response.max_ttl > cap:
            ttl = min(max(ttl, self._min_ttl), cap)
            entry.sections = self._within_bounds(entry, cap)
        if ttl > 0:
            entry.expires = now + ttl
            self.put(key, entry)
        else:
            self.remove(key)
        return entry

    def _within_bounds(self, entry: Entry, cap: float) -> bytes:
        return with_ttls(entry.sections, entry.ttl_offsets, floor(self._min_ttl), floor(cap))

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep ``entry``, evicting others as needed; one that alone exceeds a bound is not kept."""
        cost = _cost(key, entry)
        if self._size == 0 or cost > self._max_bytes:
            return
        held = self._entries.get(key)
        if held is not None:
            self.bytes += cost - _cost(key, held)
            entry.slot = held.slot
            self._entries[key] = entry
        else:
            while len(self._entries) >= self._size:
                self._evict()
            entry.slot = len(self._ring)
            self._ring.append(key)
            self._entries[key] = entry
            self.bytes += cost
        while self.bytes > self._max_bytes:
            self._evict()

    def remove(self, key: bytes) -> bool:
        """Forget ``key``; tell whether it was there."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self.bytes -= _cost(key, entry)
        # The last key takes its cell, so that the hand finds none that is empty.
        last = self._ring.pop()
        if entry.slot < len(self._ring):
            self._ring[entry.slot] = last
            self._entries[last].slot = entry.slot
        return True

    def clear(self) -> int:
        """Forget all; return how many entries there were."""
        count = len(self._entries)
        self._entries.clear()
        self._ring.clear()
        self._hand = 0
        self.bytes = 0
        return count

    def take_over(self, other: Cache) -> None:
        """Take all that is in ``other``, which is empty afterwards, and evict what is too much here."""
        self._entries, other._entries = other._entries, {}
        self._ring, other._ring = other._ring, []
        self._hand, other._hand = other._hand, 0
        self.bytes, other.bytes = other.bytes, 0
        if self._size == 0:
            self.clear()
        while len(self._entries) > self._size or self.bytes > self._max_bytes:
            self._evict()

    def keys(self) -> Iterator[bytes]:
        """Yield every key, fresh or not."""
        yield from self._entries

    def _evict(self) -> None:
        """Take out the first entry from the hand on that was not used since the last pass."""
        ring = self._ring
        least, found = 0, b""
        for _ in range(MAX_SPARED):
            self._hand = (self._hand + 1) % len(ring)
            key = ring[self._hand]
            entry = self._entries[key]
            if not entry.hits:
                self.remove(key)
                return
            if not found or entry.hits < least:
                least, found = entry.hits, key
            entry.hits = 0
        self.remove(found)


def _cost(key: bytes, entry: Entry) -> int:
    return len(key) + len(entry.sections) + NUMBER * len(entry.ttl_offsets) + CACHE_ENTRY
