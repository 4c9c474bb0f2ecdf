from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dnsproxy.errors import StartError
from dnsproxy.net import statefile
from dnsproxy.net.statefile import (
    DISK_FAULTS,
    KEEP_ASIDE,
    REFRESH_GAP,
    StateWriter,
    check_writable,
    read_state,
    set_aside,
    write_state,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "learned.jws"


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# -- reading and writing --------------------------------------------------------


@pytest.mark.parametrize("tokens", [[], ["a.b.c"], ["a.b.c", "d.e.f"]])
def test_what_is_written_is_read_again(path: Path, tokens: list[str]) -> None:
    write_state(path, tokens)
    assert read_state(path) == tokens
    assert names_in(path.parent) == [path.name]


def test_a_missing_file_is_an_empty_list(path: Path) -> None:
    assert read_state(path) == []


def test_blank_lines_and_other_line_ends_are_passed_over(path: Path) -> None:
    path.write_bytes(b"\n a.b.c\r\n\n\td.e.f")
    assert read_state(path) == ["a.b.c", "d.e.f"]


def test_octets_that_are_no_text_do_not_raise(path: Path) -> None:
    path.write_bytes(b"a.b.c\n\xff\xfe\x00\n")
    first, second = read_state(path)
    assert first == "a.b.c"
    assert "\ufffd" in second


def test_a_file_without_end_is_not_read_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statefile, "MAX_STATE", 8)
    path.write_bytes(b"a.b.c\n" + b"x" * 100)
    assert read_state(path) == ["a.b.c", "xx"]


def test_what_cannot_be_read_is_the_callers_matter(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        read_state(path)


def test_only_the_owner_may_read_it(path: Path) -> None:
    write_state(path, ["a.b.c"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_and_folder_are_on_disk_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        synced.append(f"{'folder' if stat.S_ISDIR(mode) else 'file'}, in place: {path.exists()}")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_state(path, ["a.b.c"])
    assert synced == ["file, in place: False", "folder, in place: True"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(path, ["old"])

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_state(path, ["new"])
    assert read_state(path) == ["old"]
    assert names_in(path.parent) == [path.name]


# -- setting aside ---------------------------------------------------------------


def test_set_aside_keeps_the_content_until_it_is_replaced(path: Path) -> None:
    write_state(path, ["bad"])
    with capture_logs() as logs:
        aside = set_aside(path, 1000.9)
    assert aside == path.with_name("learned.jws.bad-1000")
    assert read_state(path) == ["bad"]
    write_state(path, ["good"])
    assert (read_state(aside), read_state(path)) == (["bad"], ["good"])
    assert [event["event"] for event in logs] == ["learned.state_set_aside"]


def test_the_newest_three_are_kept_also_within_one_second(path: Path) -> None:
    other = path.with_name("learned.jws.bad-old")
    other.touch()
    for number in range(5):
        write_state(path, [str(number)])
        set_aside(path, 999)
    kept = sorted(path.parent.glob("*.bad-[0-9]*"), key=lambda entry: int(entry.name.rpartition("-")[2]))
    assert [read_state(entry) for entry in kept] == [["2"], ["3"], ["4"]]
    assert len(kept) == KEEP_ASIDE
    assert other.exists()


def test_without_hard_links_it_is_moved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_state(path, ["bad"])
    aside = set_aside(path, 1000)
    assert aside is not None
    assert read_state(aside) == ["bad"]
    assert not path.exists()


def test_what_cannot_be_set_aside_is_logged(path: Path) -> None:
    with capture_logs() as logs:
        assert set_aside(path, 1000) is None
    assert logs[0]["event"] == "learned.state_set_aside_failed"
    assert logs[0]["reason"] == "No such file or directory"


# -- the check at start ------------------------------------------------------------


def test_the_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "learned.jws"
    check_writable(path)
    assert names_in(path.parent) == []


def test_a_folder_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "learned.jws", tmp_path / "file" / "below" / "learned.jws", tmp_path):
        with pytest.raises(StartError) as caught:
            check_writable(path)
        assert str(caught.value).startswith(f"learn.state_file: {path}: cannot be written: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", sorted(DISK_FAULTS))
def test_a_disk_that_has_failed_since_keeps_nobody_from_starting(
    path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    def fails(*_arguments: object, **_options: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", fails)
    # With nothing to answer from it is a mistake of the configuration that somebody should hear of.
    with pytest.raises(StartError, match=re.escape(os.strerror(fault))):
        check_writable(path)
    path.write_text("a.b.c")
    with capture_logs() as logs:
        assert check_writable(path) == os.strerror(fault)
    assert [(event["event"], event["log_level"]) for event in logs] == [
        ("learned.state_write_failed", "error")
    ]


def test_what_a_killed_program_left_is_removed_at_start(path: Path) -> None:
    left = path.with_name(f".{path.name}.abcd1234")
    left.write_text("half")
    os.utime(left, (1000, 1000))
    assert check_writable(path) is None
    assert names_in(path.parent) == []


# -- writing in the background -------------------------------------------------------


class Clock:
    now = 5000.0

    def __call__(self) -> float:
        return self.now


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_nothing_waits_at_first(path: Path) -> None:
    writer = StateWriter(path)
    assert writer.delay == math.inf
    await writer.flush()
    assert names_in(path.parent) == []


async def test_a_change_is_due_at_once_and_a_refresh_once_a_minute(path: Path) -> None:
    clock = Clock()
    writer = StateWriter(path, clock)
    writer.offer(["a"], urgent=False)
    assert writer.delay == 0
    await writer.flush()
    writer.offer(["b"], urgent=False)
    clock.now += 20
    assert writer.delay == REFRESH_GAP - 20
    writer.offer(["c"], urgent=False)
    assert writer.delay == REFRESH_GAP - 20
    writer.offer(["d"], urgent=True)
    writer.offer(["e"], urgent=False)
    assert writer.delay == 0
    await writer.flush()
    assert (read_state(path), writer.delay) == (["e"], math.inf)


async def test_run_writes_a_change_that_comes_while_a_refresh_waits(path: Path) -> None:
    writer = StateWriter(path)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(writer.run())
        writer.offer(["a"], urgent=True)
        await until(path.exists)
        writer.offer(["b"], urgent=False)
        await asyncio.sleep(0)
        writer.offer(["c"], urgent=True)
        await until(lambda: read_state(path) == ["c"])
        running.cancel()


async def test_a_failed_write_is_logged_once_and_tried_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "state" / "learned.jws", Clock()
    path.parent.touch()  # a file where the folder was
    writer = StateWriter(path, clock)
    with capture_logs() as logs:
        for token in ("a", "b"):
            writer.offer([token], urgent=True)
            await writer.flush()
        assert writer.delay == REFRESH_GAP
        clock.now += REFRESH_GAP
        assert writer.delay == 0
        path.parent.unlink()
        await writer.flush()
    assert (read_state(path), writer.delay) == (["b"], math.inf)
    assert [event["event"] for event in logs] == ["learned.state_write_failed", "learned.state_written"]
    assert logs[0]["reason"] == "File exists"


async def test_a_cancelled_write_never_ends_after_the_last_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go, order = threading.Event(), threading.Event(), []

    def slow(target: Path, tokens: Sequence[str]) -> None:
        if tokens == ["old"] and not entered.is_set():
            entered.set()
            assert go.wait(20)
        order.append(list(tokens))
        write_state(target, tokens)

    monkeypatch.setattr(statefile, "write_state", slow)
    writer = StateWriter(path)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(writer.run())
        writer.offer(["old"], urgent=True)
        await until(entered.is_set)
        running.cancel()
    writer.offer(["new"], urgent=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(writer.flush())
        await asyncio.sleep(0)
        go.set()
    assert order == [["old"], ["new"]]
    assert read_state(path) == ["new"]


async def test_a_write_that_was_cancelled_is_made_up_for_at_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go = threading.Event(), threading.Event()

    def fails(_target: Path, _tokens: Sequence[str]) -> None:
        entered.set()
        assert go.wait(20)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(statefile, "write_state", fails)
    writer = StateWriter(path)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(writer.run())
        writer.offer(["a"], urgent=True)
        await until(entered.is_set)
        running.cancel()
    monkeypatch.setattr(statefile, "write_state", write_state)
    go.set()
    await writer.flush()
    assert read_state(path) == ["a"]


async def test_a_folder_that_has_gone_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "learned.jws"
    writer = StateWriter(path, failure="Read-only file system")
    assert writer.failure == "Read-only file system"
    for tokens in (["a"], ["b"]):
        with capture_logs() as logs:
            writer.offer(tokens, urgent=True)
            await writer.flush()
        assert read_state(path) == tokens
        assert not writer.failure
        assert [event["event"] for event in logs] == (["learned.state_written"] if tokens == ["a"] else [])
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        shutil.rmtree(path.parent)
