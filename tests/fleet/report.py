"""The page and the picture of a run: what was measured, and what the model says of it and of more proxies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from textwrap import wrap

from dnsproxy.core.convergence import BOUNDS
from dnsproxy.core.standings import quantile
from tests.fleet.crowd import Crowd
from tests.fleet.model import Model, Outcome, Params, Transport
from tests.fleet.world import INTERVAL, REFRESH, Run, quantiles

SIZES = (10, 100, 1_000, 10_000)
# Loopback, and a path between two regions.
LOOPBACK, REGIONS = 0.0001, 0.015
ANSWERED = "at most 1,000 wait, others are answered at once"
REFUSED = "at most 1,000 wait, others get 503 (no longer so)"
_LABELS = {
    "http": "blocking query",
    "pull": "plain pull",
    "file": "file",
    "etcd": "etcd, watched",
}
_COLOURS = {"http": "#4477aa", "pull": "#ccbb44", "file": "#228833", "etcd": "#ee6677"}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the runs say of the model's parameters; seconds."""

    take: float
    serve: float
    cores: int

    def measured_like(self, run: Run, seed: int) -> Params:
        """Return the parameters that stand for ``run``, all of whose engines shared one machine."""
        return Params(
            run.engines,
            Transport.BLOCKING if run.source == "http" else Transport.PULL,
            serve=self.serve,
            take=self.take,
            shared_cores=self.cores,
            delay=LOOPBACK,
            changes=len(run.changes),
            seed=seed,
        )


def from_helper(run: Run) -> list[float]:
    """Return all times from the helper's look to an answer."""
    return list(chain.from_iterable(change.from_helper for change in run.changes))


def from_source(run: Run) -> list[float]:
    """Return all times from the change at the source to an answer."""
    return list(chain.from_iterable(change.from_source for change in run.changes))


def calibrate(small: Run, crowd: Crowd, seed: int) -> Calibration:
    """Fit ``take`` to the mean of the small run; ``serve`` is what the crowd's answers took."""
    cores = os.cpu_count() or 1
    found = Calibration(0.0, crowd.answered[-1] / len(crowd.answered), cores)
    wanted = fmean(from_helper(small))
    lower, upper = 0.0, 0.1
    for _ in range(20):
        middle = (lower + upper) / 2
        mean = fmean(Model(replace(found, take=middle).measured_like(small, seed)).run().delays)
        lower, upper = (middle, upper) if mean < wanted else (lower, middle)
    return replace(found, take=(lower + upper) / 2)


def scenarios(found: Calibration, seed: int) -> list[tuple[str, Params]]:
    """Return what is simulated at each of `SIZES`, with proxies on hosts of their own."""
    base = Params(1, Transport.BLOCKING, serve=found.serve, take=found.take, delay=REGIONS, seed=seed)
    return [
        ("plain pull", replace(base, transport=Transport.PULL)),
        ("blocking query", base),
        ("the same, 1 % of requests lost", replace(base, loss=0.01)),
        ("the same, helper away for 30 s before", replace(base, outage=30.0)),
        (ANSWERED, replace(base, max_waiters=1_000)),
        (REFUSED, replace(base, max_waiters=1_000, refuses=True)),
        ("etcd, three members, watched", replace(base, transport=Transport.WATCH)),
        ("the same, 1 % of events lost", replace(base, transport=Transport.WATCH, loss=0.01)),
    ]


def write(
    runs: Sequence[Run],
    crowds: Sequence[Crowd],
    about: str,
    seed: int,
    picture: Path,
    sizes: Sequence[int] = SIZES,
) -> str:
    """Draw ``picture`` and return the page.

    The model is fitted to the first of ``runs`` and the last of ``crowds``, the smallest and the largest.
    """
    small, large = runs[0], next(run for run in runs[1:] if run.source == "http")
    found = calibrate(small, crowds[-1], seed)
    modelled = {id(run): Model(found.measured_like(run, seed)).run() for run in (small, large)}
    simulated = {
        (label, size): Model(replace(params, proxies=size)).run()
        for label, params in scenarios(found, seed)
        for size in sizes
    }
    draw(runs[1:], modelled[id(large)], simulated, sizes, picture)
    return "\n".join(
        [
            *_head(runs, about, seed),
            *_measured(runs),
            *_histogram(large),
            "",
            "![Share of the engines that answer, over time; the model at each size](images/convergence.png)",
            "",
            *_crowded(crowds),
            *_model(found, [(small, modelled[id(small)]), (large, modelled[id(large)])]),
            *_simulated(simulated, [label for label, _ in scenarios(found, seed)], sizes),
            *_conclusions(simulated, sizes),
        ]
    )


def _head(runs: Sequence[Run], about: str, seed: int) -> list[str]:
    large = max(runs, key=lambda run: run.engines)
    kinds = ",".join(run.source for run in runs[1:])
    return [
        "# Convergence",
        "",
        "<!-- Made by `make fleet`; do not edit. -->",
        "",
        "How long a changed address takes from the source to the answers of every proxy.",
        "",
        "```sh",
        f'make fleet ARGS="--proxies {large.engines} --changes {len(large.changes)} --source {kinds}"',
        "```",
        "",
        *_filled(
            f"on {about}; seed {seed}. unbound is the resolver of the source region, one helper asks it "
            f"every {INTERVAL:g} s. {large.engines} proxy engines (puller, address service, engine, state "
            f"folder and a connection to the source of their own) run in {large.processes} processes of the "
            f"same machine, all on loopback, with `learn.refresh: {REFRESH:g}s`. Addresses change at random "
            "times; each engine is asked whenever it has taken something, until it answers with the new one. "
            "All clocks are one clock. Probes of new addresses are off. Other work ran on the machine "
            "besides."
        ),
        "",
        "## Measured",
        "",
    ]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figures(values: Sequence[float]) -> list[str]:
    return [_seconds(value) for value in quantiles(values)]


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _measured(runs: Sequence[Run]) -> list[str]:
    lines = [
        "Seconds from the helper's look to the first answer with the new address, over all engines:",
        "",
        _row(["source", "engines", "changes", "p50", "p90", "p99", "max", "requests per second"]),
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        # What is followed is not asked for; the puller pulls for itself once in a refresh all the same.
        rate = f"{run.requests / run.seconds:.0f}" if run.source in {"http", "pull"} else "-"
        cells = [_LABELS[run.source], str(run.engines), str(len(run.changes))]
        lines.append(_row([*cells, *_figures(from_helper(run)), rate]))
    lines += [
        "",
        *_filled(
            f"From the change at the source, which adds the wait for the helper's next look (0 to "
            f"{INTERVAL:g} s here, 0 to `helper.interval` or the TTL at the source elsewhere):"
        ),
        "",
        _row(["source", "engines", "p50", "p90", "p99", "max"]),
        "|---|---|---|---|---|---|",
    ]
    lines += [_row([_LABELS[run.source], str(run.engines), *_figures(from_source(run))]) for run in runs]
    failures = sorted({failure for run in runs for failure in run.failures})
    lines += ["", f"Sources that failed at the end of a run: {', '.join(failures) or 'none'}.", ""]
    return lines


def _histogram(run: Run) -> list[str]:
    counts, total = [], 0
    for count in run.convergence:
        total += count
        counts.append(float(total))
    buckets = list(zip((*BOUNDS, float("inf")), counts, strict=True))
    p50, p99 = (quantile(buckets, share) or 0.0 for share in (0.5, 0.99))
    return _filled(
        f"The proxies' own histograms (`dnsproxy_convergence_seconds`) hold {total} changes of the "
        f"{run.engines} engines with blocking queries, where {run.engines * len(run.changes)} were made; "
        f"they give p50 {_seconds(p50)} s and p99 {_seconds(p99)} s. The helper used "
        f"{run.helper_cpu / run.seconds:.1%} of a processor and {run.helper_rss / 2**20:.0f} MiB."
    )


def _crowded(crowds: Sequence[Crowd]) -> list[str]:
    lines = [
        *_filled(
            "The helper alone, with so many blocking queries at one time: seconds from the first to the last "
            "answer after a change, how many were answered at once because others waited already, and what "
            "each that waits takes of its memory:"
        ),
        "",
        _row(["queries", "answered at once", "p50", "p99", "last", "kB each"]),
        "|---|---|---|---|---|---|",
    ]
    for crowd in crowds:
        p50, _, p99, last = _figures(crowd.answered)
        early = f"{crowd.early:,}"
        lines.append(_row([f"{crowd.count:,}", early, p50, p99, last, f"{crowd.memory / 1000:.0f}"]))
    return [*lines, ""]


def _filled(text: str) -> list[str]:
    return wrap(text, 110, break_long_words=False, break_on_hyphens=False)


def _model(found: Calibration, pairs: Sequence[tuple[Run, Outcome]]) -> list[str]:
    lines = [
        "## The model",
        "",
        "A discrete-event simulation (`tests/fleet/model.py`, seeded). What it assumes stands at its head:",
        "",
        *_assumptions(),
        "",
        *_filled(
            f"Two figures are measured: the helper spends {found.serve * 1000:.2f} ms on an answer (by the "
            f"largest crowd above), and an engine {found.take * 1000:.1f} ms on a snapshot, fitted to the "
            f"mean of the run with {pairs[0][0].engines} engines. The run with {pairs[1][0].engines} was not "
            f"fitted to. Seconds from the helper, all on {found.cores} shared processors:"
        ),
        "",
        _row(["engines", "", "p50", "p90", "p99", "max"]),
        "|---|---|---|---|---|---|",
    ]
    for run, outcome in pairs:
        lines.append(_row([str(run.engines), "measured", *_figures(from_helper(run))]))
        lines.append(_row([str(run.engines), "model", *_figures(outcome.delays)]))
    return [*lines, ""]


def _assumptions() -> list[str]:
    from tests.fleet import model  # noqa: PLC0415 - its text, not its code

    _, _, text = (model.__doc__ or "").partition("Time 0")
    return [line.replace("``", "`") for line in f"Time 0{text}".strip().splitlines()]


def _simulated(
    simulated: dict[tuple[str, int], Outcome], labels: Sequence[str], sizes: Sequence[int]
) -> list[str]:
    lines = [
        "## Simulated",
        "",
        *_filled(
            "Proxies on hosts of their own, 15 ms from the helper. Seconds from its look; requests at the "
            "server per second, in the mean and in the busiest second:"
        ),
        "",
        _row(["transport", "proxies", "p50", "p99", "max", "requests/s", "busiest"]),
        "|---|---|---|---|---|---|---|",
    ]
    for label in labels:
        for size in sizes:
            outcome = simulated[label, size]
            p50, _, p99, most = _figures(outcome.delays)
            cells = [label, f"{size:,}", p50, p99, most, f"{outcome.rate:.0f}", f"{outcome.busiest:,}"]
            lines.append(_row(cells))
    return [*lines, ""]


def _conclusions(simulated: dict[tuple[str, int], Outcome], sizes: Sequence[int]) -> list[str]:
    waiting = [quantiles(simulated["blocking query", size].delays, [0.99])[0] for size in sizes[-2:]]
    at_once, refused = (
        quantiles(simulated[label, sizes[-1]].delays, [0.5])[0] for label in (ANSWERED, REFUSED)
    )
    text = f"""\
With blocking queries the helper's one process is the queue: 99 of 100 proxies have a change within
{_seconds(waiting[0])} s where there are {sizes[-2]:,}, and within {_seconds(waiting[1])} s where there are
{sizes[-1]:,}. That is enough for most fleets.

Beyond the bound of waiting queries (10,000, or what the limit of open files leaves) a helper answers at once,
and the rest of the fleet pulls once in `learn.refresh`: with a bound of 1,000 and {sizes[-1]:,} proxies half
of them are later than {_seconds(at_once)} s. It used to refuse them, which made that {_seconds(refused)} s,
and had each of them count its source as failing.

What decides the slowest is failures, not size: a lost request costs its proxy a back-off of one to four
refreshes. A second helper or a second kind of source takes most of these out; a shorter `learn.refresh`
shortens them.

A watched store spreads the work over its members: each document of the helper goes out once to each proxy.
On one machine, as above, what the engines do with it is most of the time. [fleets.md](fleets.md) says at
which size to choose what.
"""
    lines = ["## What follows", ""]
    for item in text.split("\n\n"):
        lines += wrap(
            item,
            110,
            initial_indent="- ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return [*lines, ""]


def draw(
    runs: Sequence[Run],
    modelled: Outcome,
    simulated: dict[tuple[str, int], Outcome],
    sizes: Sequence[int],
    path: Path,
) -> None:
    """Write the picture: shares of answers over time, and the model's p50 and p99 by size."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only a report needs it

    figure = Figure(figsize=(11, 4.5), layout="constrained", dpi=90)
    left, right = figure.subplots(1, 2)
    for run in runs:
        values = sorted(from_helper(run))
        shares = [(place + 1) / len(values) for place in range(len(values))]
        label = f"{_LABELS[run.source]} ({run.engines})"
        left.plot(values, shares, color=_COLOURS[run.source], label=label)
    values = sorted(modelled.delays)
    shares = [(place + 1) / len(values) for place in range(len(values))]
    left.plot(values, shares, color="#4477aa", linestyle="--", label="blocking query, model")
    left.set_xscale("log")
    left.set_xlabel("seconds since the helper's look")
    left.set_ylabel("share of the engines that answer with it")
    left.legend(fontsize="small", loc="upper left")
    left.grid(alpha=0.3)
    for label, colour in (
        ("plain pull", "#ccbb44"),
        ("blocking query", "#4477aa"),
        (REFUSED, "#bbbbbb"),
        ("etcd, three members, watched", "#ee6677"),
    ):
        for share, line in ((0.5, ":"), (0.99, "-")):
            points = [quantiles(simulated[label, size].delays, [share])[0] for size in sizes]
            shown = label if share > 0.9 else None
            right.plot(sizes, points, color=colour, linestyle=line, marker=".", label=shown)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_ylim(0.01, 1_000)  # the legend is above the lines
    right.set_xlabel("proxies (model); solid: p99, dotted: p50")
    right.set_ylabel("seconds since the helper's look")
    right.legend(fontsize="small", loc="upper left")
    right.grid(alpha=0.3)
    figure.savefig(path)
