"""Rounds: every server once per round, in an order that moves on by one each time."""

from __future__ import annotations

import errno
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import backend, check, workloads
from bench.check import WrongAnswerError
from bench.process import Child
from bench.servers import Server, Site
from bench.stats import Sample
from bench.workloads import LOAD_CORE, SERVER_CORE, Bench, Target

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What has been measured: samples, peak memory in bytes by server and round, and what failed."""

    samples: list[Sample] = field(default_factory=list)
    peaks: dict[str, list[int]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    generator_limit: float = 0.0
    """Queries per second of dnsperf against the backend alone, on the servers' core."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that neither UDP nor TCP uses now."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        ):
            stream.bind(("127.0.0.1", 0))
            port: int = stream.getsockname()[1]
            try:
                datagram.bind(("127.0.0.1", port))
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    raise
            else:
                return port


def order(servers: Sequence[Server], round_number: int) -> list[Server]:
    """Return the servers with another one first in each round."""
    first = round_number % len(servers) if servers else 0
    return [*servers[first:], *servers[:first]]


def start(
    bench: Bench, server: Server, backend_port: int, cache_entries: int = 100_000
) -> tuple[Child, Site]:
    """Start a server with fresh files on the servers' core; it may not answer yet."""
    directory = bench.directory / server.name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    site = Site(directory, free_port(), backend_port, free_port(), cache_entries)
    for name, text in server.files(site).items():
        (directory / name).write_text(text)
    child = Child(server.command(site), core=SERVER_CORE, log=directory / "log")
    return child, site


def run(
    bench: Bench, servers: Sequence[Server], chosen: Sequence[str], count: int, say: Say, outcome: Outcome
) -> None:
    """Measure ``chosen`` workloads on every server in ``count`` rounds; ``outcome`` grows as they come."""
    port = free_port()
    with backend.start(bench.directory / "backend", port, SERVER_CORE):
        outcome.generator_limit = generator_limit(bench, port)
        say(f"dnsperf by itself manages {outcome.generator_limit:.0f}/s")
    with backend.start(bench.directory / "backend", port, LOAD_CORE) as upstream:
        for number in range(count):
            for server in order(servers, number):
                if server.name in outcome.failures:
                    continue
                try:
                    _measure_server(bench, server, (upstream, port), number, chosen, say, outcome)
                except (WrongAnswerError, ValueError) as exc:
                    outcome.failures[server.name] = str(exc)
                    say(f"{server.name}: not measured further: {exc}")


def generator_limit(bench: Bench, port: int) -> float:
    """Return the queries per second that the load gets from a server which only looks a name up."""
    (seen,) = workloads.together(bench, workloads.hits(bench, port, 0.0))
    return seen.rate


def warmed(bench: Bench, target: Target) -> Target:
    """Return ``target`` when it answers as it should, and knows what a cache should know.

    Raises:
        WrongAnswerError: it does not; with the end of its output.
        ValueError: dnsperf failed.
    """
    try:
        check.wait_for_answer(target.port, check.START_SECONDS)
        check.require_right(target.port)
    except WrongAnswerError as exc:
        raise WrongAnswerError(f"{exc}\n{target.process.said()}") from exc
    workloads.warm(bench, target)
    return target


def _measure_server(
    bench: Bench,
    server: Server,
    upstream: tuple[Child, int],
    number: int,
    chosen: Sequence[str],
    say: Say,
    outcome: Outcome,
) -> None:
    child, site = start(bench, server, upstream[1])
    with child:
        target = warmed(bench, Target(server.name, number, site.port, child, upstream[0]))
        for name in chosen:
            capacity = workloads.capacity(outcome.samples, target)
            orders = workloads.WORKLOADS[name](bench, site.port, capacity)
            sample = workloads.measure(bench, target, name, orders)
            outcome.samples.append(sample)
            say(f"round {number + 1} {describe(sample)}")
        outcome.peaks.setdefault(server.name, []).append(child.memory("VmHWM"))


def describe(sample: Sample) -> str:
    """Return a sample as one line."""
    text = (
        f"{sample.server:9} {sample.workload:9} {sample.cpu_us:7.2f} µs/query {sample.rate:8.0f}/s "
        f"server {sample.server_busy:4.0%} load {sample.load_busy:4.0%} others {sample.others_busy:4.0%} "
        f"lost {sample.lost}"
    )
    if sample.p50_us is not None and sample.p99_us is not None:
        text += f" p50 {sample.p50_us:.0f} µs p99 {sample.p99_us:.0f} µs"
    return text
