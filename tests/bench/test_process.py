from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import process
from bench.process import Child, ended, stat_fields, tree, wait_until

FORKS = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("ready", flush=True)
while True: pass
"""


def start(tmp_path: Path, program: str) -> Child:
    core = min(os.sched_getaffinity(0))
    return Child([sys.executable, "-c", program], core=core, log=tmp_path / "log")


def test_fields_are_found_whatever_the_program_is_called() -> None:
    assert stat_fields("7 (a) b) c) S 1 2 3")[:3] == ["S", "1", "2"]


def test_busy_time_of_the_machine_is_without_idle_and_counts_guests_once() -> None:
    tick = process.TICK
    fields = [
        1,
        2,
        3,
        100,
        50,
        4,
        5,
        6,
        7,
        8,
    ]  # user nice system idle iowait irq softirq steal guest guest_nice

    line = "cpu  " + " ".join(str(field * tick) for field in fields)
    assert process.busy_seconds(f"{line}\ncpu0 1 2 3\n") == 1 + 2 + 3 + 4 + 5 + 6


def test_a_child_is_measured_with_its_children_and_stopped_with_them(tmp_path: Path) -> None:
    with start(tmp_path, FORKS) as child:
        wait_until(lambda: "ready" in child.said(), 20, "the child's start")
        family = tree(child.pid)
        wait_until(lambda: child.cpu_seconds() > 0.05, 20, "the child's use of the processor")

        assert len(family) == 2
        assert child.memory() > process.memory(child.pid, "VmRSS") > 1_000_000
        now = child.memory()  # first, for it may still grow
        assert child.memory("VmHWM") >= now

    assert not child.alive()
    wait_until(lambda: not any(running(pid) for pid in family), 20, "the end of the children")


def running(pid: int) -> bool:
    """A killed grandchild may stay a zombie for as long as nobody collects it."""
    try:
        return stat_fields(Path(f"/proc/{pid}/stat").read_text())[0] != "Z"
    except OSError:
        return False


def test_a_process_that_has_gone_used_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()

    assert process.cpu_seconds(gone.pid) == 0.0
    assert process.memory(gone.pid, "VmRSS") == 0


def test_ended_waits_without_collecting() -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as child:
        assert ended(child.pid, 20)
        assert child.wait() == 3


def test_ended_gives_up_in_time() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        try:
            assert not ended(child.pid, 0.01)
        finally:
            child.kill()


def test_waiting_for_what_never_comes_names_it() -> None:
    with pytest.raises(TimeoutError, match=r"the moon: not within 0\.01 s"):
        wait_until(lambda: False, 0.01, "the moon")
