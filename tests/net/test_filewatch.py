"""Real files and the kernel's own inotify. Deadlines are generous; nothing is waited for by sleeping."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncinotify
import pytest

from dnsproxy.net.filewatch import FileWatch, steps
from tests.fakes.kubelet import AtomicWriter

PATIENCE = 20.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "learned" / "snapshot.jws"
    path.parent.mkdir()
    path.write_text("one")
    return path


@pytest.fixture
def watch(file: Path) -> Iterator[FileWatch]:
    watch = FileWatch(file)
    yield watch
    watch.close()


def put(path: Path, text: str) -> None:
    path.write_text(text)


def read(path: Path) -> str:
    return path.read_text()


def descriptors_in_use() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def told(watch: FileWatch) -> None:
    async with asyncio.timeout(PATIENCE):
        await watch.changed()


async def is_quiet(watch: FileWatch) -> bool:
    """Whether nothing that has happened concerns the file; events are queued before the call returns."""
    try:
        async with asyncio.timeout(0.2):
            await watch.changed()
    except TimeoutError:
        return True
    return False


# -- the way to a file ---------------------------------------------------------------


def test_steps_of_a_plain_path(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    found = steps(path)
    assert found[0] == (Path("/"), path.parts[1])
    assert found[-1] == (tmp_path, "file")
    assert len(found) == len(path.parts) - 1


def test_steps_through_links(tmp_path: Path) -> None:
    writer = AtomicWriter(tmp_path / "volume")
    writer.write({"snapshot.jws": b"one"})
    tail = steps(tmp_path / "volume" / "snapshot.jws")[-4:]
    assert tail == [
        (tmp_path / "volume", "snapshot.jws"),
        (tmp_path / "volume", "..data"),
        (tmp_path / "volume", writer.current),
        (tmp_path / "volume" / writer.current, "snapshot.jws"),
    ]


def test_steps_of_an_absolute_link_and_of_parents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    (tmp_path / "a" / "up").symlink_to("../b/file")
    (tmp_path / "a" / "far").symlink_to(tmp_path / "b" / "file")
    assert steps(tmp_path / "a" / "up")[-2:] == [(tmp_path, "b"), (tmp_path / "b", "file")]
    assert steps(tmp_path / "a" / "far")[-1] == (tmp_path / "b", "file")


def test_steps_end_where_nothing_is(tmp_path: Path) -> None:
    assert steps(tmp_path / "not" / "here")[-1] == (tmp_path, "not")


def test_a_circle_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="too many symbolic links"):
        steps(tmp_path / "a")


# -- what is told ---------------------------------------------------------------------


def write_in_place(file: Path) -> None:
    put(file, "two")


def replace(file: Path) -> None:
    other = file.with_name(".snapshot.jws.tmp")
    other.write_text("two")
    other.rename(file)


def link_anew(file: Path) -> None:
    other = file.with_name("other")
    other.write_text("two")
    file.unlink()
    file.hardlink_to(other)


def replace_the_folder(file: Path) -> None:
    other = file.parent.with_name("other")
    other.mkdir()
    (other / file.name).write_text("two")
    file.parent.rename(file.parent.with_name("old"))
    other.rename(file.parent)


@pytest.mark.parametrize("change", [write_in_place, replace, link_anew, Path.unlink, replace_the_folder])
async def test_a_change_is_told(watch: FileWatch, file: Path, change: Callable[[Path], None]) -> None:
    watch.arm()
    change(file)
    await told(watch)


async def test_a_file_that_comes_is_told_with_its_folder(tmp_path: Path) -> None:
    watch = FileWatch(tmp_path / "deep" / "down" / "file")
    try:
        for make in (Path.mkdir, Path.mkdir, Path.touch):
            watch.arm()
            target = next(p for p in reversed([watch._path, *watch._path.parents]) if not p.exists())
            make(target)
            await told(watch)
        watch.arm()
        (tmp_path / "deep" / "down" / "file").write_text("more")
        await told(watch)
    finally:
        watch.close()


async def test_each_round_of_the_kubelet_is_told(tmp_path: Path) -> None:
    writer = AtomicWriter(tmp_path / "volume")
    path = tmp_path / "volume" / "snapshot.jws"
    watch = FileWatch(path)
    try:
        for number in range(4):
            watch.arm()
            writer.write({"snapshot.jws": b"%d" % number})
            await told(watch)
            assert path.read_text() == str(number)
    finally:
        watch.close()


async def test_a_link_that_is_turned_elsewhere_is_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    link = tmp_path / "current"
    link.symlink_to("one")
    watch = FileWatch(link / "file")
    try:
        watch.arm()
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").rename(link)
        await told(watch)
        watch.arm()
        (tmp_path / "two" / "file").write_text("in its new place")
        await told(watch)
    finally:
        watch.close()


async def test_other_files_and_reading_are_not_told(watch: FileWatch, file: Path) -> None:
    watch.arm()
    read(file)
    for number in range(100):
        other = file.with_name(f"other{number}")
        other.write_text("x")
        other.unlink()
    file.parent.with_name("beside").mkdir()
    assert await is_quiet(watch)


async def test_a_file_that_is_being_written_is_told_when_it_is_closed(watch: FileWatch, file: Path) -> None:
    watch.arm()
    with file.open("w") as writing:
        writing.write("tw")
        writing.flush()
        assert await is_quiet(watch)
        writing.write("o")
    await told(watch)


async def test_what_happened_after_arming_is_told_later(watch: FileWatch, file: Path) -> None:
    watch.arm()
    put(file, "two")
    watch.arm()  # nothing leads elsewhere, so the same watches go on
    await told(watch)


async def test_quick_changes_are_one(watch: FileWatch, file: Path) -> None:
    watch.arm()
    for number in range(20):
        put(file, str(number))
    await told(watch)
    watch.arm()
    assert await is_quiet(watch)


async def test_a_folder_that_changes_all_the_time_is_told_all_the_same(watch: FileWatch, file: Path) -> None:
    watch.arm()

    async def rewrite() -> None:
        while True:
            put(file, "again")
            await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE):
        rewriting = asyncio.create_task(rewrite())
        await watch.changed()
        rewriting.cancel()


async def test_a_cancelled_wait_loses_nothing(watch: FileWatch, file: Path) -> None:
    watch.arm()
    assert await is_quiet(watch)
    put(file, "two")
    await told(watch)


# -- where it cannot be had ---------------------------------------------------------------


async def test_a_folder_that_cannot_be_read_is_left_out(
    watch: FileWatch, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder on the way may be for others alone (root, who runs these tests, reads every one)."""
    add = asyncinotify.Inotify.add_watch

    def refuse(inotify: asyncinotify.Inotify, path: Path, mask: asyncinotify.Mask) -> asyncinotify.Watch:
        if path == file.parent.parent:
            raise PermissionError(errno.EACCES, "Permission denied")
        return add(inotify, path, mask)

    monkeypatch.setattr(asyncinotify.Inotify, "add_watch", refuse)
    watch.arm()
    put(file, "two")
    await told(watch)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSYS])
async def test_no_inotify_is_an_error(watch: FileWatch, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse() -> asyncinotify.Inotify:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(asyncinotify, "Inotify", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        watch.arm()
    assert await is_quiet(watch)


async def test_the_limit_of_watches_is_an_error(watch: FileWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = descriptors_in_use()
    monkeypatch.setattr(asyncinotify.Inotify, "add_watch", refuse)
    with pytest.raises(OSError, match="No space left"):
        watch.arm()
    assert descriptors_in_use() == before
