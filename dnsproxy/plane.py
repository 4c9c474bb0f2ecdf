"""What answers queries, as the rest of the program sees it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.totals import Traffic
from dnsproxy.settings import Settings

if TYPE_CHECKING:
    from dnsproxy.core.explain import Explanation, Question

# The query path makes no reference cycles, so the collector has little to find: with Python's own thresholds
# (700, 10, 10) it costs 4 us per forwarded query, with these under 1 us. A collection looks at 5,000 new
# objects, every third one at 15,000, which takes 8 ms; all are looked at after 75 million new ones.
GC_THRESHOLDS = (5_000, 2, 5_000)
# Seconds for which a thread, such as the one that reads a configuration, may run while the event loop waits
# for the interpreter. Python's 5 ms would pass up to three times for each query.
SWITCH_INTERVAL = 0.0005


def tune_interpreter() -> None:
    """Put queries first: few garbage collections, none of what start-up made, and short turns of threads."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL)


class Change(Protocol):
    """A configuration that can be put in force; nothing can fail any more."""

    async def commit(self) -> None:
        """Answer by it from now on."""


class Plane(Protocol):
    """What answers queries: `Server` in this process, or `workers.fleet.Fleet` in others."""

    def swap_table(self, table: ServedTable) -> None:
        """Answer with the addresses of ``table`` from now on."""

    def update(self, table: ServedTable, names: Iterable[str]) -> None:
        """Answer ``names`` by ``table`` from now on; all others are as before."""

    async def open(self) -> None:
        """Start to answer; raises `StartError`."""

    async def run(self) -> None:
        """Do what is to be done while it answers, until cancelled."""

    @property
    def is_well(self) -> bool:
        """Whether queries are answered, as far as can be told."""

    async def prepare(self, settings: Settings) -> Change:
        """Make what answering by ``settings`` takes; raises `StartError`. Nothing changes yet."""

    async def finish(self) -> None:
        """Answer what has come until now, then stop answering."""

    async def close(self) -> None:
        """Stop answering at once."""

    async def restart_workers(self) -> str | None:
        """Replace every process that answers, one after another; return why that ended early, if it did."""

    async def gather(self) -> None:
        """Have the figures of `traffic` brought up to date."""

    def traffic(self) -> Traffic:
        """Return what was asked and answered since the start."""

    async def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of a name, or all; return how many."""

    async def explain(self, question: Question) -> Explanation:
        """Return the path that a query would take, without taking it; raises `WorkerError`."""
