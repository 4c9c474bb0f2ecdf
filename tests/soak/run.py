"""`make soak`: mixed load on real processes for an hour, with troubles at random, and a report of it.

Everything stays on 127.0.0.1. Exit code 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from tests.e2e.processes import ROOT
from tests.soak import report
from tests.soak.load import Clients
from tests.soak.plan import Trouble, make_plan
from tests.soak.report import Run, Sample
from tests.soak.troubles import SoakWorld
from tests.soak.watch import look, read_metrics

EVERY = 5.0
CACHE_SIZE = 5_000


async def soak(
    world: SoakWorld, plan: Sequence[Trouble], seconds: float, rate: int, seed: int
) -> list[Sample]:
    """Run the load and the plan, and return what was seen every `EVERY` seconds."""
    clients = Clients(world.world.dns_port, rate, seed, world.allowed)
    samples: list[Sample] = []
    start = monotonic()
    asking = asyncio.create_task(clients.run())
    troubling = asyncio.create_task(_carry_out(world, plan, start))
    while (now := monotonic() - start) < seconds:
        await asyncio.sleep(min(EVERY, seconds - now))
        page = await asyncio.to_thread(world.world.admin, "/metrics")
        holding = look(world.pid, read_metrics(page.body.decode()))
        samples.append(Sample(monotonic() - start, holding, clients.take()))
        for task in (asking, troubling):
            if task.done() and task.exception() is not None:
                await task
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    await troubling
    return samples


async def _carry_out(world: SoakWorld, plan: Sequence[Trouble], start: float) -> None:
    for trouble in plan:
        await asyncio.sleep(max(0.0, start + trouble.begin - monotonic()))
        await world.begin(trouble)
        await asyncio.sleep(max(0.0, start + trouble.end - monotonic()))
        await world.end()


def run(folder: Path, seconds: float, rate: int, seed: int, pace: float = 1.0) -> Run:
    """Make a world in ``folder``, soak it, and return what was seen."""
    plan = make_plan(seed, seconds, pace=pace)
    with SoakWorld(folder, seed, CACHE_SIZE) as world:
        samples = asyncio.run(soak(world, plan, seconds, rate, seed))
        alive = world.world.proxy.alive
        errors = [line for line in world.world.proxy.text().splitlines() if '"level": "error"' in line]
        code = world.world.proxy.stop()
    return Run(seed, seconds, rate, plan, samples, errors, clean_end=alive and code == 0)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--rate", type=int, default=200, help="queries per second; default: %(default)s")
    parser.add_argument("--seed", type=int, default=20_261_124, help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs", help="folder of soak.md and images/soak.png"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        made = run(Path(folder), options.minutes * 60, options.rate, options.seed)
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    report.draw(made, options.out / "images" / "soak.png")
    page = report.to_markdown(made, f"{datetime.now(UTC):%Y-%m-%d}, CPython {platform.python_version()}")
    (options.out / "soak.md").write_text(page)
    sys.stdout.write(page)
    return 1 if made.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
