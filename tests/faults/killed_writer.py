"""Kill a program that writes a state file without a pause, many times: ``python -m ... FILE ROUNDS``.

Each round a fork of this process writes one numbered state after the other and says through a pipe which
one is done; it is killed at a random moment. Then the file must hold a whole state, and no earlier one than
the last that was said to be done. Prints one JSON object with what was seen.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from dnsproxy.files import remove_leftovers
from dnsproxy.net.statefile import StateFile

# Lines of one state, and what each is long: some pages, so that a write may be cut inside.
LINES, LENGTH = 8, 4000
# Seconds that a writer lives at most: some tens of writes.
LIFE = 0.02


def state(number: int) -> list[str]:
    """Return the lines of a state; each tells its number."""
    return [f"{number:012d}.{line}.".ljust(LENGTH, "x") for line in range(LINES)]


def write(path: Path, number: int, done: int) -> None:
    """Write states from ``number`` on until killed."""
    while True:
        StateFile(path)._replace(state(number))
        os.write(done, number.to_bytes(8, "big"))
        number += 1


def run(path: Path, rounds: int, draw: random.Random) -> dict[str, int]:
    """Return how often what was seen."""
    StateFile(path)._replace(state(0))
    last, torn, lost, inside = 0, 0, 0, 0
    for _ in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            write(path, last + 1, writing)
        os.close(writing)
        # The moment of the kill, counted from the first write that is done: any place of a later one.
        first = os.read(reading, 8)
        time.sleep(draw.uniform(0, LIFE))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told = first
        while octets := os.read(reading, 65_536):
            told = octets[-8:]
        os.close(reading)
        found = path.read_text().splitlines()
        number = int(found[0][:12]) if found else -1
        torn += found != state(number)
        lost += number < int.from_bytes(told, "big")
        last = max(number, last)
        inside += sum(entry.name != path.name for entry in path.parent.iterdir())
        # A minute later, as a start that long after a kill would find them.
        remove_leftovers(path, time.time() + 3600)
    left = sum(entry.name != path.name for entry in path.parent.iterdir())
    return {"rounds": rounds, "writes": last, "torn": torn, "lost": lost, "inside": inside, "left": left}


if __name__ == "__main__":
    # The same moments in each run, as far as the machine lets them.
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), random.Random(1))))  # noqa: S311, T201 - no secret; its result
