"""How many connections there may be, of one client too, what memory they hold, and which one makes room."""

from __future__ import annotations

from typing import Protocol

from dnsproxy.core.budget import MemoryBudget
from dnsproxy.core.clients import Clients
from dnsproxy.core.memory import CLIENT_BUFFERS
from dnsproxy.core.shares import Shares
from dnsproxy.errors import DropReason


class Holder(Protocol):
    """A connection as its listener knows it."""

    @property
    def active(self) -> float:
        """When its last query came (monotonic), or the connection itself."""

    def abort(self) -> None:
        """Close it at once."""


class Place:
    """The place of one connection of ``client``; its listener sets ``holder``.

    ``displaced`` is the connection to close for it, if any.
    """

    __slots__ = ("client", "displaced", "holder", "is_taken")

    def __init__(self, client: bytes) -> None:
        self.client = client
        self.holder: Holder | None = None
        self.displaced: Holder | None = None
        self.is_taken = True

    @property
    def active(self) -> float:
        """When the connection was last used; none that is only being made is closed for another."""
        return float("inf") if self.holder is None else self.holder.active


class Places:
    """At most ``total`` connections, and at most ``per_client`` of one of ``clients``.

    ``buffers`` is what they may hold of unfinished messages and unread responses, all together.

    When all places are taken, a client that has two connections less than the one with the most gets a
    place: the connection of the latter that has been without a query for the longest time is closed.
    """

    def __init__(self, total: int, per_client: int, clients: Clients | None = None) -> None:
        self._total = total
        self._per_client = per_client
        self._clients = clients or Clients()
        self._shares: Shares[Place] = Shares()
        self.buffers = MemoryBudget(CLIENT_BUFFERS, self._clients)

    def resize(self, total: int, per_client: int, clients: Clients) -> None:
        """Change the limits; connections beyond them stay until they end."""
        self._total = total
        self._per_client = per_client
        self._clients = self.buffers.clients = clients

    @property
    def taken(self) -> int:
        """How many connections there are."""
        return self._shares.total

    def take(self, source: bytes, *, proxied: bool = False) -> Place | DropReason:
        """Take a place for a connection from the packed address ``source``, or return why there is none.

        One that is ``proxied`` is no client's yet, so that only the total counts.
        """
        shares, client = self._shares, self._clients.of(source)
        held = shares.count(client)
        if held >= self._per_client and not proxied:
            return DropReason.TCP_PER_CLIENT
        place = Place(client)
        if shares.total >= self._total:
            if shares.total > self._total or held + 1 >= shares.most:
                return DropReason.TCP_CLIENTS
            idle = min(shares.entries(shares.fullest()), key=_active)
            if idle.holder is None:
                return DropReason.TCP_CLIENTS
            place.displaced = idle.holder
            self.leave(idle)
        shares.add(client, place)
        return place

    def leave(self, place: Place) -> None:
        """Give back ``place``, if it has not been given to another client."""
        if place.is_taken:
            place.is_taken = False
            self._shares.remove(place.client, place)


def _active(place: Place) -> float:
    return place.active
