"""Measure how throughput grows from one worker to two, for owned names and for misses.

Unlike `make bench`, nobody is pinned: the server, the load (dnsperf, one thread) and the backend
all run on the same two cores, for two workers could not be measured on one. So the load takes
from what the workers could use, and the ratio says as much about it as about them. Beside the ratio
stand therefore what bounds it, and the CPU time per query of each, from which the ratio
on a machine with cores to spare follows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import backend, check, machine, rounds, workloads
from bench.load import Load, Order, parse
from bench.process import Child, busy_seconds, ended, tree
from bench.servers import SERVERS, Site
from bench.workloads import LOAD_CORE, SERVER_CORE, Bench

CORES = (SERVER_CORE, LOAD_CORE)
COUNTS = (1, 2)
WORKLOADS: dict[str, Callable[[Bench, int, float], list[Order]]] = {
    "owned names": workloads.owned,
    "misses": workloads.misses,
}
_GRACE_SECONDS = 20.0


@dataclass(frozen=True)
class Run:
    """One workload on one number of workers. CPU times are microseconds per completed query.

    ``busy`` is how much of the two cores was used, by whomever; ``others_us`` is that of what is
    neither server, load nor backend. ``memory`` is the proportional set size of all its processes, in octets.
    """

    workload: str
    workers: int
    rate: float
    lost: int
    server_us: float
    load_us: float
    backend_us: float
    others_us: float
    busy: float
    memory: int

    @property
    def most(self) -> float:
        """Queries per second at which everybody together would fill both cores."""
        return len(CORES) * 1e6 / (self.server_us + self.load_us + self.backend_us)


def proportional_set_size(child: Child) -> int:
    """Return the memory of all processes of ``child`` in octets, what they share counted once."""
    total = 0
    for pid in tree(child.pid):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def ask(order: Order, log: Path) -> Load:
    """Run dnsperf, not pinned, to its end.

    Raises:
        ValueError: it failed or did not end in time.
    """
    with log.open("wb") as out:
        command = ["setpriv", "--pdeathsig", "TERM", *order.command()]
        process = subprocess.Popen(  # noqa: S603 - the command is built by `Order`
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if not ended(process.pid, order.seconds + _GRACE_SECONDS):
        process.kill()
        process.wait()
        raise ValueError("dnsperf did not end in time")
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return parse(log.read_text(errors="replace"), usage.ru_utime + usage.ru_stime)


def start(bench: Bench, backend_port: int, workers: int) -> tuple[Child, Site]:
    """Start dnsproxy with so many workers, all else as in `make bench`."""
    directory = bench.directory / f"workers-{workers}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    site = Site(directory, rounds.free_port(), backend_port, rounds.free_port())
    for name, text in SERVERS[0].files(site).items():
        (directory / name).write_text(with_workers(text, workers))
    return Child(SERVERS[0].command(site), core=SERVER_CORE, log=directory / "log"), site


def with_workers(text: str, workers: int) -> str:
    """Return the configuration with so many workers."""
    return text.replace("serve:\n", f"serve:\n  workers: {workers}\n")


def measure(bench: Bench, upstream: Child, backend_port: int, workers: int) -> list[Run]:
    """Return a run of each workload on a fresh server.

    Raises:
        WrongAnswerError: it does not answer as it should.
        ValueError: dnsperf failed.
    """
    child, site = start(bench, backend_port, workers)
    runs = []
    with child:
        check.wait_for_answer(site.port, check.START_SECONDS)
        check.require_right(site.port)
        child.hold(CORES)
        for name, orders in WORKLOADS.items():
            (order,) = orders(bench, site.port, 0.0)
            runs.append(_run(bench, name, workers, order, child, upstream))
    return runs


def _run(bench: Bench, workload: str, workers: int, order: Order, child: Child, upstream: Child) -> Run:
    server, behind, everybody = child.cpu_seconds(), upstream.cpu_seconds(), _machine()
    seen = ask(order, bench.directory / "dnsperf.log")
    server, behind = child.cpu_seconds() - server, upstream.cpu_seconds() - behind
    everybody = _machine() - everybody
    others = max(everybody - server - behind - seen.cpu_seconds, 0.0)
    each = 1e6 / max(seen.completed, 1)
    return Run(
        workload,
        workers,
        seen.rate,
        seen.lost,
        server_us=server * each,
        load_us=seen.cpu_seconds * each,
        backend_us=behind * each,
        others_us=others * each,
        busy=everybody / seen.seconds / len(CORES),
        memory=proportional_set_size(child),
    )


def _machine() -> float:
    return busy_seconds(Path("/proc/stat").read_text())


def report(runs: Sequence[Run], limit: float) -> str:
    """Return the figures as text: medians over the rounds, and what bounds them."""
    lines = [f"dnsperf (one thread) stops at {limit:,.0f} queries/s by itself, on a core of its own"]
    for workload in WORKLOADS:
        one, two = ([run for run in runs if (run.workload, run.workers) == (workload, n)] for n in COUNTS)
        if one and two:
            lines += ["", workload, _row("1 worker", one), _row("2 workers", two), *_ratios(one, two)]
    return "\n".join(lines) + "\n"


def _row(title: str, runs: Sequence[Run]) -> str:
    def middle(field: str) -> float:
        values: list[float] = [getattr(run, field) for run in runs]
        return median(values)

    costs = [f"{name} {middle(f'{name}_us'):.2f}" for name in ("server", "load", "backend", "others")]
    return (
        f"  {title:9} {middle('rate'):9,.0f}/s; CPU µs per query: {', '.join(costs)}; "
        f"both cores {middle('busy'):.0%} busy; lost {sum(run.lost for run in runs)}; "
        f"memory {middle('memory') / 2**20:.0f} MiB"
    )


def _ratios(one: Sequence[Run], two: Sequence[Run]) -> list[str]:
    """Return the measured ratio with its bound, and the one that the CPU times promise."""
    pairs = list(zip(one, two, strict=False))
    measured = median(second.rate / first.rate for first, second in pairs)
    most = median(second.most for second in two)
    alone = median(2 * first.server_us / second.server_us for first, second in pairs)
    return [
        f"  2 workers to 1: {measured:.2f}; with this load beside them two cores are full at {most:,.0f}/s",
        f"  by the servers' CPU time per query, were there cores to spare: {alone:.2f}",
    ]


def main() -> int:
    """Measure and print; 1 when something failed, 2 when a program or a core is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load; default: %(default)s")
    options = parser.parse_args()
    missing = machine.lacking()
    if missing:
        sys.stderr.write(f"missing: {missing}\n")
        return 2
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="dnsproxy-scaling-") as folder:
        bench = Bench(Path(folder), options.seconds, 0)
        port = rounds.free_port()
        with backend.start(bench.directory / "backend", port, SERVER_CORE) as upstream:
            limit = rounds.generator_limit(bench, port)
            upstream.hold(CORES)
            for number in range(options.rounds):
                for count in COUNTS:
                    try:
                        runs += measure(bench, upstream, port, count)
                    except (check.WrongAnswerError, ValueError, OSError) as exc:
                        sys.stderr.write(f"{count} workers: {exc}\n")
                        return 1
                sys.stderr.write(f"round {number + 1} of {options.rounds}\n")
    sys.stdout.write(report(runs, limit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
