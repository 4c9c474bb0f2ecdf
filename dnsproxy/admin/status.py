"""The status document of ``/api/v1/status``: one JSON object that says what a proxy knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dnsproxy.core.book import Book, Entry
from dnsproxy.core.registry import Sought, Wanted
from dnsproxy.core.stats import Stats, UpstreamStats
from dnsproxy.version import __version__


@dataclass(frozen=True, slots=True)
class SourceView:
    """One source of snapshots. Times are Unix seconds, None for never."""

    url: str
    last_attempt: float | None
    last_success: float | None
    last_error: str | None
    issuer: str | None
    serial: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that status, readiness and metrics are made from, taken at one time.

    ``wall_now`` and ``started_at`` are Unix seconds, ``max_stale`` seconds: how long
    addresses stay in service after their snapshot has expired.
    """

    wanted: Sequence[Wanted]
    book: Book
    sources: Sequence[SourceView]
    rejected: Mapping[str, int]
    stats: Stats
    upstreams: Mapping[str, UpstreamStats]
    cache_entries: int
    in_flight: int
    wall_now: float
    started_at: float
    draining: bool
    max_stale: float = math.inf
    undiscovered: Sequence[Sought] = ()

    def in_service(self, wanted: Wanted) -> Entry | None:
        """Return what is answered for a learned name; None when pinned, unknown or too old."""
        held = None if wanted.addresses else self.book.entries.get(wanted.name)
        if held is None or self.wall_now >= held.snapshot.expires_at + self.max_stale:
            return None
        return held

    def missing(self) -> list[str]:
        """Return the owned names that have no address to answer with, and the roles not found out yet."""
        unknown = [f"{entry.registry}: {entry.role} (not discovered yet)" for entry in self.undiscovered]
        known = [entry.name for entry in self.wanted if not entry.addresses and not self.in_service(entry)]
        return known + unknown

    def age(self, wanted: Wanted) -> float | None:
        """Return seconds since a helper confirmed the addresses; None for pinned and unknown names."""
        held = None if wanted.addresses else self.book.entries.get(wanted.name)
        return None if held is None else max(0.0, self.wall_now - held.learned.observed_at)


def status_document(facts: Facts) -> dict[str, Any]:
    """Return the document. Ages and uptime are in seconds."""
    missing = facts.missing()
    stats = facts.stats
    return {
        "version": __version__,
        "uptime": round(facts.wall_now - facts.started_at, 1),
        "serial": facts.book.serial,
        "ready": not missing and not facts.draining,
        "draining": facts.draining,
        "missing": missing,
        "names": [_name(facts, entry) for entry in facts.wanted],
        "sources": [_source(facts, source) for source in facts.sources],
        "rejected": dict(facts.rejected),
        "upstreams": [
            {"name": name, "up": held.up, "rtt": held.rtt, "sent": held.sent, "failures": dict(held.failures)}
            for name, held in facts.upstreams.items()
        ],
        "cache": {"entries": facts.cache_entries, "hits": stats.cache_hits, "misses": stats.cache_misses},
        "in_flight": facts.in_flight,
        "requests": sum(stats.requests.values()),
        "responses": _by_source(stats.responses.items()),
        "drops": dict(stats.drops),
    }


def _by_source(counts: Iterable[tuple[tuple[str, str], int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for (_, source), count in counts:
        totals[source] = totals.get(source, 0) + count
    return totals


def _name(facts: Facts, entry: Wanted) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": entry.name,
        "role": entry.role,
        "registry": entry.registry,
        "addresses": list(entry.addresses),
        "cname": entry.cname,
        "source": None,
        "serial": None,
        "age": facts.age(entry),
        "observed_at": None,
        "status": "missing",
    }
    held = facts.in_service(entry)
    if entry.addresses:
        document |= {"source": "pinned", "status": "pinned"}
    elif held is not None:
        expired = facts.wall_now >= held.snapshot.expires_at
        document |= {
            "addresses": list(held.learned.addresses),
            "cname": held.learned.cname,
            "source": held.snapshot.issuer,
            "serial": held.snapshot.serial,
            "observed_at": held.learned.observed_at,
            "status": "stale" if expired or held.learned.status != "ok" else "ok",
        }
    return document


def _source(facts: Facts, source: SourceView) -> dict[str, Any]:
    last = source.last_success
    return {
        "url": source.url,
        "issuer": source.issuer,
        "serial": source.serial,
        "age": None if last is None else max(0.0, facts.wall_now - last),
        "last_attempt": source.last_attempt,
        "last_success": last,
        "last_error": source.last_error,
    }
