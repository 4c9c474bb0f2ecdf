"""One limit in bytes for what many connections hold; beyond it, the one that holds most is closed."""

from __future__ import annotations

from typing import Protocol


class Holder(Protocol):
    """A connection."""

    def evict(self) -> None:
        """Close it and free what it holds."""


class MemoryBudget:
    """At most ``limit`` bytes for all holders.

    Beyond it, connections of the client that holds most are closed, the largest first. ``freed`` counts the
    bytes that were given back.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.freed = 0
        self._clients: dict[bytes, dict[Holder, int]] = {}

    def charge(self, holder: Holder, client: bytes, size: int) -> None:
        """Note that ``holder``, a connection of ``client``, holds ``size`` bytes now."""
        held = self._clients.get(client)
        before = 0 if held is None else held.get(holder, 0)
        if size == before:
            return
        if size:
            if held is None:
                held = self._clients[client] = {}
            held[holder] = size
        elif held is not None:
            del held[holder]
            if not held:
                del self._clients[client]
        self.used += size - before
        if size < before:
            self.freed += before - size
        while self.used > self.limit:
            self._evict()

    def _evict(self) -> None:
        client = max(self._clients, key=lambda client: sum(self._clients[client].values()))
        held = self._clients[client]
        largest = max(held, key=held.__getitem__)
        self.charge(largest, client, 0)
        largest.evict()
