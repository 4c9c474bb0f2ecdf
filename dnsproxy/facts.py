"""All that the admin endpoint tells, put together from the parts of the proxy that know it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from time import time

from dnsproxy import supervise
from dnsproxy.admin.status import Facts, SourceView
from dnsproxy.core.registry import undiscovered
from dnsproxy.core.totals import ReloadView, Traffic
from dnsproxy.core.trend import Recent
from dnsproxy.learning import Learning
from dnsproxy.settings import Settings


def facts_of(
    settings: Settings,
    learning: Learning,
    traffic: Traffic,
    *,
    recent: Recent,
    started_at: float,
    draining: bool,
    reloads: ReloadView,
) -> Facts:
    """Return what is so at this time; ``started_at`` is Unix seconds. Needs a running event loop."""
    vetting, learner = learning.vetting, learning.learner
    return Facts(
        wanted=vetting.wanted(),
        book=vetting.served,
        sources=[SourceView(**asdict(source)) for source in learner.statuses],
        rejected=learner.rejected,
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
        undiscovered=undiscovered(settings.sought(), learner.book.found()),
        vetted={entry.name: vetting.vetted(entry) for entry in vetting.wanted()},
        refused=vetting.screen.refused,
        orders=vetting.orders,
        canary=vetting.canary(),
        reloads=reloads,
        recent=recent,
        ttl=settings.learn.ttl,
        # Each worker may fill a cache of its own.
        cache_size=settings.cache.size * max(1, len(traffic.workers)),
        host=os.uname().nodename,
        state_file=str(settings.learn.state_file),
        disk_failure=learner.disk_failure or vetting.disk_failure,
        listen=[str(listen) for listen in (*settings.serve.listen, *settings.serve.tls.listen)],
        identity=settings.admin.identity,
        convergence=learning.convergence,
    )
