"""How many connections there may be, in all and of one client, and how much memory they may hold."""

from __future__ import annotations

from typing import Final

from dnsproxy.core.budget import MemoryBudget
from dnsproxy.core.memory import CLIENT_BUFFERS
from dnsproxy.errors import DropReason

# One IPv6 client has a whole /64 to connect from.
_IPV6_CLIENT: Final = 8


class Places:
    """At most ``total`` connections, and at most ``per_client`` of one client; addresses are packed.

    ``buffers`` is what they may hold of unfinished messages and unread responses, all together.
    """

    def __init__(self, total: int, per_client: int) -> None:
        self._total = total
        self._per_client = per_client
        self._taken = 0
        self._by_client: dict[bytes, int] = {}
        self.buffers = MemoryBudget(CLIENT_BUFFERS)

    def resize(self, total: int, per_client: int) -> None:
        """Change the bounds; connections beyond them stay until they end."""
        self._total = total
        self._per_client = per_client

    @property
    def taken(self) -> int:
        """How many connections there are."""
        return self._taken

    def take(self, source: bytes) -> DropReason | None:
        """Take a place for a connection from ``source``, or return why there is none."""
        if self._taken >= self._total:
            return DropReason.TCP_CLIENTS
        client = _client(source)
        held = self._by_client.get(client, 0)
        if held >= self._per_client:
            return DropReason.TCP_PER_CLIENT
        self._by_client[client] = held + 1
        self._taken += 1
        return None

    def leave(self, source: bytes) -> None:
        """Give back a place that was taken for ``source``."""
        client = _client(source)
        self._taken -= 1
        left = self._by_client[client] - 1
        if left:
            self._by_client[client] = left
        else:
            del self._by_client[client]


def _client(source: bytes) -> bytes:
    return source[:_IPV6_CLIENT] if len(source) > _IPV6_CLIENT else source
