"""How long changed addresses take to get here: from the helper that saw them to the answers of this proxy.

The start of that time is the helper's clock (``changed_at`` in the snapshot), its end this host's: what the
two differ by is in every measurement.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from dnsproxy.core.book import Book, Entry

# Seconds. From a watched source on the same network to an hour without the helper.
BOUNDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)


class Convergence:
    """Counts, per bucket of `BOUNDS` (the last one unbounded), how long each change took.

    Only changes that are later than ``since`` (Unix seconds, the start of the program) count, each once:
    not the first addresses of a name, not what was read from disk, not what the operator's orders have
    kept out, and not the view of another helper that differs without any change.
    """

    def __init__(self, since: float) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0
        self._since = since
        self._served = Book()
        self._noted: dict[str, float] = {}

    def pass_over(self, book: Book, names: Iterable[str] | None = None) -> None:
        """Count no change that ``book`` holds already; of ``names`` only, if given."""
        for name in book.entries if names is None else names:
            entry = book.entries.get(name)
            if entry is not None:
                self._is_new(entry)

    def record(self, served: Book, wall_now: float) -> None:
        """Take the book that is answered from ``wall_now`` (Unix seconds) on."""
        before, self._served = self._served, served
        for name, entry in served.entries.items():
            held = before.entries.get(name)
            if self._is_new(entry) and held is not None and self._is_change(held, entry):
                seconds = max(0.0, wall_now - (entry.learned.changed_at or 0.0))
                self.counts[bisect_left(BOUNDS, seconds)] += 1
                self.sum += seconds

    def _is_new(self, entry: Entry) -> bool:
        changed_at = entry.learned.changed_at
        if changed_at is None or changed_at <= self._noted.get(entry.learned.name, self._since):
            return False
        self._noted[entry.learned.name] = changed_at
        return True

    @staticmethod
    def _is_change(held: Entry, entry: Entry) -> bool:
        if held.learned.addresses == entry.learned.addresses:
            return False  # a helper that has lost its state has seen them for the first time, again
        # What one helper still confirmed after another had seen this set is another view, no change.
        return held.learned.observed_at <= (entry.learned.changed_at or 0.0)
