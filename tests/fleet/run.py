"""`make fleet`: how long changes take to hundreds of real proxy engines, and what a model makes of thousands.

Everything stays on 127.0.0.1. Writes docs/convergence.md and its picture.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dnsproxy.system import raise_file_limit
from tests.e2e.processes import ROOT
from tests.fleet import crowd, report
from tests.fleet.crowd import Crowd
from tests.fleet.world import SOURCES, Change, FleetWorld, Run

# Blocking queries at the helper alone. The last is more than may wait. Each is a descriptor here and there.
CROWDS = (1_000, 5_000, 12_000)
# Engines of the run that the model is fitted to; the large run then shows what the model is worth.
SMALL = 50


def say(text: str) -> None:
    """Tell what is going on."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def measure(source: str, engines: int, processes: int, changes: int, seed: int) -> Run:
    """Make a world, measure it, and end it."""
    say(f"{source}: starting {engines} engines in {processes} processes")
    with (
        tempfile.TemporaryDirectory(prefix="fleet-") as folder,
        FleetWorld(Path(folder), source, engines, processes) as world,
    ):
        world.start()
        return world.measure(changes, random.Random(seed), say)  # noqa: S311 - to be repeated


def read(path: Path) -> tuple[list[Run], list[Crowd]]:
    """Return what an earlier run has measured."""
    content: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8"))
    runs = content["runs"]
    for run in runs:
        run["changes"] = [
            Change(each["changed_at"], each["seen_at"], tuple(each["answered_at"])) for each in run["changes"]
        ]
    crowds = [Crowd(**one | {"answered": tuple(one["answered"])}) for one in content["crowds"]]
    return [Run(**run) for run in runs], crowds


def write(path: Path, runs: Sequence[Run], crowds: Sequence[Crowd]) -> None:
    """Keep what was measured; `read` returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"runs": [asdict(run) for run in runs], "crowds": [asdict(one) for one in crowds]}
    path.write_text(json.dumps(content))


def keep(path: Path, runs: Sequence[Run], crowds: Sequence[Crowd]) -> tuple[list[Run], list[Crowd]]:
    """Return ``runs`` and ``crowds`` with what ``path`` has besides, in order."""
    earlier, earlier_crowds = read(path)
    by_kind = {(run.engines, SOURCES.index(run.source)): run for run in (*earlier, *runs)}
    by_count = {one.count: one for one in (*earlier_crowds, *crowds)}
    return [by_kind[kind] for kind in sorted(by_kind)], [by_count[count] for count in sorted(by_count)]


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.run", description=__doc__)
    parser.add_argument("--proxies", type=int, default=500, help="engines; default: %(default)s")
    parser.add_argument("--processes", type=int, default=4, help="that hold them; default: %(default)s")
    parser.add_argument("--changes", type=int, default=20, help="for each source; default: %(default)s")
    parser.add_argument(
        "--source",
        default="http,pull",
        help=f"kinds, with commas: {', '.join(SOURCES)}; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=20_261_124, help="default: %(default)s")
    parser.add_argument("--raw", type=Path, default=ROOT / "build" / "fleet.json", help="every time measured")
    parser.add_argument("--keep", action="store_true", help="what --raw has of other sources")
    parser.add_argument("--report-only", action="store_true", help="write the page from --raw again")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of convergence.md")
    options = parser.parse_args()
    sources = options.source.split(",")
    if unknown := sorted(set(sources) - set(SOURCES)):
        parser.error(f"unknown sources: {', '.join(unknown)}; known: {', '.join(SOURCES)}")
    if not options.report_only:
        plan = [(source, options.proxies, options.processes) for source in sources]
        crowds = []
        if "http" in sources:
            plan.insert(0, ("http", SMALL, 1))
            say(f"crowds of {', '.join(map(str, CROWDS))} blocking queries at the helper")
            most = raise_file_limit() - 300
            crowds = [crowd.measure(count) for count in CROWDS if count < most]
        runs = [
            measure(source, engines, processes, options.changes, options.seed)
            for source, engines, processes in plan
        ]
        if options.keep:
            runs, crowds = keep(options.raw, runs, crowds)
        write(options.raw, runs, crowds)
    runs, crowds = read(options.raw)
    machine = f"{os.cpu_count()} processors, Linux, CPython {platform.python_version()}"
    about = f"{datetime.now(UTC):%Y-%m-%d}, {machine}"
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    page = report.write(runs, crowds, about, options.seed, options.out / "images" / "convergence.png")
    (options.out / "convergence.md").write_text(page)
    sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
