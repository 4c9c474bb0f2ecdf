"""The workloads: what is asked, how hard, and what is kept of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import load, queries
from bench.load import Generator, Load, Order
from bench.names import cached, unique
from bench.process import Child, busy_seconds
from bench.stats import Sample, percentile, select

SERVER_CORE = 0
LOAD_CORE = 1
MISSES_PER_SECOND = 120_000  # more than any server here forwards, so that no name comes twice
MIX_RATE = 20_000
TCP_SHARE = 0.05
TCP_CLIENTS = 10
WARM_SECONDS = 20.0
LOW, HIGH = 0.2, 0.8


@dataclass(frozen=True)
class Bench:
    """What a workload runs with: a folder for its files, the load's duration and the rate of the mix."""

    directory: Path
    seconds: float
    mix_rate: int


@dataclass(frozen=True)
class Target:
    """A started server (and the backend, for its share of the load's core), in one round."""

    server: str
    round: int
    port: int
    process: Child
    backend: Child


Workload = Callable[[Bench, int, float], list[Order]]
"""Makes the orders for the server on a port whose capacity (queries per second, from `hits`) may be known."""


def measure(bench: Bench, target: Target, workload: str, orders: list[Order]) -> Sample:
    """Run the orders side by side and return the sample of all of them together."""
    server_before = target.process.cpu_seconds()
    backend_before = target.backend.cpu_seconds()
    machine_before = _machine_busy()
    seen = together(bench, orders)
    cpu = target.process.cpu_seconds() - server_before
    helpers = target.backend.cpu_seconds() - backend_before + sum(one.cpu_seconds for one in seen)
    others = _machine_busy() - machine_before - cpu - helpers
    completed = sum(one.completed for one in seen)
    seconds = max(one.seconds for one in seen)
    latencies = sorted(latency for one in seen for latency in one.latencies)
    return Sample(
        server=target.server,
        workload=workload,
        round=target.round,
        completed=completed,
        lost=sum(one.lost for one in seen),
        rate=completed / seconds,
        cpu_us=cpu / completed * 1e6 if completed else float("inf"),
        server_busy=cpu / seconds,
        load_busy=helpers / seconds,
        others_busy=max(others, 0.0) / seconds,
        p50_us=_micro(percentile(latencies, 0.50)),
        p99_us=_micro(percentile(latencies, 0.99)),
    )


def _machine_busy() -> float:
    return busy_seconds(Path("/proc/stat").read_text())


@contextmanager
def started(bench: Bench, orders: list[Order]) -> Iterator[list[Generator]]:
    """Run the orders side by side; those that still run at the end of the `with` block are stopped."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(Generator(order, LOAD_CORE, bench.directory / f"dnsperf-{number}.log"))
            for number, order in enumerate(orders)
        ]


def together(bench: Bench, orders: list[Order]) -> list[Load]:
    """Run the orders side by side and return what each saw."""
    with started(bench, orders) as running:
        return [generator.finish() for generator in running]


def _micro(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e6


def warm(bench: Bench, target: Target) -> None:
    """Ask for every name that a cache should know, as each workload asks for it, over UDP and TCP.

    Twice, for what a server keeps beside its cache is made when a name is asked for again.
    """
    text = _hits_file(bench)
    wire = queries.write_wire(bench.directory / "warm.wire", queries.warm_mix())
    for order in 2 * (
        Order(target.port, text, WARM_SECONDS, outstanding=20, once=True),
        Order(target.port, wire, WARM_SECONDS, outstanding=20, once=True, wire=True),
        Order(target.port, wire, WARM_SECONDS, outstanding=20, once=True, wire=True, tcp=True, clients=2),
    ):
        together(bench, [order])


def _hits_file(bench: Bench) -> Path:
    path = bench.directory / "hits.txt"
    return path if path.exists() else queries.write_text(path, queries.shuffled(cached()))


def owned(bench: Bench, port: int, _capacity: float) -> list[Order]:
    """(a) Names that the server answers itself, as fast as it can."""
    path = queries.write_text(bench.directory / "owned.txt", queries.owned_names())
    return [Order(port, path, bench.seconds)]


def hits(bench: Bench, port: int, _capacity: float) -> list[Order]:
    """(b) 5,000 names from the cache, as fast as it can."""
    return [Order(port, _hits_file(bench), bench.seconds)]


def misses(bench: Bench, port: int, _capacity: float) -> list[Order]:
    """(c) Names that nobody asked before, as fast as it can."""
    count = int(bench.seconds * MISSES_PER_SECOND)
    path = queries.write_text(bench.directory / "misses.txt", unique(count, secrets.token_hex(4)))
    return [Order(port, path, bench.seconds, once=True)]


def mixed(bench: Bench, port: int, _capacity: float) -> list[Order]:
    """(d) The mix at a fixed rate, the same for every server: a new cookie in each query, 5% over TCP."""
    run = secrets.token_hex(4)
    tcp_rate = max(int(bench.mix_rate * TCP_SHARE), 1)
    orders = []
    for tcp, rate in ((False, bench.mix_rate - tcp_rate), (True, tcp_rate)):
        transport = "tcp" if tcp else "udp"
        count = int(rate * bench.seconds * 1.1) + 100
        path = bench.directory / f"mix-{transport}.wire"
        queries.write_wire(path, queries.mix(count, f"{transport}-{run}"))
        clients = TCP_CLIENTS if tcp else load.CLIENTS
        orders.append(
            Order(
                port, path, bench.seconds, rate=rate, clients=clients, tcp=tcp,
                wire=True, once=True, latencies=True,
            )
        )  # fmt: skip
    return orders


def latency_low(bench: Bench, port: int, capacity: float) -> list[Order]:
    """(e) Cache hits at a fifth of what the server managed in (b)."""
    return _latency(bench, port, capacity * LOW)


def latency_high(bench: Bench, port: int, capacity: float) -> list[Order]:
    """(e) Cache hits at four fifths of what the server managed in (b)."""
    return _latency(bench, port, capacity * HIGH)


def _latency(bench: Bench, port: int, rate: float) -> list[Order]:
    return [Order(port, _hits_file(bench), bench.seconds, rate=max(int(rate), 1), latencies=True)]


# In the order in which they run; misses are last because they push the other names out of the caches.
WORKLOADS: dict[str, Workload] = {
    "owned": owned,
    "hits": hits,
    "latency20": latency_low,
    "latency80": latency_high,
    "mix": mixed,
    "misses": misses,
}


def capacity(samples: Sequence[Sample], target: Target) -> float:
    """Return the queries per second that a server managed in `hits` of this round; 0 before."""
    runs = [one for one in select(samples, target.server, "hits") if one.round == target.round]
    return runs[0].rate if runs else 0.0


def complete(chosen: Collection[str]) -> list[str]:
    """Return the chosen workloads in their order, with `hits` added where a latency needs its capacity."""
    needed = set(chosen)
    if needed & {"latency20", "latency80"}:
        needed.add("hits")
    return [name for name in WORKLOADS if name in needed]
