"""A picture of the results: CPU time per query, one group of bars per workload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.goals import OWN
from bench.stats import Sample, select, spread

SHOWN = {"owned": "owned names", "hits": "cache hits", "mix": "mix", "misses": "misses"}
_COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#aa3377", "#bbbbbb")


def draw(samples: Sequence[Sample], path: Path) -> bool:
    """Write the picture in the format of ``path``'s suffix; False when matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only people who plot need it
    except ImportError:
        return False
    workloads = [name for name in SHOWN if any(sample.workload == name for sample in samples)]
    servers = sorted({sample.server for sample in samples}, key=lambda name: (name != OWN, name))
    figure = Figure(figsize=(3 * max(len(workloads), 2), 4), layout="constrained")
    axes = figure.subplots(1, max(len(workloads), 1), squeeze=False)[0]
    for axis, workload in zip(axes, workloads, strict=False):
        for place, server in enumerate(servers):
            cpu = spread(sample.cpu_us for sample in select(samples, server, workload))
            if cpu is None:
                continue
            colour = "#ee6677" if server == OWN else _COLOURS[place % len(_COLOURS)]
            reach = [[cpu.median - cpu.least], [cpu.greatest - cpu.median]]
            axis.bar(place, cpu.median, yerr=reach, capsize=3, color=colour)
        axis.set_title(SHOWN[workload])
        axis.set_xticks(range(len(servers)), servers, rotation=60, ha="right")
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("CPU µs per query (median, range)")
    figure.savefig(path)
    return True
