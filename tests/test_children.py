"""Orphans are reaped, and no exit status is taken from its owner.

Each case runs in a separate process that the kernel gives orphans to, as it does to PID 1 (prctl(2)).
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from dnsproxy import children

_SCRIPT = """
import asyncio, ctypes, os, signal, sys, time
from dnsproxy import children
from dnsproxy.supervise import supervise
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
children.LOOK_SECONDS, children.SETTLE_SECONDS = 0.01, {settle}

def zombies():
    found = 0
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = open(f"/proc/{{name}}/stat").read().rpartition(")")[2].split()
            except OSError:
                continue
            found += fields[0] == "Z" and int(fields[1]) == os.getpid()
    return found

async def orphans(count):
    # The shell ends before what it has started does.
    starts = "for i in " + " ".join(map(str, range(count))) + "; do sleep 0.05 & done; exit 7"
    process = await asyncio.create_subprocess_exec("sh", "-c", starts)
    return await process.wait()

reaped, looks, wait, look = [], [], os.waitpid, children.ended_child

def waitpid(pid, flags):
    found = wait(pid, flags)
    if flags == os.WNOHANG and found[0]:
        reaped.append(pid)
    return found

def ended_child():
    looks.append(1)
    return look()

os.waitpid, children.ended_child = waitpid, ended_child

async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)

async def main():
{body}

asyncio.run(main())
print("done")
"""


def run(body: str, settle: float = 0.05) -> None:
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    code = _SCRIPT.format(body=indented, settle=settle)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.endswith("done\n"), done.returncode) == (True, 0), done.stderr


def test_without_it_orphans_stay() -> None:
    """The test tells one from the other."""
    run(
        """
assert await orphans(3) == 7
await until(lambda: zombies() == 3)
"""
    )


def test_orphans_are_reaped_and_asyncio_has_the_status_of_its_own() -> None:
    run(
        """
reaping = asyncio.ensure_future(children.reap_orphans())
for _ in range(5):
    assert await asyncio.gather(*(orphans(2) for _ in range(3))) == [7, 7, 7]
await until(lambda: len(reaped) == 30)
assert zombies() == 0
assert not reaping.done()
"""
    )


def test_a_loop_that_was_busy_takes_no_status_from_asyncio() -> None:
    run(
        """
reaping = asyncio.ensure_future(children.reap_orphans())
for _ in range(5):
    process = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
    time.sleep(0.1)  # longer than it runs, and than it has to settle
    await asyncio.sleep(0)
    time.sleep(0.1)
    assert await process.wait() == 7
""",
        settle=0.01,
    )


def test_the_status_of_a_process_with_an_owner_waits_for_it() -> None:
    run(
        """
reaping = asyncio.ensure_future(children.reap_orphans())
pid = os.fork()
if not pid:
    os._exit(7)
children.OWN.add(pid)
await until(lambda: len(looks) > 10)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
await orphans(2)
await until(lambda: len(reaped) == 2)
"""
    )


def test_reaping_is_started_again_after_a_failure() -> None:
    """As "orphans", in proxy and helper."""
    run(
        """
from dnsproxy import supervise as module
module.FIRST_SECONDS = 0.001
really, left = children.ended_child, [2]
def fails():
    if left[0]:
        left[0] -= 1
        raise ZeroDivisionError
    return really()
children.ended_child = fails
reaping = asyncio.ensure_future(supervise("orphans", children.reap_orphans))
await orphans(2)
await until(lambda: len(reaped) == 2)
assert left == [0]
"""
    )


def test_only_the_first_process_adopts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not children.adopts_orphans()
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert children.adopts_orphans()


def test_without_a_child_none_has_ended() -> None:
    run("assert children.ended_child() is None")
