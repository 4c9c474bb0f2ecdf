from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.soak.load import Window
from tests.soak.plan import Kind, Trouble, make_plan
from tests.soak.report import Run, Sample, to_markdown
from tests.soak.run import run
from tests.soak.watch import Holding

HOLDING = Holding(memory=60 << 20, descriptors=30, threads=10, tasks=20, cache_entries=100, in_flight=0)


def test_a_plan_is_made_from_its_seed_and_has_every_kind() -> None:
    plan = make_plan(1, 3600)
    assert plan == make_plan(1, 3600) != make_plan(2, 3600)
    assert {trouble.kind for trouble in plan} == set(Kind)
    assert all(before.end < after.begin for before, after in pairwise(plan))
    assert plan[0].begin >= 360
    assert plan[-1].end <= 3240


def made(samples: list[Sample], plan: tuple[Trouble, ...] = ()) -> Run:
    return Run(1, 100.0, 10, plan, samples, errors=[], clean_end=True)


def sample(at: float, *, kind: str = "cached", failed: str = "", holding: Holding = HOLDING) -> Sample:
    window = Window()
    window.asked[kind] += 100
    if failed:
        window.fail(kind, failed)
    return Sample(at, holding, window)


def test_a_run_in_which_nothing_failed_keeps_its_promises() -> None:
    quiet = made([sample(at) for at in range(0, 100, 5)])
    assert quiet.broken() == []
    assert "**broken**" not in to_markdown(quiet, "a test")


def test_one_owned_name_without_an_answer_breaks_a_promise() -> None:
    (broken,) = made([sample(5, kind="owned"), sample(10, kind="owned", failed="no response")]).broken()
    assert "owned" in broken.text
    assert "1 owned: no response" in broken.seen


def test_forwarded_names_may_fail_only_while_no_upstream_is_sound() -> None:
    samples = [sample(at, failed="rcode 2" if at == 50 else "") for at in range(0, 100, 5)]
    samples[10].window.failed["cached: rcode 2"] = 30
    dead = Trouble(Kind.ALL_DEAD, 45.0, 55.0, 0)
    assert made(samples, (dead,)).broken() == []
    (broken,) = made(samples, (replace(dead, kind=Kind.LOSS),)).broken()
    assert "forwarded" in broken.text


@pytest.mark.parametrize("field", ["memory", "descriptors", "threads", "tasks"])
def test_what_grows_breaks_a_promise(field: str) -> None:
    samples = [
        sample(at, holding=replace(HOLDING, **{field: int(getattr(HOLDING, field) * (1 + at / 100))}))
        for at in range(0, 100, 5)
    ]
    (broken,) = made(samples).broken()
    assert field in broken.text


def test_a_proxy_that_does_not_end_breaks_a_promise() -> None:
    (broken,) = replace(made([sample(5)]), clean_end=False).broken()
    assert "ends" in broken.text


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_a_minute_of_troubles(tmp_path: Path) -> None:
    """The short form of `make soak`: every kind of trouble once, each for a few seconds."""
    seen = run(tmp_path, seconds=60.0, rate=100, seed=7, pace=0.15)
    assert {trouble.kind for trouble in seen.plan} == set(Kind)
    assert seen.asked["owned"] > 1_000
    # A minute is too short to tell growth from warming up: the long form judges that.
    judged = [one for one in seen.promises() if "at the end" not in one.text]
    assert len(judged) == 3
    assert [one for one in judged if not one.kept] == []
