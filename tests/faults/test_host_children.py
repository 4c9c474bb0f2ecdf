"""The proxy as PID 1 of a container without an init: it reaps what its hook leaves behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.processes import run_command, wait_for
from tests.e2e.world import AUTH, World
from tests.faults.pressure import Asker
from tests.needs import give_up

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

RUNS, ORPHANS = 4, 3
# New sessions, or they would end with the hook's process group; it ends once they have begun.
HOOK = f"""#!/bin/sh
cat >/dev/null
for number in $(seq {ORPHANS}); do
  setsid sh -c 'echo begun >>"$1"; sleep 0.3' sh "$0.$$" </dev/null >/dev/null 2>&1 &
done
until [ "$(cat "$0.$$" 2>/dev/null | wc -l)" = {ORPHANS} ]; do sleep 0.01; done
"""
WITHIN = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--")


def children(pid: int) -> dict[int, str]:
    """Return the state of each child of ``pid``."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found[int(folder.name)] = fields[0]
    return found


@pytest.fixture
def contained(world: World) -> World:
    refused = run_command(*WITHIN, "true")
    if refused.returncode:
        give_up(f"PID 1 NOT TESTED, no process namespace here ({refused.stderr.strip()}); run as root")
    hook = world.folder / "hook"
    hook.write_text(HOOK)
    hook.chmod(0o755)
    world.configure(learn={"on_change": str(hook)})
    world.proxy.run_by(*WITHIN)
    return world


@pytest.mark.parametrize("workers", [1, 2])
def test_orphans_of_the_hook_are_reaped(contained: World, workers: int) -> None:
    world = contained
    world.configure(serve={"workers": workers})
    world.start()
    (first,) = children(world.proxy.pid)
    with Asker(world.dns_port):
        for run in range(1, RUNS):
            wait_for(lambda: len(world.proxy.events("learned.hook_done")) >= run, f"run {run}")  # noqa: B023 - called at once
            world.source.replace(AUTH, f"A 100.103.7.{run}")
        wait_for(lambda: len(world.proxy.events("learned.hook_done")) >= RUNS, "the last run")
        # What is left is the process that starts workers.
        wait_for(lambda: len(children(first)) == (workers > 1), "all orphans have ended and are reaped")
    begun = sum(len(file.read_text().split()) for file in world.folder.glob("hook.*"))
    assert begun == RUNS * ORPHANS
    assert world.proxy.events("learned.hook_failed") == []
    if workers > 1:
        before = set(worker_ids(world))
        os.kill(host_pid(first, worker_ids(world)[0]), signal.SIGKILL)
        (ended,) = wait_for(lambda: world.proxy.events("worker.ended"), "the end of a worker")
        assert ended["how"] == "killed by SIGKILL"
        wait_for(lambda: set(worker_ids(world)) - before, "another worker")
    os.kill(first, signal.SIGTERM)
    assert world.proxy.wait(20) == 0


def worker_ids(world: World) -> list[int]:
    found = world.admin("/api/v1/status").json()["workers"]
    return [worker["pid"] for worker in found if worker["pid"]]


def host_pid(first: int, inner: int) -> int:
    """Return the id here of the process that is ``inner`` in the namespace of ``first``."""
    todo = [first]
    while todo:
        pid = todo.pop()
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (ids,) = (line.split()[1:] for line in lines if line.startswith("NSpid:"))
        if int(ids[-1]) == inner:
            return pid
        todo += children(pid)
    raise AssertionError(f"no process {inner}")
