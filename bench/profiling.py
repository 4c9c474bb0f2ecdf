"""Show where dnsproxy's time goes under a workload: `python -m bench.profiling`.

Writes `profile.txt` (functions and lines by their own time) and `profile.svg` (a flame graph).
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench import backend, check, rounds, workloads
from bench.servers import SERVERS
from bench.workloads import LOAD_CORE, MIX_RATE, Bench, Target

SHOWN = 30
_RATE = 500  # samples per second
_MARGIN_SECONDS = 5  # py-spy needs some before it samples
_WORKLOADS = ("owned", "hits", "misses", "mix")


def self_times(stacks: str) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Count samples of collapsed stacks: own by function, own by line, and all by function."""
    functions: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for stack in stacks.splitlines():
        frames, _, count = stack.rpartition(" ")
        if not frames:
            continue
        path = frames.split(";")
        lines[path[-1]] += int(count)
        functions[_function(path[-1])] += int(count)
        for name in {_function(frame) for frame in path}:
            inclusive[name] += int(count)
    return functions, lines, inclusive


def _function(frame: str) -> str:
    """Return ``name (file)`` of ``name (file:line)``."""
    head, separator, line = frame.rpartition(":")
    return f"{head})" if separator and line.rstrip(")").isdecimal() else frame


def table(stacks: str) -> str:
    """Return the collapsed stacks as two tables of text."""
    functions, lines, inclusive = self_times(stacks)
    total = sum(functions.values())
    parts = [f"{total} samples", "", "  own   with callees  function"]
    parts += [
        f"{count / total:6.1%} {inclusive[name] / total:8.1%}       {name}"
        for name, count in functions.most_common(SHOWN)
    ]
    parts += ["", "  own   line"]
    parts += [f"{count / total:6.1%} {line}" for line, count in lines.most_common(SHOWN)]
    return "\n".join(parts) + "\n"


def record(pid: int, form: str, path: Path, seconds: int) -> None:
    """Let py-spy sample a process and its children.

    Raises:
        subprocess.SubprocessError: when it fails or does not end in time.
    """
    command = [
        py_spy() or "py-spy", "record", "--pid", str(pid), "--duration", str(seconds),
        "--rate", str(_RATE), "--format", form, "--output", str(path), "--subprocesses", "--nonblocking",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=seconds + 60, stdout=subprocess.DEVNULL)  # noqa: S603 - ours


def py_spy() -> str | None:
    """Return the py-spy of this interpreter's environment, or of PATH."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def main() -> int:
    """Profile one workload; 2 when py-spy is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.profiling", description=__doc__)
    parser.add_argument("--workload", choices=_WORKLOADS, default="hits")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    if not py_spy():
        sys.stderr.write("py-spy is not installed (pip install the extra `bench`)\n")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="dnsproxy-profile-") as folder:
        stacks = profile(Path(folder), options.workload, options.seconds, options.out)
    page = f"dnsproxy under {options.workload}, {options.seconds} s\n{table(stacks)}"
    (options.out / "profile.txt").write_text(page)
    sys.stdout.write(page)
    return 0


def profile(folder: Path, workload: str, seconds: int, out: Path) -> str:
    """Run the load twice: for the stacks, which are returned, and for the flame graph."""
    bench = Bench(folder, seconds + _MARGIN_SECONDS, MIX_RATE)
    stacks = folder / "stacks.txt"
    port = rounds.free_port()
    with backend.start(folder / "backend", port, LOAD_CORE) as upstream:
        child, site = rounds.start(bench, SERVERS[0], port)
        with child:
            check.wait_for_answer(site.port, check.START_SECONDS)
            workloads.warm(bench, Target(SERVERS[0].name, 0, site.port, child, upstream))
            for form, path in (("raw", stacks), ("flamegraph", out / "profile.svg")):
                orders = workloads.WORKLOADS[workload](bench, site.port, 0.0)
                with workloads.started(bench, orders):
                    record(child.pid, form, path, seconds)
    return stacks.read_text()


if __name__ == "__main__":
    sys.exit(main())
