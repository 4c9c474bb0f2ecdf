"""Search for the most expensive packet of each parser: ``python -m tests.faults.slowest`` (``make slowest``).

Starts from what is expensive by construction and from the committed findings. Prints the cost of the most
expensive one; the exit code is 1 where that is over the goal. ``--keep`` commits the most expensive ones.
"""

from __future__ import annotations

import argparse
import base64
import sys
import zlib

from tests.faults.slowest import corpus
from tests.faults.slowest.parsers import PARSERS
from tests.faults.slowest.search import COMPILED, goal, search

# Findings that are committed of each parser.
COMMITTED = 2


def main() -> int:
    """Read the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.slowest", description=__doc__)
    parser.add_argument(
        "parsers", nargs="*", metavar="PARSER", help=f"of {', '.join(PARSERS)}; all by default"
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each parser (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (default: 1)")
    parser.add_argument("--keep", action="store_true", help="commit the most expensive")
    asked = parser.parse_args()
    unknown = sorted(set(asked.parsers) - set(PARSERS))
    if unknown:
        parser.error(f"no such parser: {', '.join(unknown)}")
    over = []
    for name in asked.parsers or PARSERS:
        found = search(PARSERS[name], asked.seconds, corpus.read(name), asked.seed)
        most = goal(PARSERS[name])
        worst = found[0]
        line = f"{name:13} {worst.cost / 1e6:8.3f} ms, goal {most / 1e6:.3f} ms, {len(worst.data)} bytes"
        print(line + (" (compiled)" if COMPILED else ""), flush=True)  # noqa: T201 - a command's output
        if worst.cost > most:
            over.append(name)
            print(base64.b64encode(zlib.compress(worst.data, 9)).decode("ascii"))  # noqa: T201 - as above
        if asked.keep:
            corpus.write(name, [entry.data for entry in found[:COMMITTED]])
    if over:
        print(f"over the goal: {', '.join(over)}")  # noqa: T201 - as above
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
