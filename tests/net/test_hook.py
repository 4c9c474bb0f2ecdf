from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dnsproxy.core.addresses.change_event import NameStatus
from dnsproxy.errors import StartError
from dnsproxy.net.hook import MAX_OUTPUT, Hook, check_program


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def program(folder: Path, body: str) -> Path:
    path = folder / "on-change"
    path.write_text(f"#!/bin/sh\ncd {folder}\n{body}\n")
    path.chmod(0o755)
    return path


def state(address: str) -> dict[str, NameStatus]:
    return {"a.example.": NameStatus("registry", "hangzhou", (address,), (address,), ())}


@asynccontextmanager
async def running(hook: Hook) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(hook.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def told(folder: Path) -> list[tuple[list[str], list[str]]]:
    """Return old and new of each run."""
    path = folder / "told"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line["names"][0]["old"], line["names"][0]["new"]) for line in map(json.loads, lines)]


def count_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def is_alive(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open() as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_it_is_told_on_standard_input(tmp_path: Path, logs: list[Any]) -> None:
    hook = Hook(program(tmp_path, "cat >> told; echo thanks; echo indeed >&2"))
    async with running(hook):
        hook.offer(state("10.0.0.1"), 7, frozen=True)
        await until(lambda: logs)
    assert told(tmp_path) == [([], ["10.0.0.1"])]
    document = json.loads((tmp_path / "told").read_text())
    assert (document["serial"], document["frozen"]) == (7, True)
    (line,) = logs
    assert (line["event"], line["output"]) == ("learned.hook_done", "thanks\nindeed")


async def test_what_changes_while_it_runs_is_told_together(tmp_path: Path, logs: list[Any]) -> None:
    hook = Hook(program(tmp_path, "cat >> told; while [ ! -e go ]; do sleep 0.02; done"))
    async with running(hook):
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        await until(lambda: told(tmp_path))
        for serial in (2, 3, 4):
            hook.offer(state(f"10.0.0.{serial}"), serial, frozen=False)
        (tmp_path / "go").touch()
        await until(lambda: len(logs) == 2)
    assert told(tmp_path) == [([], ["10.0.0.1"]), (["10.0.0.1"], ["10.0.0.4"])]


async def test_nothing_new_is_not_told(tmp_path: Path, logs: list[Any]) -> None:
    hook = Hook(program(tmp_path, "cat >> told"))
    async with running(hook):
        for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2"):
            runs = len(logs)
            hook.offer(state(address), 1, frozen=False)
            if address != "10.0.0.1" or not runs:
                await until(lambda before=runs: len(logs) > before)  # type: ignore[misc]
    assert [new for _, new in told(tmp_path)] == [["10.0.0.1"], ["10.0.0.2"]]


@pytest.mark.parametrize(
    ("body", "reason"), [("echo no; exit 3", "exit code 3"), ("kill -9 $$", "exit code -9")]
)
async def test_a_failure_is_told_and_does_not_end_it(
    body: str, reason: str, tmp_path: Path, logs: list[Any]
) -> None:
    hook = Hook(program(tmp_path, body))
    async with running(hook) as task:
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        await until(lambda: logs)
        assert not task.done()
    assert [(line["event"], line["reason"]) for line in logs] == [("learned.hook_failed", reason)]


async def test_a_program_that_is_gone_is_told(tmp_path: Path, logs: list[Any]) -> None:
    hook = Hook(tmp_path / "none")
    async with running(hook) as task:
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        await until(lambda: logs)
        assert not task.done()
    assert logs[0]["reason"] == "No such file or directory"


async def test_a_host_that_is_short_of_descriptors_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    hook = Hook(program(tmp_path, "cat > told"))
    monkeypatch.setattr(os, "pipe", refuse)
    before = count_descriptors()
    with pytest.raises(OSError, match="Too many"):
        await hook._run(b"{}")
    assert count_descriptors() == before


async def test_at_the_time_limit_it_is_ended_with_its_children(tmp_path: Path, logs: list[Any]) -> None:
    hook = Hook(program(tmp_path, "sleep 1000 & echo $! $$ > pids; wait"), limit=0.5)
    async with running(hook):
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        await until(lambda: logs)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        await until(lambda: not any(map(is_alive, pids)))
    assert logs[0]["reason"] == "ended by the limit of 0.5 s"


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path, logs: list[Any]) -> None:
    hook = Hook(program(tmp_path, "trap '' TERM; echo $$ > pid; while :; do sleep 0.1; done"), limit=0.5)
    async with running(hook):
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        await until(lambda: logs)
    assert not is_alive(int((tmp_path / "pid").read_text()))


async def test_what_it_leaves_behind_is_ended(tmp_path: Path, logs: list[Any]) -> None:
    # The program has had its time: what it left gets no word of warning.
    hook = Hook(program(tmp_path, "(trap '' TERM; while :; do sleep 0.1; done) & echo $! > pid"))
    async with running(hook):
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        await until(lambda: logs)
        pid = int((tmp_path / "pid").read_text())
        await until(lambda: not is_alive(pid))
    assert logs[0]["event"] == "learned.hook_done"


async def test_when_the_proxy_stops_it_is_ended(tmp_path: Path) -> None:
    hook = Hook(program(tmp_path, "echo $$ > pid; mv pid ready; sleep 1000"))
    async with running(hook):
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        await until((tmp_path / "ready").exists)
    assert not is_alive(int((tmp_path / "ready").read_text()))


async def test_it_has_a_process_group_of_its_own(tmp_path: Path, logs: list[Any]) -> None:
    hook = Hook(program(tmp_path, "ps -o pgid= -p $$ > group; echo $$ > pid"))
    async with running(hook):
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        await until(lambda: logs)
    assert int((tmp_path / "group").read_text()) == int((tmp_path / "pid").read_text()) != os.getpgrp()


async def test_its_output_is_bounded(tmp_path: Path, logs: list[Any]) -> None:
    hook = Hook(program(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' x; echo done > finished"))
    async with running(hook):
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        await until(lambda: logs)
    assert logs[0]["output"] == "x" * MAX_OUTPUT
    assert (tmp_path / "finished").exists()


async def test_one_that_does_not_read_holds_nothing_up(tmp_path: Path, logs: list[Any]) -> None:
    many = {f"n{number}.example.": state("10.0.0.1")["a.example."] for number in range(5000)}
    hook = Hook(program(tmp_path, "exit 0"))
    async with running(hook):
        hook.offer(many, 1, frozen=False)
        await until(lambda: logs)
    assert logs[0]["event"] == "learned.hook_done"


def test_a_program_is_checked_at_start(tmp_path: Path) -> None:
    path = program(tmp_path, "exit 0")
    check_program(path)
    path.chmod(0o644)
    with pytest.raises(StartError, match=r"learn.on_change: .*on-change: not executable"):
        check_program(path)
    with pytest.raises(StartError, match="No such file or directory"):
        check_program(tmp_path / "none")
    with pytest.raises(StartError, match="not a file"):
        check_program(tmp_path)


async def test_a_run_that_is_cancelled_is_told_again_by_the_next(tmp_path: Path) -> None:
    hook = Hook(program(tmp_path, "cat >> given; [ -e done ] || sleep 30; cat given >> told"))
    hook.offer(state("10.0.0.1"), 1, frozen=False)
    async with running(hook):
        await until((tmp_path / "given").exists)
    (tmp_path / "done").touch()
    (tmp_path / "given").unlink(missing_ok=True)
    async with running(hook):
        await until(lambda: told(tmp_path) == [([], ["10.0.0.1"])])


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), os.strerror(errno.EAGAIN)),
    ],
)
async def test_a_process_that_cannot_be_started_is_logged_and_loses_nothing(
    refusal: Exception, reason: str, tmp_path: Path, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise refusal

    hook = Hook(program(tmp_path, "cat >> told"))
    before = count_descriptors()
    async with running(hook):
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "create_subprocess_exec", refuse)
            hook.offer(state("10.0.0.1"), 1, frozen=False)
            await until(lambda: logs)
            assert count_descriptors() == before
        hook.offer(state("10.0.0.2"), 2, frozen=False)
        await until(lambda: len(logs) == 2)
    assert [(line["event"], line.get("reason")) for line in logs] == [
        ("learned.hook_failed", reason),
        ("learned.hook_done", None),
    ]
    assert told(tmp_path) == [(["10.0.0.1"], ["10.0.0.2"])]


async def test_another_program_gets_every_name_first(tmp_path: Path, logs: list[Any]) -> None:
    hook = Hook(None)
    wanted = [hook.is_wanted]
    async with running(hook):
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        hook.change(program(tmp_path, "cat >> told"))
        wanted.append(hook.is_wanted)
        hook.offer(state("10.0.0.1"), 1, frozen=False)
        await until(lambda: logs)
        hook.change(program(tmp_path, "cat >> told"))  # the same
        hook.offer(state("10.0.0.2"), 2, frozen=False)
        await until(lambda: len(logs) == 2)
        (tmp_path / "other").mkdir()
        hook.change(program(tmp_path / "other", "cat >> told"))
        hook.offer(state("10.0.0.2"), 2, frozen=False)
        await until(lambda: len(logs) == 3)
    assert wanted == [False, True]
    assert told(tmp_path) == [([], ["10.0.0.1"]), (["10.0.0.1"], ["10.0.0.2"])]
    assert told(tmp_path / "other") == [([], ["10.0.0.2"])]
