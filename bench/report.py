"""The results for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.alone import Alone
from bench.goals import MIB, OWN, Verdict, judge
from bench.rounds import Outcome
from bench.servers import SERVERS
from bench.stats import Sample, Spread, ratio, select, spread

TITLES = {
    "owned": "(a) Owned names, as fast as possible",
    "hits": "(b) Cache hits over 5,000 names, as fast as possible",
    "misses": "(c) Forwarded misses, every name asked once, as fast as possible",
    "mix": "(d) The mix at a fixed rate",
    "latency20": "(e) Cache hits at 20% of the server's capacity in (b)",
    "latency80": "(e) Cache hits at 80% of the server's capacity in (b)",
}
_QUIET = 0.05  # of a core
_METHOD = """\
Server on core {server_core}; dnsperf and the backend (Knot DNS with a wildcard) on core {load_core}; all on
127.0.0.1. {rounds} rounds of {seconds:g} s per workload; the order of the servers moves on by one each round.
CPU is user and system time of the server's whole process tree, read before and after the run, per completed
query. A ratio is taken within one round; the tables give the median over the rounds and, in brackets, the
least and the greatest. (a) to (c) keep {outstanding} queries unanswered at all times; (d) sends {mix_rate:,}
queries per second to every server: 1% misses, 10% owned names, the rest cached, a quarter of them AAAA, 5%
over TCP, each with an EDNS cookie of its own. Each server passed a check of all this before it was measured.
"Load core" is how busy dnsperf and the backend kept theirs: near 100% they, not the server, set the
queries per second (and the latency), while CPU per query still stands. Against the backend alone, on the
servers' core, dnsperf managed {limit:,.0f} queries per second: that is its own limit here."""


@dataclass(frozen=True)
class Run:
    """Everything about one run."""

    command: str
    date: str
    machine: dict[str, str]
    setting: dict[str, float]
    outcome: Outcome
    alone: Alone | None


def to_json(run: Run) -> str:
    """Return the run, with its verdicts, as JSON."""
    verdicts = [asdict(verdict) | {"met": verdict.met} for verdict in _verdicts(run)]
    return json.dumps(asdict(run) | {"goals": verdicts}, indent=1) + "\n"


def to_markdown(run: Run, plot: str | None) -> str:
    """Return the run as a page; ``plot`` is the file name of the picture."""
    samples = run.outcome.samples
    parts = [
        "# Benchmark results",
        f"`{run.command}`, {run.date}",
        _METHOD.format(**run.setting, limit=run.outcome.generator_limit),
        _table(("", ""), [(key, value) for key, value in run.machine.items()]),
        *_noise(samples),
        "## Goals",
        _table(("Goal", "At most", "Measured", ""), [_goal(verdict) for verdict in _verdicts(run)]),
    ]
    if plot:
        parts.append(f"![CPU time per query]({plot})")
    for workload, title in TITLES.items():
        if rows := _rows(samples, workload):
            parts += [f"## {title}", _table(_HEAD, rows)]
    if run.outcome.peaks:
        rows = [(name, f"{max(peaks) / MIB:.0f}") for name, peaks in run.outcome.peaks.items()]
        parts += ["## Peak memory over all workloads", _table(("Server", "MiB"), rows)]
    parts += _problems(run)
    notes = [(server.name, server.note) for server in SERVERS]
    parts += ["## How each server is set", _table(("Server", ""), notes)]
    return "\n\n".join(parts) + "\n"


def _noise(samples: Sequence[Sample]) -> list[str]:
    """Say how much else ran: above a twentieth of a core the figures are not for keeping."""
    others = spread(sample.others_busy for sample in samples)
    if others is None:
        return []
    text = f"Other processes used {others.median:.0%} of a core (median; at most {others.greatest:.0%})."
    return [text if others.median <= _QUIET else f"**The machine was not quiet.** {text}"]


def _verdicts(run: Run) -> list[Verdict]:
    return judge(run.outcome.samples, run.alone)


def _goal(verdict: Verdict) -> tuple[str, ...]:
    value = "not measured" if verdict.value is None else f"{verdict.value:{verdict.form}}"
    word = {True: "met", False: "**missed**", None: ""}[verdict.met]
    return verdict.text, f"{verdict.limit:{verdict.form}}", value, word


_HEAD = (
    "Server", "CPU µs/query", f"{OWN} / it", "Queries/s", "p50 µs", "p99 µs", "Lost",
    "Server core", "Load core",
)  # fmt: skip


def _rows(samples: Sequence[Sample], workload: str) -> list[tuple[str, ...]]:
    names = dict.fromkeys(sample.server for sample in samples)
    ranked: list[tuple[float, tuple[str, ...]]] = []
    for name in names:
        runs = select(samples, name, workload)
        cpu = spread(run.cpu_us for run in runs)
        if cpu is None:
            continue
        row = (
            name,
            _with_range(cpu),
            "" if name == OWN else _with_range(ratio(samples, workload, OWN, [name])),
            _middle([run.rate for run in runs]),
            _middle([run.p50_us for run in runs if run.p50_us is not None]),
            _middle([run.p99_us for run in runs if run.p99_us is not None]),
            f"{sum(run.lost for run in runs)}",
            _middle([run.server_busy for run in runs], "{:.0%}"),
            _middle([run.load_busy for run in runs], "{:.0%}"),
        )
        ranked.append((cpu.median, row))
    return [row for _cpu, row in sorted(ranked)]


def _with_range(of: Spread | None) -> str:
    return "" if of is None else f"{of.median:.2f} ({of.least:.2f}–{of.greatest:.2f})"  # noqa: RUF001 - a range


def _middle(values: list[float], form: str = "{:,.0f}") -> str:
    of = spread(values)
    return "" if of is None else form.format(of.median)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _problems(run: Run) -> list[str]:
    found = [f"- {name}: {reason.splitlines()[0]}" for name, reason in run.outcome.failures.items()]
    found += (
        [f"- dnsproxy alone, {reason.splitlines()[0]}" for reason in run.alone.problems] if run.alone else []
    )
    return ["## Not measured", "\n".join(found)] if found else []
