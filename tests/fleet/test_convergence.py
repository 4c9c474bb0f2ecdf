"""The run with real engines, in short; and the page that is made of it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from dnsproxy.core.convergence import BOUNDS
from tests.fleet import report
from tests.fleet.crowd import Crowd, gather
from tests.fleet.model import Model
from tests.fleet.run import keep, read, write
from tests.fleet.world import SOURCES, Change, FleetWorld, Run, quantiles
from tests.needs import need_programs

ENGINES, CHANGES = 50, 2


@pytest.mark.e2e
@pytest.mark.parametrize("source", ["http"])
def test_every_engine_follows_every_change(source: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    need_programs("CONVERGENCE NOT MEASURED", "unbound", "unbound-control")
    told: list[str] = []
    with FleetWorld(tmp_path_factory.mktemp("f"), source, ENGINES, 1, interval=1.0, spread=2.0) as world:
        world.start()
        run = world.measure(CHANGES, random.Random(1), told.append)  # noqa: S311 - to be repeated
    assert len(run.changes) == len(told) == CHANGES
    for change in run.changes:
        assert len(change.answered_at) == ENGINES
        # The helper tells milliseconds.
        assert change.changed_at <= change.seen_at + 0.001
        assert min(change.from_helper) >= -0.001
        assert min(change.from_source) >= 0
    # What each proxy tells in its metrics is the same: every change, once.
    assert sum(run.convergence) == ENGINES * CHANGES
    assert run.failures == []
    assert run.requests >= ENGINES * (CHANGES + 1)


def made_up(source: str, engines: int, slowness: float) -> Run:
    changes = [
        Change(at, at + 1.0, tuple(at + 1.0 + slowness * (place + 1) for place in range(engines)))
        for at in (100.0, 200.0)
    ]
    convergence = [0] * (len(BOUNDS) + 1)
    convergence[5] = 2 * engines
    return Run(source, engines, 1, 60.0, changes, 400, convergence, 1, 0.08, 70 * 2**20)


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    runs = [made_up("http", 10, 0.002), made_up("http", 40, 0.002), made_up("pull", 40, 0.3)]
    crowds = [Crowd(100, 0, tuple(place * 0.0001 for place in range(100)), 9_300.0)]
    page = report.write(runs, crowds, "a day, a machine", 1, tmp_path / "picture.png", sizes=(11, 20))
    assert "| blocking query | 40 | 2 | 0.040 | 0.072 | 0.080 | 0.080 | 7 |" in page
    assert "| plain pull | 40 | 2 | 6.00 | 10.8 | 12.0 | 12.0 | 7 |" in page
    assert "--proxies 40 --changes 2 --source http,pull" in page
    assert "hold 80 changes" in page
    assert "where 80 were made" in page
    for label, _ in report.scenarios(report.Calibration(0.001, 0.001, 1), 1):
        assert [page.count(f"| {label} | {size} |") for size in (11, 20)] == [1, 1]
    assert max(map(len, (line for line in page.splitlines() if not line.startswith(("|", "!"))))) <= 120
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_model_is_fitted_to_the_small_run() -> None:
    small = made_up("http", 10, 0.002)
    found = report.calibrate(small, Crowd(10, 0, tuple(place * 0.0001 for place in range(10)), 9_300.0), 1)
    modelled = Model(found.measured_like(small, 1)).run().delays
    wanted = report.from_helper(small)
    assert sum(modelled) / len(modelled) == pytest.approx(sum(wanted) / len(wanted), rel=0.02)


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = [made_up("http", 10, 0.1), made_up("pull", 3, 1.0)]
    path = tmp_path / "raw.json"
    crowds = [Crowd(2, 1, (0.5,), 9_300.0)]
    write(path, runs, crowds)
    assert read(path) == (runs, crowds)


def test_what_is_measured_again_replaces_what_was_and_the_rest_is_kept(tmp_path: Path) -> None:
    small, large, pull = made_up("http", 10, 0.1), made_up("http", 30, 0.1), made_up("pull", 30, 1.0)
    write(tmp_path / "raw.json", [small, pull], [Crowd(5, 0, (0.0,), 1.0)])
    again = made_up("pull", 30, 2.0)
    runs, crowds = keep(tmp_path / "raw.json", [again, large], [])
    assert runs == [small, large, again]
    assert [crowd.count for crowd in crowds] == [5]


@pytest.mark.e2e
def test_those_who_wait_are_all_answered(tmp_path_factory: pytest.TempPathFactory) -> None:
    need_programs("CROWDS NOT MEASURED", "unbound", "unbound-control")
    with FleetWorld(tmp_path_factory.mktemp("c"), "http", 0, 0, interval=1.0) as world:
        world.start_region()
        seen = asyncio.run(gather(world, 200))
    assert (seen.early, len(seen.answered), seen.answered[0]) == (0, 200, 0.0)


def test_quantiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert quantiles(values) == [50.0, 90.0, 99.0, 100.0]
    assert quantiles([7.0]) == [7.0] * 4


def test_every_source_has_a_label() -> None:
    assert set(SOURCES) <= set(report._LABELS)
