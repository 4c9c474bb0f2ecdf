"""Fuzz with atheris, guided by coverage: ``python -m tests.faults.fuzz [TARGET ...]`` (``make fuzz``).

Starts from the committed inputs. An input that a target does not survive is printed in the form in which
it is committed, and the exit code is 1. ``--keep`` takes those that reach new code into the committed ones.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.fuzz import corpus
from tests.faults.fuzz.targets import TARGETS, silence

# Octets. What is longer finds nothing that this does not, and slowly; a message over TCP has 65,535 at most.
MAX_INPUT = 4096
# Seconds for one input: a hang, or what costs more than its length says.
INPUT_DEADLINE = 5
# MiB. What grows with the inputs ends here.
MEMORY = 1024
# Seconds for a child's start and its end.
MARGIN = 60.0
ROOT = Path(__file__).resolve().parents[3]


def fuzz(target: str, seconds: int, *, keep: bool) -> bool:
    """Run one target for ``seconds``; tell whether it has survived."""
    with tempfile.TemporaryDirectory(prefix="dnsproxy-fuzz-") as name:
        found, spoils = (Path(name, part) for part in ("found", "spoils"))
        found.mkdir()
        spoils.mkdir()
        corpus.unpack(target, found)
        good = _run(
            target,
            [f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}", f"-timeout={INPUT_DEADLINE}"],
            [f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={spoils}/", "-print_final_stats=1", str(found)],
            seconds + MARGIN,
        )
        for spoil in sorted(spoils.iterdir()):
            good = False
            print(f"{target}: {spoil.name}: {base64.b64encode(spoil.read_bytes()).decode('ascii')}")  # noqa: T201 - a command's output
        if good and keep:
            print(f"{target}: {corpus.pack(target, found)} inputs are kept")  # noqa: T201 - a command's output
        return good


def _run(target: str, options: list[str], folders: list[str], deadline: float) -> bool:
    argv = [sys.executable, "-m", "tests.faults.fuzz.child", target, *options, *folders]
    done = subprocess.run(argv, cwd=ROOT, timeout=deadline, check=False)
    return done.returncode == 0


def main() -> int:
    """Read the command line; return the exit code."""
    silence()
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default"
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--keep", action="store_true", help="commit what reaches new code")
    asked = parser.parse_args()
    unknown = sorted(set(asked.targets) - set(TARGETS))
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}")
    bad = [target for target in asked.targets or TARGETS if not fuzz(target, asked.seconds, keep=asked.keep)]
    if bad:
        print(f"did not survive: {', '.join(bad)}")  # noqa: T201 - a command's output
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
