"""What several workers did, as if it were one: counters that never go back, gauges of those that live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from dnsproxy.core.stats import Stats, UpstreamStats


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker. ``started_at`` is Unix seconds and ``queries`` counts from then on, both of this ``pid``.

    ``pid`` and ``started_at`` are None while none runs. ``answers`` is False from its end, or its
    silence, until one in its place has bound its sockets.
    """

    number: int
    pid: int | None
    started_at: float | None
    queries: int
    restarts: int
    answers: bool


@dataclass(frozen=True, slots=True)
class ReloadView:
    """Whether the last configuration that was read is in force; when one was taken (Unix seconds)."""

    success: bool = True
    last_success: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reload did: key paths that ``changed``, those that ``need_restart``, or ``problems``.

    ``files`` are those that the settings name and whose content has changed.
    """

    changed: tuple[str, ...] = ()
    need_restart: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PullResult:
    """What one pull of a source did: the snapshot that the source has, or an ``error``."""

    url: str
    error: str | None = None
    issuer: str | None = None
    serial: int | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was asked and answered; ``workers`` is empty where one process does everything."""

    stats: Stats
    upstreams: Mapping[str, UpstreamStats]
    cache_entries: int
    in_flight: int
    workers: tuple[WorkerView, ...] = ()

    @property
    def queries(self) -> int:
        """Queries received."""
        return sum(self.stats.requests.values())


class Totals:
    """Adds up the last word of each worker. What one that has ended had counted stays."""

    def __init__(self) -> None:
        self._ended = Stats()
        self._ended_upstreams: dict[str, UpstreamStats] = {}
        self._latest: dict[int, Traffic] = {}
        self._duration_sum = 0.0

    def take(self, number: int, traffic: Traffic) -> None:
        """Take what worker ``number`` has counted since its start."""
        self._latest[number] = traffic

    def end(self, number: int) -> None:
        """Keep what worker ``number`` had counted: the next of this number counts from zero."""
        latest = self._latest.pop(number, None)
        if latest is not None:
            self._ended = added([self._ended, latest.stats])
            self._ended_upstreams = _counted([self._ended_upstreams, latest.upstreams])

    def queries(self, number: int) -> int:
        """Return how many queries worker ``number`` has received since its start."""
        latest = self._latest.get(number)
        return 0 if latest is None else latest.queries

    def traffic(self, workers: Iterable[WorkerView] = ()) -> Traffic:
        """Return everything added up.

        An upstream is up while no worker has it down: that one's clients are served by others. Its
        round-trip time is the mean of those that know one. Cached answers are counted in every
        cache that holds them, for that is the memory that they take.
        """
        living = [self._latest[number] for number in sorted(self._latest)]
        stats = added([self._ended, *(traffic.stats for traffic in living)])
        # Fractions added in another order may give less by the last bit, which would be a reset.
        self._duration_sum = stats.duration_sum = max(stats.duration_sum, self._duration_sum)
        upstreams = _counted([self._ended_upstreams, *(traffic.upstreams for traffic in living)])
        for name, total in upstreams.items():
            held = [traffic.upstreams[name] for traffic in living if name in traffic.upstreams]
            known = [one.rtt for one in held if one.rtt is not None]
            total.up = all(one.up for one in held)
            total.looped = any(one.looped for one in held)
            total.rtt = sum(known) / len(known) if known else None
        return Traffic(
            stats,
            upstreams,
            sum(traffic.cache_entries for traffic in living),
            sum(traffic.in_flight for traffic in living),
            tuple(workers),
        )


def added(parts: Iterable[Stats]) -> Stats:
    """Return new statistics with every counter of ``parts`` added up, those of later versions as well."""
    total = Stats()
    for part in parts:
        for field in fields(Stats):
            held, more = getattr(total, field.name), getattr(part, field.name)
            if isinstance(held, Counter):
                held.update(more)
            elif isinstance(held, dict):
                held |= {key: held.get(key, 0) + count for key, count in more.items()}
            elif isinstance(held, list):
                held[:] = [one + other for one, other in zip(held, more, strict=True)]
            else:
                setattr(total, field.name, held + more)
    return total


def _counted(parts: Iterable[Mapping[str, UpstreamStats]]) -> dict[str, UpstreamStats]:
    total: dict[str, UpstreamStats] = {}
    for part in parts:
        for name, stats in part.items():
            held = total.setdefault(name, UpstreamStats())
            held.sent += stats.sent
            held.failures.update(stats.failures)
            held.ignored.update(stats.ignored)
    return total
