"""All that the admin endpoint tells, put together from the parts of the proxy that know it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from time import time

from dnsproxy import supervise
from dnsproxy.address_service import AddressService
from dnsproxy.admin.status import Facts, NameDetails, SourceView
from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.registry import Wanted, undiscovered
from dnsproxy.core.totals import ReloadView, Traffic
from dnsproxy.core.trend import Recent
from dnsproxy.net.puller import SnapshotPuller
from dnsproxy.settings import Settings


def facts_of(
    settings: Settings,
    addresses: AddressService,
    puller: SnapshotPuller,
    traffic: Traffic,
    *,
    recent: Recent,
    started_at: float,
    draining: bool,
    reloads: ReloadView,
) -> Facts:
    """Return what is so at this time; ``started_at`` is Unix seconds. Needs a running event loop."""
    lifecycle = addresses.lifecycle
    wanted = lifecycle.managed()
    return Facts(
        wanted=wanted,
        table=addresses.table,
        snapshots={issuer: opened.snapshot for issuer, opened in lifecycle.snapshots.items()},
        sources=[SourceView(**asdict(source)) for source in puller.statuses],
        rejected=puller.rejected,
        stats=traffic.stats,
        upstreams=traffic.upstreams,
        cache_entries=traffic.cache_entries,
        in_flight=traffic.in_flight,
        workers=traffic.workers,
        wall_now=time(),
        started_at=started_at,
        draining=draining,
        tasks=len(asyncio.all_tasks()),
        task_failures=dict(supervise.failures),
        max_stale=settings.learn.max_stale,
        undiscovered=undiscovered(settings.sought(), lifecycle.discovered()),
        details={entry.name: _details(lifecycle, entry) for entry in wanted},
        refused=lifecycle.refused,
        overrides=lifecycle.overrides,
        canary=lifecycle.canary(),
        reloads=reloads,
        recent=recent,
        ttl=settings.learn.ttl,
        # Each worker may fill a cache of its own.
        cache_size=settings.cache.entries * max(1, len(traffic.workers)),
        host=os.uname().nodename,
        state_file=str(settings.learn.state_file),
        disk_failure=addresses.disk_failure,
        listen=[str(listen) for listen in (*settings.serve.listen, *settings.serve.tls.listen)],
        identity=settings.admin.identity,
        convergence=addresses.convergence,
    )


def _details(lifecycle: AddressLifecycle, entry: Wanted) -> NameDetails:
    states, refused = lifecycle.states(entry.name), lifecycle.refused_of(entry.name)
    addresses = [*(state.address for state in states), *(finding.address for finding in refused)]
    routed, ports = lifecycle.routed(entry, addresses), lifecycle.policy.ports_of(entry.name)
    return NameDetails(states, refused, routed, ports)
