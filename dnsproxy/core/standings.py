"""Many proxies at one time: who lags, who is silent, and how fast changes spread.

A serial grows with each change and begins as a time in milliseconds (`helper.service.next_snapshot`), so it
tells since when a proxy lacks something. Nothing here does I/O; `judge_fleet` is given what was told.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

# Seconds. A serial further in the future than clocks may differ by is no time.
_CLOCK_SKEW = 300


class State(StrEnum):
    """How one proxy stands, the worst first. All but the last four are not well."""

    SILENT = "silent"
    NOT_READY = "not_ready"
    LAGGING = "lagging"
    STALE = "stale"
    # A source failed or another snapshot is newer, within the limits; or it is being stopped.
    FAILING = "failing"
    BEHIND = "behind"
    DRAINING = "draining"
    OK = "ok"


UNWELL = frozenset({State.SILENT, State.NOT_READY, State.LAGGING, State.STALE})
_ORDER = {state: place for place, state in enumerate(State)}


@dataclass(frozen=True, slots=True)
class Standing:
    """What one proxy told. ``endpoint`` is where it was asked, ``proxy`` what it calls itself.

    ``serials`` are by issuer. ``age`` is in seconds since helpers last confirmed its oldest name; None
    without any. ``buckets`` are (upper bound in seconds, changes up to it), as of a histogram. One that
    told nothing has a reason in ``silence`` and nothing else.
    """

    endpoint: str
    silence: str | None = None
    proxy: str = ""
    version: str = ""
    ready: bool = False
    draining: bool = False
    serials: Mapping[str, int] = field(default_factory=dict)
    age: float | None = None
    last_error: str | None = None
    buckets: Sequence[tuple[float, float]] = ()

    @property
    def name(self) -> str:
        """What to call it."""
        return self.proxy or self.endpoint


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a proxy may lack the newest snapshot, and that its oldest name may be unconfirmed."""

    lag: float = 60.0
    age: float = 600.0


@dataclass(frozen=True, slots=True)
class Row:
    """One proxy, judged. ``behind`` are the issuers of which another proxy has something newer.

    ``lag`` is in seconds since the first snapshot was made that this proxy is known to lack: 0 for none, None
    when it told nothing or has not learned anything yet, infinite where a serial is no time.
    """

    standing: Standing
    state: State
    lag: float | None
    behind: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """A fleet, judged: ``rows`` are worst first; ``newest`` are the highest serials by issuer.

    ``buckets`` are those of all proxies together, each change counted once for each of them.
    """

    rows: tuple[Row, ...]
    newest: Mapping[str, int]
    buckets: tuple[tuple[float, float], ...]

    @property
    def converged(self) -> int:
        """Proxies that have told, and have the newest of each helper that they follow."""
        return sum(row.lag == 0 for row in self.rows)

    @property
    def oldest(self) -> Row | None:
        """The one whose names have been unconfirmed for longest; None when nobody told."""
        told = [row for row in self.rows if row.standing.age is not None]
        return max(told, key=lambda row: row.standing.age or 0.0, default=None)

    @property
    def is_well(self) -> bool:
        """Whether there are proxies, and nobody lags, is stale, not ready or silent."""
        return bool(self.rows) and not any(row.state in UNWELL for row in self.rows)

    @property
    def changes(self) -> float:
        """Changes that proxies have measured."""
        return self.buckets[-1][1] if self.buckets else 0.0

    def convergence(self, share: float) -> float | None:
        """Return the seconds that ``share`` (0 to 1) of the changes took at the most; None without any."""
        return quantile(self.buckets, share)


def is_shared(issuer: str) -> bool:
    """Tell whether proxies can be compared by an issuer's serials.

    Not by those of helpers inside the proxies, each of which counts for itself.
    """
    return issuer != "embedded" and not issuer.startswith(("dns:", "embedded:"))


def judge_fleet(standings: Iterable[Standing], limits: Limits, wall_now: float) -> Judged:
    """Judge what was told at ``wall_now`` (Unix seconds, of whoever asks)."""
    told = list(standings)
    known: dict[str, list[int]] = {}
    for standing in told:
        for issuer, serial in standing.serials.items():
            if is_shared(issuer):
                known.setdefault(issuer, []).append(serial)
    serials = {issuer: sorted(set(listed)) for issuer, listed in known.items()}
    rows = [_judge(standing, serials, limits, wall_now) for standing in told]
    rows.sort(key=_badness)
    newest = {issuer: listed[-1] for issuer, listed in sorted(serials.items())}
    return Judged(tuple(rows), newest, _united(standing.buckets for standing in told))


def _judge(standing: Standing, serials: Mapping[str, Sequence[int]], limits: Limits, wall_now: float) -> Row:
    if standing.silence is not None:
        return Row(standing, State.SILENT, None)
    lags = {}
    for issuer, serial in standing.serials.items():
        newer = serials.get(issuer, ())
        place = bisect_right(newer, serial)
        if place < len(newer):
            lags[issuer] = _since(newer[place], wall_now)
    # One that waits for its first snapshot has nothing to be compared by.
    has_begun = standing.ready or bool(standing.serials)
    lag = max(lags.values(), default=0.0) if has_begun else None
    return Row(standing, _state(standing, lag, limits), lag, tuple(sorted(lags)))


def _since(serial: int, wall_now: float) -> float:
    made = serial / 1000
    # No serial has been made before 2001; those that do not begin as a time are small.
    if not 1e9 <= made <= wall_now + _CLOCK_SKEW:
        return float("inf")
    # Above 0 even where clocks differ: it does lack something.
    return max(0.001, wall_now - made)


def _state(standing: Standing, lag: float | None, limits: Limits) -> State:
    if standing.draining:
        return State.DRAINING
    if not standing.ready:
        return State.NOT_READY
    if lag is not None and lag > limits.lag:
        return State.LAGGING
    if standing.age is not None and standing.age > limits.age:
        return State.STALE
    if standing.last_error:
        return State.FAILING
    return State.BEHIND if lag else State.OK


def _badness(row: Row) -> tuple[int, float, float, str]:
    return _ORDER[row.state], -(row.lag or 0.0), -(row.standing.age or 0.0), row.standing.name


def _united(histograms: Iterable[Sequence[tuple[float, float]]]) -> tuple[tuple[float, float], ...]:
    """Add up cumulative buckets; versions with other bounds are read at those that they have."""
    listed = [sorted(histogram) for histogram in histograms if histogram]
    bounds = sorted({bound for histogram in listed for bound, _ in histogram})
    return tuple((bound, sum(_at(histogram, bound) for histogram in listed)) for bound in bounds)


def _at(histogram: Sequence[tuple[float, float]], bound: float) -> float:
    return max((count for upper, count in histogram if upper <= bound), default=0.0)


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Return the value below which ``share`` of the observations lie, as Prometheus' ``histogram_quantile``.

    Within a bucket they are taken to be spread evenly. In the last, unbounded one it is infinite.
    """
    total = buckets[-1][1] if buckets else 0.0
    if total <= 0:
        return None
    rank = share * total
    for (lower, before), (upper, count) in pairwise([(0.0, 0.0), *buckets]):
        if count >= rank and count > before:
            if upper == float("inf"):
                return upper
            return lower + (upper - lower) * (rank - before) / (count - before)
    return buckets[-1][0]
