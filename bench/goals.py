"""The figures that dnsproxy is held to, and whether a run met them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.alone import Alone
from bench.stats import Sample, ratio, select

OWN = "dnsproxy"
BELOW_CAPACITY = ("latency20", "latency80", "mix")
MIB = 2**20


class RatioGoal(NamedTuple):
    """A bound on dnsproxy's figure over the least of some peers' in the same round."""

    text: str
    workload: str
    peers: tuple[str, ...]  # empty: all
    limit: float
    field: str = "cpu_us"


RATIOS = (
    RatioGoal("owned names: CPU per query / best peer", "owned", (), 0.95),
    RatioGoal("cache hits: CPU per query / best peer", "hits", (), 0.95),
    RatioGoal("misses: CPU per query / dnsdist", "misses", ("dnsdist",), 1.2),
    RatioGoal("misses: CPU per query / unbound", "misses", ("unbound",), 0.6),
    RatioGoal("mix: CPU per query / unbound", "mix", ("unbound",), 1.0),
    RatioGoal("cache hits at 20% load: p99 / unbound", "latency20", ("unbound",), 1.5, "p99_us"),
)


@dataclass(frozen=True)
class Verdict:
    """A goal, its limit, what was measured (None: not in this run), and the unit's format."""

    text: str
    limit: float
    value: float | None
    form: str = ".2f"

    @property
    def met(self) -> bool | None:
        """None when nothing was measured."""
        return None if self.value is None else self.value <= self.limit


def lost_below_capacity(samples: Sequence[Sample]) -> int | None:
    """Return the queries that dnsproxy lost where it was not asked for all it can do."""
    runs = [sample for name in BELOW_CAPACITY for sample in select(samples, OWN, name)]
    return sum(sample.lost for sample in runs) if runs else None


def judge(samples: Sequence[Sample], alone: Alone | None) -> list[Verdict]:
    """Return every goal with what this run says about it."""
    everyone = sorted({sample.server for sample in samples} - {OWN})
    verdicts = []
    for goal in RATIOS:
        found = ratio(samples, goal.workload, OWN, goal.peers or everyone, goal.field)
        verdicts.append(Verdict(goal.text, goal.limit, found.median if found else None))
    verdicts.append(Verdict("lost below capacity, queries", 0, lost_below_capacity(samples), ".0f"))
    of = alone or Alone()
    idle = None if of.idle_bytes is None else of.idle_bytes / MIB
    growth = None if of.flood_growth is None else of.flood_growth / MIB
    return [
        *verdicts,
        Verdict("start to the first answer, s", 0.7, of.start_seconds),
        Verdict("idle memory, MiB", 70, idle, ".1f"),
        Verdict("1,000,000 cached names: bytes each", 700, of.bytes_per_name, ".0f"),
        Verdict("flood of unique names: cache entries", 100_000, of.flood_entries, ".0f"),
        Verdict("flood of unique names: growth from 300,000 to 500,000, MiB", 2, growth, ".1f"),
    ]
