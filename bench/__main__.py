"""Measure dnsproxy beside other DNS servers on this machine, and write the results.

A server that is not installed is left out. Everything stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from bench import alone, machine, plot, report, rounds
from bench.alone import Alone
from bench.goals import OWN
from bench.load import OUTSTANDING
from bench.rounds import Outcome
from bench.servers import SERVERS, Server
from bench.workloads import LOAD_CORE, MIX_RATE, SERVER_CORE, WORKLOADS, Bench, complete

ALONE = "alone"


def say(text: str) -> None:
    """Tell what is going on."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _choice(known: list[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := sorted(set(chosen) - set(known)):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return chosen

    return read


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    servers = [server.name for server in SERVERS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=float,
        default=3.0,
        help="of load per workload, server and round; default: %(default)s",
    )
    parser.add_argument(
        "--mix-rate", type=int, default=MIX_RATE, help="queries per second; default: %(default)s"
    )
    known = [*WORKLOADS, ALONE]
    parser.add_argument(
        "--only", type=_choice(known), default=known,
        help=f"comma-separated from {', '.join(known)}; '{ALONE}' is start, memory and cache bound of {OWN}",
    )  # fmt: skip
    parser.add_argument(
        "--servers", type=_choice(servers), default=servers, help=f"comma-separated from {', '.join(servers)}"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of results.*")
    return parser


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Leaves through every `with` block, so that the children are stopped.
    raise SystemExit(143)


def main() -> int:
    """Run what the command line asks for; 1 when something failed, 2 when a program is missing."""
    options = arguments().parse_args()
    missing = machine.missing_programs()
    if missing:
        say(f"not installed: {', '.join(missing)}; run bench/setup.sh")
        return 2
    if len(os.sched_getaffinity(0)) < 2:
        say("two cores are needed: one for the server, one for the load")
        return 2
    signal.signal(signal.SIGTERM, _stop)
    servers = [server for server in SERVERS if server.name in options.servers and _installed(server)]
    facts = machine.facts(servers)
    outcome, by_itself = _measure(options, servers)
    run = report.Run(
        command=f"python -m bench {shlex.join(sys.argv[1:])}".strip(),
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=facts,
        setting={
            "server_core": SERVER_CORE, "load_core": LOAD_CORE, "rounds": options.rounds,
            "seconds": options.seconds, "outstanding": OUTSTANDING, "mix_rate": options.mix_rate,
        },
        outcome=outcome,
        alone=by_itself,
    )  # fmt: skip
    _write(run, options.out)
    return 1 if outcome.failures or (by_itself and by_itself.problems) else 0


def _installed(server: Server) -> bool:
    found = shutil.which(server.program) is not None
    if not found:
        say(f"{server.name}: {server.program} is not on PATH: left out")
    return found


def _measure(options: argparse.Namespace, servers: list[Server]) -> tuple[Outcome, Alone | None]:
    outcome, by_itself = Outcome(), None
    memory = Path("/dev/shm")  # noqa: S108 - a private folder is made below it; files there cost no disk
    with tempfile.TemporaryDirectory(
        prefix="dnsproxy-bench-", dir=memory if memory.is_dir() else None
    ) as folder:
        bench = Bench(Path(folder), options.seconds, options.mix_rate)
        try:
            if chosen := complete(options.only):
                rounds.run(bench, servers, chosen, options.rounds, say, outcome)
            if ALONE in options.only and OWN in options.servers:
                by_itself = alone.run(bench, say)
        except KeyboardInterrupt:
            say("interrupted: the results hold what was measured until now")
            outcome.failures["the run"] = "interrupted"
    return outcome, by_itself


def _write(run: report.Run, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "results.svg"
    drawn = bool(run.outcome.samples) and plot.draw(run.outcome.samples, picture)
    page = report.to_markdown(run, picture.name if drawn else None)
    (folder / "results.md").write_text(page)
    (folder / "results.json").write_text(report.to_json(run))
    sys.stdout.write(page)
    if not drawn:
        say("no picture: nothing was measured, or matplotlib is not installed (the extra `bench`)")


if __name__ == "__main__":
    sys.exit(main())
