"""The last hour by the minute, made from counters that only grow; kept outside the query path.

The shell gives `Trend.record` the totals every few seconds, those of one process or of all
workers together. What was counted between two samples belongs to the minute of the later one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dnsproxy.core.stats import SOURCES, Stats

MINUTES: Final = 60
_MINUTE: Final = 60.0
# Seconds over which the rate is a mean: long enough to be read, short enough to follow.
RATE_SECONDS: Final = 10.0
# Seconds without a sample after which there is no telling what the rate is.
_SILENCE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted, since the start or in one minute; ``answers`` in the order of `SOURCES`."""

    queries: int = 0
    answers: tuple[int, ...] = (0,) * len(SOURCES)
    hits: int = 0
    misses: int = 0
    drops: int = 0

    @classmethod
    def of(cls, stats: Stats) -> Counts:
        """Return the sums of ``stats``, which must be settled."""
        by_source = dict.fromkeys(SOURCES, 0)
        for (_, source), count in stats.responses.items():
            by_source[source] = by_source.get(source, 0) + count
        return cls(
            stats.requests.total(),
            tuple(by_source[source] for source in SOURCES),
            stats.cache_hits,
            stats.cache_misses,
            stats.drops.total(),
        )

    def since(self, earlier: Counts) -> Counts:
        """Return what was counted after ``earlier``; nothing where a counter went back."""
        pairs = zip(self.answers, earlier.answers, strict=True)
        return Counts(
            max(self.queries - earlier.queries, 0),
            tuple(max(now - before, 0) for now, before in pairs),
            max(self.hits - earlier.hits, 0),
            max(self.misses - earlier.misses, 0),
            max(self.drops - earlier.drops, 0),
        )

    def plus(self, other: Counts) -> Counts:
        """Return both together."""
        return Counts(
            self.queries + other.queries,
            tuple(one + two for one, two in zip(self.answers, other.answers, strict=True)),
            self.hits + other.hits,
            self.misses + other.misses,
            self.drops + other.drops,
        )


@dataclass(frozen=True, slots=True)
class Recent:
    """``minutes``: at most `MINUTES`, oldest first, the last one under way; ``rate``: queries per second.

    The rate is None while too little is known.
    """

    minutes: tuple[Counts, ...] = ()
    rate: float | None = None

    def total(self) -> Counts:
        """Return all minutes together."""
        total = Counts()
        for minute in self.minutes:
            total = total.plus(minute)
        return total

    def by_source(self) -> Mapping[str, tuple[int, ...]]:
        """Return the answers per minute of each source."""
        columns = zip(*(minute.answers for minute in self.minutes), strict=True)
        return dict(zip(SOURCES, columns, strict=True)) if self.minutes else dict.fromkeys(SOURCES, ())


@dataclass(slots=True)
class Trend:
    """A ring of minutes. ``now`` is monotonic, in seconds; minutes begin with the first sample."""

    _started: float | None = None
    _last: Counts = field(default_factory=Counts)
    _number: int = 0
    _minutes: deque[Counts] = field(default_factory=lambda: deque([Counts()], MINUTES))
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def record(self, now: float, stats: Stats) -> None:
        """Take the totals at ``now``; those of the first sample count as before its minute."""
        counts = Counts.of(stats)
        if self._started is None:
            self._started, self._last = now, counts
        self._turn_to(now)
        self._minutes[-1] = self._minutes[-1].plus(counts.since(self._last))
        self._last = counts
        # One sample from before the window is kept, so that the window is full.
        while len(self._samples) > 1 and self._samples[1][0] <= now - RATE_SECONDS:
            self._samples.popleft()
        self._samples.append((now, counts.queries))

    def recent(self, now: float) -> Recent:
        """Return what is known at ``now``."""
        if self._started is None:
            return Recent()
        self._turn_to(now)
        return Recent(tuple(self._minutes), self._rate(now))

    def _turn_to(self, now: float) -> None:
        """Make the last minute of the ring the one of ``now``."""
        number = int((now - (self._started or 0.0)) // _MINUTE)
        skipped = min(number - self._number, MINUTES)
        if skipped > 0:
            self._minutes.extend([Counts()] * skipped)
            self._number = number

    def _rate(self, now: float) -> float | None:
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        if last_at <= first_at or now - last_at > _SILENCE:
            return None
        return max(last - first, 0) / (last_at - first_at)
