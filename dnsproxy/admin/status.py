"""The status document of ``/api/v1/status``: one JSON object that says what a proxy knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dnsproxy.core.addresses.canary import PROMOTIONS, ROLLBACKS, CanaryView
from dnsproxy.core.addresses.filter import Finding
from dnsproxy.core.addresses.name_state import AddressState
from dnsproxy.core.addresses.overrides import Overrides
from dnsproxy.core.addresses.table import ServedTable, Statement
from dnsproxy.core.convergence import Convergence
from dnsproxy.core.learned import Snapshot
from dnsproxy.core.policy import STALE_TTL
from dnsproxy.core.registry import Sought, Wanted
from dnsproxy.core.stats import Stats, UpstreamStats
from dnsproxy.core.totals import ReloadView, WorkerView
from dnsproxy.core.trend import Recent
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
class NameDetails:
    """The addresses of one name: their states, the refused ones, and which have a route (None: unknown).

    ``ports`` are those that each must answer on; none: they are not probed.
    """

    states: tuple[AddressState, ...] = ()
    refused: tuple[Finding, ...] = ()
    routed: Mapping[str, bool | None] = field(default_factory=dict)
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that status, readiness and metrics are made from, taken at one time.

    ``wall_now`` and ``started_at`` are Unix seconds, ``max_stale`` seconds: how long addresses are answered
    after their snapshot has expired. ``table`` is what is answered, ``snapshots`` are the last ones by
    helper, ``details`` the addresses of each name, also those that are held back or refused. ``workers`` is
    empty where one process does everything. ``ttl`` is what clients are given with learned addresses, in
    seconds; ``cache_size`` counts entries, of all workers together; ``tasks`` are those of the event loop,
    ``task_failures`` counts by name those that have failed.
    ``sockets_missing`` counts those that the service manager was expected to give and did not.
    ``identity`` is what it calls itself in place of its ``host``.
    """

    wanted: Sequence[Wanted]
    table: ServedTable
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
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    details: Mapping[str, NameDetails] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    overrides: Overrides = field(default_factory=Overrides)
    workers: Sequence[WorkerView] = ()
    reloads: ReloadView = field(default_factory=ReloadView)
    recent: Recent = field(default_factory=Recent)
    ttl: int = STALE_TTL
    cache_size: int = 0
    host: str = ""
    listen: Sequence[str] = ()
    tasks: int = 0
    task_failures: Mapping[str, int] = field(default_factory=dict)
    sockets_missing: int = 0
    state_file: str = ""
    disk_failure: str | None = None
    identity: str | None = None
    convergence: Convergence = field(default_factory=lambda: Convergence(0.0))
    canary: CanaryView = field(default_factory=CanaryView)

    def in_service(self, wanted: Wanted) -> Statement | None:
        """Return what is answered for a learned name; None when pinned, unknown or too old."""
        held = None if wanted.addresses else self.table.sets.get(wanted.name)
        if held is None or self.wall_now >= held.snapshot.expires_at + self.max_stale:
            return None
        return held

    def is_pinned(self, wanted: Wanted) -> bool:
        """Tell whether the configuration or an order fixes the addresses of a name."""
        return bool(wanted.addresses) or wanted.name in self.overrides.pins

    def missing(self) -> list[str]:
        """Return the owned names that have no address to answer with, and the roles not found out yet."""
        unknown = [f"{entry.registry}: {entry.role} (not discovered yet)" for entry in self.undiscovered]
        known = [entry.name for entry in self.wanted if not entry.addresses and not self.in_service(entry)]
        return known + unknown

    def age(self, wanted: Wanted) -> float | None:
        """Return seconds since a helper confirmed the addresses; None for pinned and unknown names."""
        held = None if self.is_pinned(wanted) else self.table.sets.get(wanted.name)
        return None if held is None else max(0.0, self.wall_now - held.learned.observed_at)


def status_document(facts: Facts) -> dict[str, Any]:
    """Return the document. Ages and uptime are in seconds."""
    missing = facts.missing()
    stats = facts.stats
    return {
        "version": __version__,
        "host": facts.host,
        "listen": list(facts.listen),
        "now": facts.wall_now,
        "uptime": round(facts.wall_now - facts.started_at, 1),
        "serial": facts.table.serial,
        "ready": not missing and not facts.draining,
        "draining": facts.draining,
        "missing": missing,
        "undiscovered": [{"registry": entry.registry, "role": entry.role} for entry in facts.undiscovered],
        "state": {"file": facts.state_file, "failure": facts.disk_failure},
        "names": [_name(facts, entry) for entry in facts.wanted],
        "sources": [_source(facts, source) for source in facts.sources],
        "rejected": dict(facts.rejected),
        "refused": dict(facts.refused),
        **overrides_document(facts.overrides),
        "canary": canary_document(facts.canary),
        "upstreams": [
            {
                "name": name,
                "up": held.up,
                "looped": held.looped,
                "rtt": held.rtt,
                "sent": held.sent,
                "failures": dict(held.failures),
            }
            for name, held in facts.upstreams.items()
        ],
        "cache": {
            "entries": facts.cache_entries,
            "size": facts.cache_size,
            "hits": stats.cache_hits,
            "misses": stats.cache_misses,
        },
        "in_flight": facts.in_flight,
        "requests": sum(stats.requests.values()),
        "responses": _by_source(stats.responses.items()),
        "drops": dict(stats.drops),
        "recent": _recent(facts.recent),
        "workers": [_worker(facts, worker) for worker in facts.workers],
    }


def _recent(recent: Recent) -> dict[str, Any]:
    """Return the last hour: per minute, oldest first, and the rate in queries per second."""
    return {
        "queries_per_second": None if recent.rate is None else round(recent.rate, 2),
        "queries": [minute.queries for minute in recent.minutes],
        "answers": {source: list(counts) for source, counts in recent.by_source().items()},
        "cache_hits": [minute.hits for minute in recent.minutes],
        "cache_misses": [minute.misses for minute in recent.minutes],
        "drops": [minute.drops for minute in recent.minutes],
    }


def _worker(facts: Facts, worker: WorkerView) -> dict[str, Any]:
    started_at = worker.started_at
    return {
        "worker": worker.number,
        "pid": worker.pid,
        "answers": worker.answers,
        "started_at": started_at,
        "uptime": None if started_at is None else max(0.0, round(facts.wall_now - started_at, 1)),
        "queries": worker.queries,
        "restarts": worker.restarts,
    }


def _by_source(counts: Iterable[tuple[tuple[str, str], int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for (_, source), count in counts:
        totals[source] = totals.get(source, 0) + count
    return totals


def _name(facts: Facts, entry: Wanted) -> dict[str, Any]:
    freeze = facts.overrides.freeze
    details = facts.details.get(entry.name, NameDetails())
    document: dict[str, Any] = {
        "name": entry.name,
        "role": entry.role,
        "registry": entry.registry,
        "addresses": list(entry.addresses),
        "cname": entry.cname,
        "source": None,
        "serial": None,
        "ttl": facts.ttl,
        "source_ttl": None,
        "age": facts.age(entry),
        "observed_at": None,
        "status": "missing",
        "pinned": facts.is_pinned(entry),
        "frozen": freeze is not None and entry.name in freeze.sets,
        "ports": list(details.ports),
        "details": [*_details(details)],
    }
    held = facts.in_service(entry)
    if entry.addresses:
        document |= {"source": "pinned", "status": "pinned"}
    elif held is not None and document["pinned"]:
        addresses = list(held.learned.addresses)
        document |= {"addresses": addresses, "cname": None, "source": "pinned", "status": "pinned"}
    elif held is not None:
        expired = facts.wall_now >= held.snapshot.expires_at
        document |= {
            "addresses": list(held.learned.addresses),
            "cname": held.learned.cname,
            "source": held.snapshot.issuer,
            "serial": held.snapshot.serial,
            "ttl": min(facts.ttl, STALE_TTL) if expired else facts.ttl,
            "source_ttl": held.learned.ttl,
            "observed_at": held.learned.observed_at,
            "status": "stale" if expired or held.learned.status != "ok" else "ok",
        }
    return document


def _details(details: NameDetails) -> Iterator[dict[str, Any]]:
    for state in details.states:
        yield {
            "address": state.address,
            "state": "serving" if state.serving else "held_back",
            "reason": state.reason,
            "routed": details.routed.get(state.address),
            "probe": {str(port): text for port, text in state.result.ports.items()} if state.result else {},
            "checked_at": state.checked_at,
            "since": state.since,
        }
    for finding in details.refused:
        yield {
            "address": finding.address,
            "state": "refused",
            "reason": f"{finding.reason.value}: {finding.detail}",
            "routed": details.routed.get(finding.address),
            "probe": {},
            "checked_at": None,
            "since": None,
        }


def overrides_document(overrides: Overrides) -> dict[str, Any]:
    """Return the pins and the freeze of operators. Times are Unix seconds."""
    freeze = overrides.freeze
    return {
        "pinned": [
            {"name": name, "addresses": list(pin.addresses), "since": pin.since}
            for name, pin in sorted(overrides.pins.items())
        ],
        "frozen": freeze
        and {"since": freeze.since, "rolled_back_to": freeze.serial, "names": len(freeze.sets)},
    }


def canary_document(view: CanaryView) -> dict[str, Any] | None:
    """Return the new sets that are on trial, and those rolled back; None without a canary.

    Times are Unix seconds, ``hold`` is seconds. ``served_to`` is all or none.
    """
    policy = view.policy
    if policy is None:
        return None
    return {
        "identity": policy.identity,
        "share": policy.share,
        "hold": policy.hold,
        "promotions": {ending.value: view.outcomes.get(ending, 0) for ending in PROMOTIONS},
        "rollbacks": {ending.value: view.outcomes.get(ending, 0) for ending in ROLLBACKS},
        "trials": [
            {
                "name": name,
                "state": trial.state.value,
                "old": list(view.stable.get(name, ())),
                "new": list(trial.addresses),
                "cname": trial.cname,
                "served_to": view.served_to(name),
                "started_at": trial.started_at,
                "ends_at": trial.started_at + policy.hold if trial.is_running else None,
                "ended_at": trial.ended_at,
                "reason": trial.outcome and trial.outcome.value,
                "detail": trial.detail or None,
            }
            for name, trial in sorted(view.trials.items())
        ],
    }


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
