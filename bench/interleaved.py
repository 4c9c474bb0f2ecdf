"""Compare servers, or builds of dnsproxy, by many short samples in turn: `python -m bench.interleaved mix`.

What the neighbours of a virtual machine do moves samples of seconds by a tenth. Short ones that follow
each other are moved alike: after 40 rounds of 0.3 s the mean ratio has a standard error of 1 %. All servers
run all the time, and are asked as in `make bench`.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from statistics import mean, median, stdev

from bench import backend, check, machine, rounds, workloads
from bench.servers import SERVERS, Server, Site, dnsproxy
from bench.stats import Sample, select
from bench.workloads import LOAD_CORE, MIX_RATE, Bench, Target

# The latencies need the capacity of each server, and are not about CPU time.
WORKLOADS = ("owned", "hits", "mix", "misses")
_TAKEN = frozenset({"backend"})


def _lasting(site: Site) -> dict[str, str]:
    """Return dnsproxy's files, with negative answers that last for the hour of the others.

    By default it keeps them for a minute, within which `make bench` has done with a server.
    """
    files = dnsproxy(site)
    return {name: text.replace("cache: {", "cache: {negative_ttl: 1h, ") for name, text in files.items()}


_KINDS = {
    server.name: replace(server, files=_lasting) if server.files is dnsproxy else server for server in SERVERS
}


@dataclass(frozen=True)
class Ratio:
    """CPU time per query of one server over that of another, by the samples of one round each."""

    median: float
    mean: float
    error: float
    """The standard error of the mean."""


def chosen(text: str) -> Server:
    """Return the server of ``name``, or of ``label=folder`` the build of dnsproxy that is in a folder.

    Raises:
        ValueError: there is no such server or folder.
    """
    label, _, folder = text.partition("=")
    if not folder:
        if label not in _KINDS:
            raise ValueError(f"{label}: not one of {', '.join(_KINDS)}")
        return _KINDS[label]
    # It names a folder that is made anew.
    if label in _TAKEN or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", label):
        raise ValueError(f"{label}: not a label, which has letters and digits only")
    if not Path(folder, "dnsproxy").is_dir():
        raise ValueError(f"{folder}: there is no package dnsproxy in it")
    kind = _KINDS["dnsproxy"]

    def command(site: Site) -> list[str]:
        return ["env", f"PYTHONPATH={Path(folder).resolve()}", *kind.command(site)]

    return replace(kind, name=label, command=command)


def compare(samples: Sequence[Sample], server: str, other: str) -> Ratio:
    """Return ``server``'s CPU time per query over ``other``'s, of one workload, in at least two rounds."""
    workload = samples[0].workload
    pairs = zip(select(samples, server, workload), select(samples, other, workload), strict=True)
    ratios = [mine.cpu_us / its.cpu_us for mine, its in pairs]
    return Ratio(median(ratios), mean(ratios), stdev(ratios) / sqrt(len(ratios)))


def report(samples: Sequence[Sample], servers: Sequence[str]) -> str:
    """Return the samples of one workload as text: each server, and each beside those named before it."""
    lines = []
    for index, server in enumerate(servers):
        own = select(samples, server, samples[0].workload)
        lost = sum(sample.lost for sample in own)
        lines.append(f"{server:12} {mean(one.cpu_us for one in own):6.2f} µs/query, lost {lost}")
        for other in servers[:index]:
            found = compare(samples, server, other)
            lines.append(f"    / {other:12} {found.median:.3f} (mean {found.mean:.3f} ± {found.error:.3f})")
    return "\n".join(lines) + "\n"


def measure(bench: Bench, servers: Sequence[Server], workload: str, count: int) -> list[Sample]:
    """Return ``count`` samples of each server, in turn.

    Raises:
        WrongAnswerError: a server does not answer as it should.
        ValueError: dnsperf failed, or a server answered nothing.
    """
    samples = []
    with ExitStack() as stack:
        port = rounds.free_port()
        upstream = stack.enter_context(backend.start(bench.directory / "backend", port, LOAD_CORE))
        targets = {}
        for server in servers:
            child, site = rounds.start(bench, server, port)
            stack.enter_context(child)
            targets[server.name] = rounds.warmed(bench, Target(server.name, 0, site.port, child, upstream))
        for number in range(count):
            for server in rounds.order(servers, number):
                target = replace(targets[server.name], round=number)
                orders = workloads.WORKLOADS[workload](bench, target.port, 0.0)
                sample = workloads.measure(bench, target, workload, orders)
                if not sample.completed or not sample.cpu_us:
                    raise ValueError(f"{server.name}: answered nothing in round {number + 1}")
                samples.append(sample)
    return samples


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when something failed, 2 when the arguments are wrong or something is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.interleaved",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument(
        "servers", nargs="*", help="names, or LABEL=FOLDER for a build; default: unbound dnsproxy"
    )
    parser.add_argument("--rounds", type=int, default=40, help="at least 2; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.3, help="of load; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        servers = [chosen(text) for text in options.servers or ("unbound", "dnsproxy")]
    except ValueError as exc:
        parser.error(str(exc))
    if options.rounds < 2 or len({server.name for server in servers}) < len(servers):
        parser.error("at least 2 rounds, and another name for each server")
    missing = machine.lacking(*(server.program for server in servers))
    if missing:
        sys.stderr.write(f"missing: {missing}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="dnsproxy-interleaved-") as folder:
        bench = Bench(Path(folder), options.seconds, MIX_RATE)
        try:
            samples = measure(bench, servers, options.workload, options.rounds)
        except (check.WrongAnswerError, ValueError, OSError) as exc:
            sys.stderr.write(f"{exc}\n")
            return 1
    sys.stdout.write(report(samples, [server.name for server in servers]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
