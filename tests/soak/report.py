"""What a soak showed: promises kept or broken, a page and a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

from tests.soak.load import Window
from tests.soak.plan import UPSTREAMS_OUT, Kind, Trouble
from tests.soak.watch import Holding

# After the end of a trouble, until what it left behind counts as the proxy's fault. An upstream that was
# down is found to be up by its probe, and a client waits for up to 5 s before it is counted.
_AFTERMATH = 10.0
_MEGA = 1 << 20


_SETTING = (
    "One source-region resolver, helper and proxy, two upstreams (unbound), each behind a relay; all on",
    "loopback. Of a hundred queries 40 are for owned names, 40 for 300 names with a TTL of 60 s, 12 for",
    "names that were never asked before, 8 over TCP, each on a connection of its own. Every answer is",
    "checked.",
)


@dataclass(frozen=True)
class Sample:
    """``at`` is seconds after the start, ``window`` what clients saw since the sample before."""

    at: float
    holding: Holding
    window: Window


@dataclass(frozen=True)
class Promise:
    """What was promised, what was seen, and whether it is kept."""

    text: str
    seen: str
    kept: bool


@dataclass(frozen=True)
class Run:
    """One soak. ``errors`` are the proxy's log lines of that level."""

    seed: int
    seconds: float
    rate: int
    plan: Sequence[Trouble]
    samples: Sequence[Sample]
    errors: Sequence[str]
    clean_end: bool

    @property
    def asked(self) -> Counter[str]:
        """How many queries were sent, by kind."""
        return sum((one.window.asked for one in self.samples), Counter())

    @property
    def failed(self) -> Counter[str]:
        """How many got no right answer, by kind and by what came instead."""
        return sum((one.window.failed for one in self.samples), Counter())

    def broken(self) -> list[Promise]:
        """Return the promises that were not kept."""
        return [promise for promise in self.promises() if not promise.kept]

    def promises(self) -> list[Promise]:
        """Judge the run."""
        owned = {key: count for key, count in self.failed.items() if key.startswith("owned")}
        asked = sum(count for kind, count in self.asked.items() if kind.startswith("owned"))
        unsound = self._failures_while_an_upstream_was_sound()
        forwarded = sum(count for kind, count in self.asked.items() if not kind.startswith("owned"))
        return [
            Promise(
                "every query for an owned name gets a right answer, whatever else happens",
                f"{asked:,} asked, {_list(owned)} failed", not owned,
            ),
            Promise(
                "while an upstream is sound, at most 1 forwarded query in 1,000 fails",
                f"{forwarded:,} asked, {_list(unsound)} failed", unsound.total() <= forwarded / 1000,
            ),
            self._flat("memory, MiB", lambda holding: holding.memory / _MEGA, 1.05, 2.0),
            self._flat("descriptors", lambda holding: holding.descriptors, 1.0, 8.0),
            self._flat("tasks", lambda holding: holding.tasks, 1.0, 4.0),
            self._flat("threads", lambda holding: holding.threads, 1.0, 2.0),
            Promise("the proxy ends by itself when asked", "exit code 0" if self.clean_end else "it did not",
                    self.clean_end),
        ]  # fmt: skip

    def _flat(self, what: str, value: Callable[[Holding], float], factor: float, slack: float) -> Promise:
        """Compare the last tenth of the run with the first one that has seen a full cache."""
        count = max(len(self.samples) // 10, 1)
        settled = self.samples[len(self.samples) // 5 :]
        before = median(value(one.holding) for one in settled[:count])
        after = median(value(one.holding) for one in settled[-count:])
        kept = after <= before * factor + slack
        text = f"{what} at the end: at most {factor:g} times what a fifth of the time saw, and {slack:g} more"
        return Promise(text, f"{before:.1f}, then {after:.1f}", kept)

    def _failures_while_an_upstream_was_sound(self) -> Counter[str]:
        out = [each for each in self.plan if each.kind in UPSTREAMS_OUT]
        failed: Counter[str] = Counter()
        for one in self.samples:
            if not any(each.begin - 5 <= one.at <= each.end + _AFTERMATH for each in out):
                failed += one.window.failed
        return Counter({key: count for key, count in failed.items() if not key.startswith("owned")})

    def latencies(self, kind: str, samples: Sequence[Sample]) -> list[float]:
        """Return the latencies of ``kind`` in ``samples``, in milliseconds, sorted."""
        seconds = chain.from_iterable(one.window.latencies.get(kind, ()) for one in samples)
        return sorted(1e3 * each for each in seconds)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value at ``share`` of sorted ``values``; 0 without any."""
    return values[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {key}" for key, count in sorted(counts.items())) or "0"


def to_markdown(run: Run, about: str) -> str:
    """Return the report."""
    lines = [
        "# Soak",
        "",
        f"`make soak` on {about}: {run.seconds / 60:g} minutes, {run.rate} queries per second,",
        f"seed {run.seed}.",
        *_SETTING,
        "",
        "| promise | seen | |",
        "|---|---|---|",
        *(f"| {one.text} | {one.seen} | {'kept' if one.kept else '**broken**'} |" for one in run.promises()),
        "",
        "![Memory, descriptors, tasks and latency over time](images/soak.png)",
        "",
        "| latency in ms | p50 | p99 | longest |",
        "|---|---|---|---|",
    ]
    third = len(run.samples) // 3
    for kind in ("owned", "cached", "miss"):
        for label, part in (("first third", run.samples[:third]), ("last third", run.samples[-third:])):
            seen = run.latencies(kind, part)
            figures = " | ".join(f"{quantile(seen, share):.1f}" for share in (0.5, 0.99, 1.0))
            lines.append(f"| {kind}, {label} | {figures} |")
    lines += ["", "| trouble | times |", "|---|---|"]
    for kind in Kind:
        times = sum(each.kind is kind for each in run.plan)
        lines.append(f"| {kind} | {times} |")
    lines += [
        "",
        f"Failed in all, those with no sound upstream included: {_list(run.failed)}.",
        f"Lines of level error in the proxy's log: {len(run.errors)}.",
        "",
    ]
    return "\n".join(lines)


def draw(run: Run, path: Path) -> None:
    """Write the picture: what the proxy holds and how long clients wait, with the troubles as bands."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only a report needs it

    figure = Figure(figsize=(11, 9), layout="constrained", dpi=90)
    axes = figure.subplots(4, 1, sharex=True)
    minutes = [one.at / 60 for one in run.samples]
    rows: list[tuple[str, Callable[[Holding], float]]] = [
        ("resident MiB", lambda holding: holding.memory / _MEGA),
        ("descriptors", lambda holding: holding.descriptors),
        ("tasks", lambda holding: holding.tasks),
    ]
    for axis, (label, value) in zip(axes, rows, strict=False):
        axis.plot(minutes, [value(one.holding) for one in run.samples], color="#4477aa", linewidth=1)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0, top=1.1 * max(value(one.holding) for one in run.samples))
    for kind, colour in (("owned", "#228833"), ("cached", "#4477aa"), ("miss", "#ee6677")):
        values = [quantile(run.latencies(kind, [one]), 0.99) for one in run.samples]
        axes[3].plot(
            minutes, [value or float("nan") for value in values], color=colour, linewidth=1, label=kind
        )
    axes[3].set_yscale("log")
    axes[3].set_ylabel("p99 in ms")
    axes[3].legend(loc="upper left", ncols=3, fontsize="small")
    axes[3].set_xlabel("minutes")
    for axis in axes:
        for trouble in run.plan:
            out = trouble.kind in UPSTREAMS_OUT
            axis.axvspan(
                trouble.begin / 60, trouble.end / 60, color="#cc3311" if out else "#bbbbbb", alpha=0.3, lw=0
            )
    axes[0].set_title("grey: a trouble; red: no upstream answers", fontsize="small", loc="right")
    figure.savefig(path)
