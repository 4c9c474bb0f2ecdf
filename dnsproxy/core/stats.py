"""Counters of one engine: plain numbers, so that workers can add theirs up."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from dnsproxy.core.message import request_label
from dnsproxy.core.wire import rcode_label

# What a response was made from, and the labels of that.
LEARNED: Final = 0
LOCAL: Final = 1
CACHE: Final = 2
STALE: Final = 3
FORWARD: Final = 4
ERROR: Final = 5
SOURCES: Final = ("learned", "local", "cache", "stale", "forward", "error")


# Seconds. From a table hit to the default total time of a forwarded query.
FIRST_BOUND: Final = 0.0001
DURATION_BOUNDS: Final[list[float]] = [
    FIRST_BOUND,
    0.0005,
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.0,
]


class Ignored(StrEnum):
    """Why a datagram from an upstream's address was passed over. The value is the metric's label."""

    # No open question has this id: a late or doubled reply, or a guess.
    UNKNOWN_ID = "unknown_id"
    # It has the id of an open question and is no whole reply to it.
    NOT_OURS = "not_ours"


@dataclass(slots=True)
class UpstreamStats:
    """What one upstream did: sends, failures by kind, and the decaying round-trip time in seconds.

    ``ignored`` counts datagrams from its address that were no reply to an open question, by reason.
    ``looped``: a probe came back, so that it is left out.
    """

    sent: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    rtt: float | None = None
    up: bool = True
    looped: bool = False


@dataclass(slots=True)
class Stats:
    """Totals since start.

    ``requests`` by (proto, type), ``responses`` by (rcode, source), ``drops``
    by reason. The engine counts the first two by number, in ``asked`` and ``answered``,
    because a count under a pair of texts costs 0.4 us; `settle` brings them up to date.
    ``refreshes`` counts what was asked for anew behind the clients' backs, by reason.
    ``encrypted`` counts, by protocol (``tls``, ``https``), those of ``requests`` under ``tcp`` that came so.
    ``records`` and ``records_lost`` count what was written to each log, and what could not be
    (``program``, which has the events, ``queries``, ``dnstap``).
    ``local_failures`` counts sockets that this host could not give, and calls that it refused, by use.
    ``durations`` counts per bucket of `DURATION_BOUNDS`, the last
    one unbounded; ``duration_sum`` is in seconds.
    """

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    encrypted: Counter[str] = field(default_factory=Counter)
    responses: Counter[tuple[str, str]] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    durations: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BOUNDS) + 1))
    duration_sum: float = 0.0
    refreshes: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    records_lost: Counter[str] = field(default_factory=Counter)
    local_failures: Counter[str] = field(default_factory=Counter)
    cache_hits: int = 0
    cache_misses: int = 0
    asked: dict[int, int] = field(default_factory=dict)
    answered: dict[int, int] = field(default_factory=dict)

    def count_request(self, number: int, count: int = 1) -> None:
        """Count queries under their `request_number`."""
        self.asked[number] = self.asked.get(number, 0) + count

    def count_response(self, number: int, count: int = 1) -> None:
        """Count responses under their `response_number`."""
        self.answered[number] = self.answered.get(number, 0) + count

    def settle(self) -> None:
        """Give what was counted by number its names in ``requests`` and ``responses``."""
        for number, count in self.asked.items():
            self.requests[request_label(number >> 1, tcp=bool(number & 1))] += count
        for number, count in self.answered.items():
            self.responses[rcode_label(number >> 3), SOURCES[number & 7]] += count
        self.asked.clear()
        self.answered.clear()

    def record_duration(self, seconds: float, count: int = 1) -> None:
        """Record that ``count`` queries took ``seconds`` each from arrival to response."""
        # Nearly all are in the first bucket: a hit of the table or the cache.
        bucket = 0 if seconds <= FIRST_BOUND else bisect_left(DURATION_BOUNDS, seconds)
        self.durations[bucket] += count
        self.duration_sum += seconds * count


def request_number(qtype: int, *, tcp: bool) -> int:
    """Return the number under which `Stats` counts a query."""
    return qtype << 1 | tcp


def over_tcp(number: int) -> int:
    """Return the number of the same query over TCP."""
    return number | 1


def response_number(rcode: int, source: int) -> int:
    """Return the number under which `Stats` counts a response."""
    return rcode << 3 | source
