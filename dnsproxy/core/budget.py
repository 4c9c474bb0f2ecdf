"""One limit in bytes for what many connections hold; beyond it, the one that holds most is closed."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from typing import Protocol

from dnsproxy.core.clients import Clients


class Holder(Protocol):
    """A connection."""

    def evict(self) -> None:
        """Close it and free what it holds."""


class MemoryBudget:
    """At most ``limit`` bytes for all holders.

    Beyond it, connections of the one of ``clients`` that holds most are closed, the largest first. ``freed``
    counts the bytes that were given back.
    """

    def __init__(self, limit: int, clients: Clients | None = None) -> None:
        self.limit = limit
        self.clients = clients or Clients()
        self.used = 0
        self.freed = 0
        self._sources: dict[bytes, dict[Holder, int]] = {}

    def charge(self, holder: Holder, source: bytes, size: int) -> None:
        """Note that ``holder``, a connection from the packed address ``source``, holds ``size`` bytes now."""
        held = self._sources.get(source)
        before = 0 if held is None else held.get(holder, 0)
        if size == before:
            return
        if size:
            if held is None:
                held = self._sources[source] = {}
            held[holder] = size
        elif held is not None:
            del held[holder]
            if not held:
                del self._sources[source]
        self.used += size - before
        if size < before:
            self.freed += before - size
        while self.used > self.limit:
            self._evict()

    def _evict(self) -> None:
        of = self.clients.of
        totals: Counter[bytes] = Counter()
        for source, held in self._sources.items():
            totals[of(source)] += sum(held.values())
        client = max(totals, key=totals.__getitem__)
        _, source, largest = max(
            (
                (size, source, holder)
                for source, held in self._sources.items()
                if of(source) == client
                for holder, size in held.items()
            ),
            key=itemgetter(0),
        )
        self.charge(largest, source, 0)
        largest.evict()
