"""``dnsproxy serve`` with workers: what is made before the event loop, and what each worker is given."""

from __future__ import annotations

import asyncio
import mmap
import os
from typing import Literal, TypeVar

from dnsproxy.core.returns import KEY_SIZE, Returns
from dnsproxy.daemon import Service
from dnsproxy.host_calls import open_service_loop
from dnsproxy.net.doors import proxy_doors
from dnsproxy.processors import usable_processors
from dnsproxy.settings import Settings
from dnsproxy.settings.serving import MAX_WORKERS
from dnsproxy.system import system_resolvers
from dnsproxy.workers.nursery import Nursery
from dnsproxy.workers.worker import run_worker

Host = TypeVar("Host")

# Upstreams of all zones together, with workers: what they share of each has its place from the start on.
MAX_UPSTREAMS = 4096


def worker_count(workers: int | Literal["auto"]) -> int:
    """Return how many processes are to answer."""
    return min(usable_processors(), MAX_WORKERS) if workers == "auto" else workers


def serve_in_workers(service: Service, count: int) -> None:
    """Run ``dnsproxy serve`` with ``count`` workers until SIGTERM or SIGINT.

    Raises:
        StartError: the proxy cannot start.
        WorkerError: nobody answers queries any more.
    """
    shared = for_one_of(service.settings, count)
    returns = shared_returns()
    nursery = Nursery(lambda number, sock: run_worker(number, sock, returns), service.leave_to_others)
    try:
        keeper = service.open(proxy_doors(service.settings), shares=count)
        # Only now: what the control process needs besides would be in the memory of every worker.
        from dnsproxy.daemon import run_proxy  # noqa: PLC0415
        from dnsproxy.workers.fleet import Fleet  # noqa: PLC0415

        fleet = Fleet(nursery, shared, count, keeper)
        del shared  # this frame lives as long as the process, and they until a reload
        with asyncio.Runner(loop_factory=open_service_loop) as runner:
            runner.run(run_proxy(service, keeper, fleet))
    finally:
        nursery.close()


def for_one_of(settings: Settings, count: int) -> Settings:
    """Return what each of ``count`` workers is to go by.

    Bounds of what the whole program takes from others, connections and queries under way, are shared
    out, rounded up. The cache is not: clients reach every worker, so each needs the same names. ``system``
    is looked up once, or a worker that is started again could ask others than the rest.

    Raises:
        StartError: the system's resolvers cannot be read.
    """
    serve, forward = settings.serve, settings.forward
    zones = {zone: _expanded(hosts) for zone, hosts in forward.zones.items()}
    upstreams = _expanded(forward.upstreams)
    bounds = {key: -(-getattr(serve, key) // count) for key in ("max_tcp_clients", "max_tcp_per_client")}
    in_flight = -(-forward.max_in_flight // count)
    return settings.model_copy(
        update={
            "serve": serve.model_copy(update=bounds),
            "forward": forward.model_copy(
                update={"upstreams": upstreams, "zones": zones, "max_in_flight": in_flight}
            ),
        }
    )


def shared_returns() -> Returns:
    """Return what workers share of probes that came back, in memory that stays theirs over a fork."""
    # Aligned numbers of 8 octets: who reads one while it is written gets the old or the new one.
    last = memoryview(mmap.mmap(-1, 8 * MAX_UPSTREAMS)).cast("d")
    return Returns(os.urandom(KEY_SIZE), last)


def _expanded(hosts: list[Host | Literal["system"]]) -> list[object]:
    system = system_resolvers() if "system" in hosts else []
    return [found for host in hosts for found in (system if host == "system" else [host])]
