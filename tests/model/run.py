"""`make histories`: many random sequences; those that fail are made short and written to seeds/."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import sys
import time
from collections.abc import Iterable

from tests.model import process_stories
from tests.model.process_run import run_in_namespace
from tests.model.process_stories import from_json
from tests.model.replays import FOLDER, save
from tests.model.sequences import Story, make_story
from tests.model.shrink import failure, shrink
from tests.model.subject import SUBJECT
from tests.model.world import MakeSubject
from tests.netns.spaces import SpaceError

CHUNK = 100


def failing(seeds: Iterable[str], make: MakeSubject) -> list[str]:
    """Those seeds whose sequence fails."""
    return [seed for seed in seeds if failure(make_story(seed), make)]


def seeds(prefix: str, start: int, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(start, start + count)]


def report(story: Story, make: MakeSubject) -> tuple[Story, str]:
    """The short form of a sequence that fails, and what differs in it."""
    short = shrink(story, make)
    return short, f"{failure(short, make)}"


def _chunk(arguments: tuple[str, int, int]) -> list[str]:
    return failing(seeds(*arguments), SUBJECT)


def run_processes(sequences: int, seed: str, keep: int) -> int:
    """Run sequences on real processes; those that fail are made short and written to seeds/."""
    arguments = ["--sequences", str(sequences), "--seed", seed, "--shorten", str(keep)]
    try:
        outcome = run_in_namespace(arguments)
    except SpaceError as error:
        sys.stderr.write(f"NOT TESTED WITH REAL PROCESSES: {error}; run as root with CAP_SYS_ADMIN\n")
        return 1
    for found in outcome.failures[:keep]:
        story = from_json(found)
        path = FOLDER / f"process-found-{hashlib.sha256(str(story).encode()).hexdigest()[:8]}.json"
        process_stories.save(story, found["note"], path)
        sys.stdout.write(f"{found['seed']}: {found['note']}\n  {path}\n")
    kills = ", ".join(f"{count} {step}" for step, count in sorted(outcome.kills.items()))
    figures = f"{len(outcome.failures)} failures, {outcome.seconds:.0f} s; kills: {kills}"
    sys.stdout.write(f"{outcome.sequences} sequences on real processes, {figures}\n")
    return 1 if outcome.failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model.run")
    parser.add_argument("--sequences", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", default="histories", help="another one makes other sequences")
    parser.add_argument("--keep", type=int, default=5, help="failures to make short and write")
    parser.add_argument(
        "--processes", type=int, default=0, help="sequences on real processes, in place of others"
    )
    options = parser.parse_args()
    if options.processes:
        return run_processes(options.processes, options.seed, options.keep)
    began = time.monotonic()
    chunks = [
        (options.seed, start, min(CHUNK, options.sequences - start))
        for start in range(0, options.sequences, CHUNK)
    ]
    failures: list[str] = []
    with multiprocessing.Pool(options.jobs) as pool:
        for number, found in enumerate(pool.imap(_chunk, chunks), 1):
            failures += found
            if number % 50 == 0:
                sys.stderr.write(f"{number * CHUNK} sequences, {len(failures)} failures\n")
    for seed in failures[: options.keep]:
        story, note = report(make_story(seed), SUBJECT)
        path = FOLDER / f"found-{hashlib.sha256(str(story).encode()).hexdigest()[:8]}.json"
        save(story, note, path)
        sys.stdout.write(f"{note}\n  {path}\n")
    seconds = time.monotonic() - began
    sys.stdout.write(f"{options.sequences} sequences, {len(failures)} failures, {seconds:.0f} s\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
