"""Runs process sequences, several at one time, in a network namespace that is made for them.

``python -m tests.model.process_run`` runs inside it, and prints one JSON line per failure and one of figures.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.processes import ROOT, environment
from tests.model import processes
from tests.model.process_stories import from_json, make_process_story, to_json
from tests.model.processes import Place, ProcessStory, process_failure
from tests.model.shrink import _fewer
from tests.netns.spaces import Spaces

# Proxies at one time. They mostly wait.
JOBS = 8
_place: list[Place] = []


@dataclass
class Outcome:
    """What a run showed. ``failures`` are sequences as JSON, each with its note and seed."""

    sequences: int
    seconds: float
    failures: list[dict[str, Any]]
    kills: dict[str, int]


def run_in_namespace(arguments: Sequence[str], jobs: int = JOBS) -> Outcome:
    """Run this module in a namespace of its own. Raises `SpaceError` where none can be made."""
    with Spaces() as spaces:
        space = spaces.add("model")
        words = [sys.executable, "-m", "tests.model.process_run", "--jobs", str(jobs), *arguments]
        done = subprocess.run(
            space.within(*words), stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment()
        )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    figures = lines.pop()
    return Outcome(figures["sequences"], figures["seconds"], lines, figures["kills"])


def _occupy(numbers: Any, folder: Path) -> None:
    # A proxy that is killed leaves its requests open.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    number = numbers.get()
    own = folder / str(number)
    own.mkdir()
    _place.append(Place(number, own))


def _run(job: tuple[str, dict[str, Any] | None]) -> tuple[str, dict[str, Any] | None, Counter[str]]:
    """Run the sequence of a seed, or the one given; return its seed, itself if it fails, and its kills."""
    seed, data = job
    (place,) = _place
    story = make_process_story(seed) if data is None else from_json(data)
    note = process_failure(story, place)
    struck, place.struck = place.struck, Counter()
    return seed, None if note is None else to_json(story, note), struck


def shorten(story: ProcessStory, place: Place) -> ProcessStory:
    """Remove events while the sequence fails."""
    story.events = _fewer(
        story.events,
        lambda events: (
            process_failure(ProcessStory(story.configuration, events, story.workers, story.kinds), place)
            is not None
        ),
    )
    return story


def _shorten(job: dict[str, Any]) -> dict[str, Any]:
    story = shorten(from_json(job), _place[0])
    note = process_failure(story, _place[0])
    return job if note is None else to_json(story, note)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model.process_run")
    parser.add_argument("--sequences", type=int, default=50)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--seed", default="processes")
    parser.add_argument("--shorten", type=int, default=0, help="failures to make short")
    parser.add_argument(
        "--replay", nargs="*", default=[], type=Path, help="files of sequences, in place of seeds"
    )
    parser.add_argument("--patience", type=float, default=processes.PATIENCE)
    options = parser.parse_args()
    processes.PATIENCE = options.patience
    jobs: list[tuple[str, dict[str, Any] | None]] = [
        (path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in options.replay
    ] or [(f"{options.seed}-{options.start + number}", None) for number in range(options.sequences)]
    began = time.monotonic()
    failures = []
    kills: Counter[str] = Counter()
    context = multiprocessing.get_context("fork")
    numbers = context.Queue()
    for number in range(options.jobs):
        numbers.put(number)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dnsproxy-model-"))
        with context.Pool(options.jobs, _occupy, (numbers, Path(folder))) as pool:
            for number, (seed, failed, struck) in enumerate(pool.imap_unordered(_run, jobs), 1):
                kills += struck
                if failed is not None:
                    failures.append({"seed": seed, **failed})
                    sys.stderr.write(f"{seed}: {failed['note'][:2000]}\n")
                if number % 50 == 0:
                    sys.stderr.write(f"{number} sequences, {len(failures)} failures\n")
            short = pool.map(_shorten, failures[: options.shorten], chunksize=1)
            failures[: options.shorten] = [
                {"seed": old["seed"], **new} for old, new in zip(failures, short, strict=False)
            ]
    for failure in failures:
        sys.stdout.write(json.dumps(failure) + "\n")
    sys.stdout.write(
        json.dumps({"sequences": len(jobs), "seconds": time.monotonic() - began, "kills": kills}) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
