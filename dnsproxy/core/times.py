"""How long queries that were answered at once have taken, counted on the query path."""

from __future__ import annotations

from dnsproxy.core.stats import FIRST_BOUND, Stats


class Times:
    """Durations of queries that were answered at once; `settle` adds them to those of ``stats``.

    `Stats` is what workers send to one another, and counting up there costs ten times as much.
    """

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._quick = 0
        self._quick_sum = 0.0

    def record(self, seconds: float, count: int) -> None:
        """Record that ``count`` queries took ``seconds`` each from arrival to response."""
        if seconds <= FIRST_BOUND:
            self._quick += count
            self._quick_sum += seconds * count
        else:
            self._stats.record_duration(seconds, count)

    def settle(self) -> None:
        """Bring the statistics up to date."""
        self._stats.durations[0] += self._quick
        self._stats.duration_sum += self._quick_sum
        self._quick, self._quick_sum = 0, 0.0
