"""The little arithmetic that turns samples into a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Sample:
    """One workload on one server in one round.

    ``cpu_us`` is the server's processor time per completed query; ``*_busy``
    are shares of one core (the server's; the load's together with the
    backend's; that of every other process of the machine); ``p50_us`` and
    ``p99_us`` are None where latency was not taken.
    """

    server: str
    workload: str
    round: int
    completed: int
    lost: int
    rate: float
    cpu_us: float
    server_busy: float
    load_busy: float
    others_busy: float = 0.0
    p50_us: float | None = None
    p99_us: float | None = None


class Spread(NamedTuple):
    """A median with the least and the greatest value."""

    median: float
    least: float
    greatest: float


def spread(values: Iterable[float]) -> Spread | None:
    """Return median and range, or None when there is no value."""
    known = sorted(values)
    return Spread(statistics.median(known), known[0], known[-1]) if known else None


def percentile(ascending: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` (0 to 1) of the values do not exceed."""
    if not ascending:
        return None
    return ascending[max(math.ceil(share * len(ascending)), 1) - 1]


def select(samples: Iterable[Sample], server: str, workload: str) -> list[Sample]:
    """Return the samples of one server and workload."""
    return [sample for sample in samples if (sample.server, sample.workload) == (server, workload)]


def ratio(
    samples: Sequence[Sample], workload: str, server: str, peers: Sequence[str], field: str = "cpu_us"
) -> Spread | None:
    """Return ``server``'s figure over the least of the ``peers``' in the same round, over all rounds.

    Rounds in which the server or every peer is missing do not count.
    """
    rounds: list[float] = []
    for own in select(samples, server, workload):
        others = [
            getattr(sample, field)
            for peer in peers
            for sample in select(samples, peer, workload)
            if sample.round == own.round and getattr(sample, field)
        ]
        if others and getattr(own, field) is not None:
            rounds.append(getattr(own, field) / min(others))
    return spread(rounds)
