"""How long changed addresses take to get here: from the helper that saw them to the answers of this proxy.

The start of that time is the helper's clock (``changed_at`` in the snapshot), its end this host's: what the
two differ by is in every measurement.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from dnsproxy.core.addresses.table import Statement

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
        self._served: dict[str, Statement] = {}
        self._noted: dict[str, float] = {}

    def pass_over(self, statements: Iterable[Statement]) -> None:
        """Do not count the changes that these statements are."""
        for statement in statements:
            self._is_new(statement)

    def record(self, changed: Mapping[str, Statement | None], wall_now: float) -> None:
        """Take what is answered from ``wall_now`` (Unix seconds) on, for the names whose answer changed."""
        for name, statement in changed.items():
            before = self._served.pop(name, None)
            if statement is None:
                continue
            self._served[name] = statement
            if self._is_new(statement) and before is not None and self._is_change(before, statement):
                seconds = max(0.0, wall_now - (statement.learned.changed_at or 0.0))
                self.counts[bisect_left(BOUNDS, seconds)] += 1
                self.sum += seconds

    def _is_new(self, statement: Statement) -> bool:
        changed_at = statement.learned.changed_at
        if changed_at is None or changed_at <= self._noted.get(statement.learned.name, self._since):
            return False
        self._noted[statement.learned.name] = changed_at
        return True

    @staticmethod
    def _is_change(before: Statement, after: Statement) -> bool:
        if before.learned.addresses == after.learned.addresses:
            return False  # a helper that has lost its state has seen them for the first time, again
        # What one helper still confirmed after another had seen this set is another view, no change.
        return before.learned.observed_at <= (after.learned.changed_at or 0.0)
