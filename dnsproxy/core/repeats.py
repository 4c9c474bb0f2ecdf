"""What is logged over and over: once at first, then once per window with the number of those left out."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Entry = TypeVar("Entry")

WINDOW = 60.0
# Distinct events that may be under watch at a time, each with the last of its entries: under 1 MB.
MAX_WATCHED = 1_000


@dataclass(slots=True)
class _Watched(Generic[Entry]):
    latest: Entry
    until: float
    left_out: int = 0


class Repeats(Generic[Entry]):
    """Says which entries to log. Times are monotonic seconds.

    While ``most`` events are under watch, each one more is logged every time: nothing is lost, and
    they are no repetitions of one another.
    """

    def __init__(self, window: float = WINDOW, most: int = MAX_WATCHED) -> None:
        self._window = window
        self._most = most
        # In the order in which their windows end.
        self._watched: dict[Hashable, _Watched[Entry]] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def take(self, key: Hashable, entry: Entry, now: float) -> int | None:
        """Return None when ``entry`` is to be left out, else how many of ``key`` were before it."""
        watched = self._watched.get(key)
        if watched is not None and now < watched.until:
            watched.latest = entry
            watched.left_out += 1
            return None
        left_out = 0
        if watched is not None:
            left_out = watched.left_out
            del self._watched[key]
        elif len(self._watched) >= self._most:
            self._forget_quiet(now)
        if len(self._watched) < self._most:
            self._watched[key] = _Watched(entry, now + self._window)
        return left_out

    def _forget_quiet(self, now: float) -> None:
        """Make room: what was not repeated, and whose window is over, has nothing left to tell."""
        for key, watched in list(self._watched.items()):
            if watched.until > now:
                break
            if not watched.left_out:
                del self._watched[key]

    def due(self, now: float) -> list[tuple[Entry, int]]:
        """Return the latest entry of each window that is over with the number of those left out in it.

        An event that goes on begins its next window; one that was quiet is forgotten.
        """
        summaries = []
        for key, watched in list(self._watched.items()):
            if watched.until > now:
                break
            del self._watched[key]
            if watched.left_out:
                summaries.append((watched.latest, watched.left_out))
                self._watched[key] = _Watched(watched.latest, now + self._window)
        return summaries
