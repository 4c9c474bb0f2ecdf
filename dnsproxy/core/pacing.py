"""Spreads responses to one client that would otherwise go out in one burst (DNSBomb, CVE-2024-33655).

A client whose queries wait for upstreams can have their responses leave at one moment: names of a zone whose
server answers all of them at once. With a forged source address that is a pulse of traffic at a victim
for little traffic of one's own. Only responses that had to wait are paced: others come as the queries do.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from dnsproxy.core.clients import Clients
from dnsproxy.core.memory import PACED

# Bytes for one client at once: 53 of the largest responses over UDP, less than a socket buffer holds.
BURST: Final = 64 * 1024
# Half of them are taken from what all clients have together, half from what is the client's own.
PART: Final = BURST // 2
# Bytes per second for one client: 64 Mbit/s, below what an access link of 100 Mbit/s carries. Answers of
# 130 bytes to 60,000 queries per second.
RATE: Final = 8 * 1024 * 1024
# Bytes that wait for one client, an eighth of a second, and for all together.
MAX_HELD: Final = 1024 * 1024
MAX_HELD_IN_ALL: Final = PACED
# Seconds between two releases: 16 KiB for each client.
TICK: Final = 0.002

Late = tuple[Any, bytes]
"""Where a response goes, which belongs to the shell, and the response."""


class _Budget:
    """Bytes that may be sent at once, refilled with time."""

    __slots__ = ("at", "left")

    def __init__(self, now: float) -> None:
        self.left = float(PART)
        self.at = now

    def refill(self, now: float) -> None:
        self.left = min(self.left + (now - self.at) * RATE, float(PART))
        self.at = now


class _Client:
    """What waits for one client."""

    __slots__ = ("budget", "held", "waiting")

    def __init__(self, now: float) -> None:
        self.budget = _Budget(now)
        self.waiting: deque[Late] = deque()
        self.held = 0


class Pacer:
    """Decides when responses are sent; a client may get `BURST` bytes at once and `RATE` per second.

    As long as all clients together stay below that, none is looked at alone (`passes`). ``wake_at`` is when
    `due` has something to send, None while nothing waits. ``dropped`` counts responses that found no room.
    """

    def __init__(self, clients: Clients, now: float) -> None:
        self.clients = clients
        self.wake_at: float | None = None
        self.dropped = 0
        self._all = _Budget(now)
        self._by_client: dict[bytes, _Client] = {}
        self._held = 0

    def passes(self, size: int) -> bool:
        """Return whether ``size`` bytes are sent at once, to any client."""
        budget = self._all
        if self._by_client or size > budget.left:
            return False
        budget.left -= size
        return True

    def refill(self, now: float) -> None:
        """Let more bytes pass for the time until ``now``."""
        self._all.refill(now)

    def offer(self, source: bytes, late: Late, now: float) -> bool:
        """Tell whether ``late`` is sent to the packed address ``source`` now.

        Otherwise it waits, or is dropped where there is no room.
        """
        name = self.clients.of(source)
        client = self._by_client.get(name)
        if client is None:
            client = self._by_client[name] = _Client(now)
            if self.wake_at is None:
                self.wake_at = now + TICK
        budget, size = client.budget, len(late[1])
        if not client.waiting:
            budget.refill(now)
            if budget.left > 0.0:
                budget.left -= size
                return True
        if client.held + size > MAX_HELD or self._held + size > MAX_HELD_IN_ALL:
            self.dropped += 1
            return False
        client.waiting.append(late)
        client.held += size
        self._held += size
        return False

    def due(self, now: float) -> list[Late]:
        """Return what is sent now."""
        sent: list[Late] = []
        for name, client in list(self._by_client.items()):
            budget, waiting = client.budget, client.waiting
            budget.refill(now)
            while waiting and budget.left > 0.0:
                late = waiting.popleft()
                size = len(late[1])
                budget.left -= size
                client.held -= size
                self._held -= size
                sent.append(late)
            if not waiting and budget.left >= PART:
                del self._by_client[name]
        self.wake_at = now + TICK if self._by_client else None
        return sent

    def take_all(self) -> list[Late]:
        """Return all that waits, to be sent at the end."""
        everything = [late for client in self._by_client.values() for late in client.waiting]
        self._by_client.clear()
        self._held = 0
        self.wake_at = None
        return everything
