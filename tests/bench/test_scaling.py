from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import scaling
from bench.load import Order
from bench.process import Child, tree, wait_until
from bench.scaling import Run, proportional_set_size, report
from bench.servers import SERVERS, Site
from dnsproxy import config

FORKS = """
import os, time
if not os.fork():
    time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""


def run(workload: str, workers: int, rate: float, server_us: float, **changes: Any) -> Run:
    values: dict[str, Any] = {
        "lost": 0, "load_us": 4.0, "backend_us": 1.0, "others_us": 0.5, "busy": 0.9, "memory": 60 * 2**20,
    }  # fmt: skip
    return Run(workload, workers, rate, server_us=server_us, **{**values, **changes})


def test_the_cores_are_full_when_everybody_together_fills_them() -> None:
    assert run("misses", 2, 1.0, 5.0).most == pytest.approx(2e6 / 10)


def test_the_report_has_medians_of_rounds_and_ratios_within_rounds() -> None:
    runs = [
        run("owned names", 1, 100_000, 5.0),
        run("owned names", 2, 120_000, 5.0, memory=90 * 2**20),
        run("owned names", 1, 50_000, 5.0),
        run("owned names", 2, 80_000, 6.0, lost=3),
        run("owned names", 1, 100_000, 5.0),
        run("owned names", 2, 140_000, 5.0),
    ]
    text = report(runs, 250_000)
    first, _, title, one, two, ratio, alone = text.splitlines()
    assert "250,000 queries/s" in first
    assert title == "owned names"
    assert "100,000/s; CPU µs per query: server 5.00, load 4.00, backend 1.00, others 0.50" in one
    assert "120,000/s" in two
    assert "lost 3; memory 60 MiB" in two
    assert "2 workers to 1: 1.40" in ratio
    assert "full at 200,000/s" in ratio
    assert alone.endswith("to spare: 2.00")


def test_a_workload_that_was_not_measured_on_both_is_left_out() -> None:
    assert "misses" not in report([run("misses", 1, 1.0, 1.0)], 1.0)


def test_the_configuration_has_the_workers(tmp_path: Path) -> None:
    text = SERVERS[0].files(Site(tmp_path, 5300, 5301, 5302))["config.yaml"]
    changed = scaling.with_workers(text, 2)
    assert config.parse(text).serve.workers == 1
    assert config.parse(changed).serve.workers == 2
    assert config.parse(changed).serve.listen == config.parse(text).serve.listen


def test_a_child_and_its_children_run_on_both_cores_and_share_memory(tmp_path: Path) -> None:
    mask = os.sched_getaffinity(0)
    with Child([sys.executable, "-c", FORKS], core=min(mask), log=tmp_path / "log") as child:
        wait_until(lambda: "ready" in child.said(), 20, "the child's start")
        assert os.sched_getaffinity(child.pid) == {min(mask)}
        child.hold(mask)
        family = tree(child.pid)
        assert len(family) == 2
        assert [os.sched_getaffinity(pid) for pid in family] == [mask, mask]
        assert child.memory() > proportional_set_size(child) > 1_000_000


def test_a_load_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Order, "command", lambda _: ["true"])
    with pytest.raises(ValueError, match="dnsperf gave no"):
        scaling.ask(Order(53, tmp_path / "none", 1.0), tmp_path / "log")
