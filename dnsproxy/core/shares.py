"""What each client holds of a limited resource, and which client holds the most."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Shares(Generic[Entry]):
    """Entries by client, in the order in which they were added.

    Clients are kept by how many entries they have, so that each step takes constant time.
    """

    __slots__ = ("_entries", "_levels", "most", "total")

    def __init__(self) -> None:
        self._entries: dict[bytes, dict[Entry, None]] = {}
        self._levels: dict[int, dict[bytes, None]] = {}
        # Of how many entries there are, and how many the client with the most has.
        self.total = 0
        self.most = 0

    def count(self, client: bytes) -> int:
        """Return how many entries ``client`` has."""
        held = self._entries.get(client)
        return 0 if held is None else len(held)

    def entries(self, client: bytes) -> Iterable[Entry]:
        """Return the entries of ``client``, the oldest first."""
        return self._entries.get(client, ())

    def fullest(self) -> bytes:
        """Return the client with the most entries; there must be one."""
        return next(iter(self._levels[self.most]))

    def add(self, client: bytes, entry: Entry) -> None:
        """Add ``entry`` to those of ``client``."""
        held = self._entries.setdefault(client, {})
        before = len(held)
        held[entry] = None
        self.total += 1
        self._move(client, before, before + 1)

    def remove(self, client: bytes, entry: Entry) -> None:
        """Remove ``entry`` from those of ``client``, which must have it."""
        held = self._entries[client]
        before = len(held)
        del held[entry]
        if not held:
            del self._entries[client]
        self.total -= 1
        self._move(client, before, before - 1)

    def _move(self, client: bytes, before: int, after: int) -> None:
        if after:
            level = self._levels.get(after)
            if level is None:
                self._levels[after] = {client: None}
            else:
                level[client] = None
        if before:
            level = self._levels[before]
            del level[client]
            if not level:
                del self._levels[before]
        if after > self.most or self.most not in self._levels:
            self.most = after
