from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dnsproxy.errors import StartError
from dnsproxy.net.outlets import LineFile, StandardOutput, is_at

LINES = [b"one\n", b"two\n"]


def test_lines_are_appended_and_the_file_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "q"
    path.write_bytes(b"before\n")
    outlet = LineFile(path)
    assert outlet.write(LINES) == 0
    outlet.close()
    assert path.read_bytes() == b"before\none\ntwo\n"
    made = LineFile(tmp_path / "new")
    made.close()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) & 0o007 == 0


def test_a_file_that_was_renamed_or_removed_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "q"
    outlet = LineFile(path)
    outlet.write([b"a\n"])
    path.rename(tmp_path / "q.1")
    outlet.write([b"b\n"])
    path.unlink()
    outlet.write([b"c\n"])
    outlet.close()
    assert (path.read_bytes(), (tmp_path / "q.1").read_bytes()) == (b"c\n", b"a\n")


def test_it_is_reopened_on_order(tmp_path: Path) -> None:
    path = tmp_path / "q"
    outlet = LineFile(path)
    path.rename(tmp_path / "q.1")
    outlet.reopen()
    assert path.exists()
    outlet.close()


def test_a_failure_and_its_end_are_logged_once_each(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    path = folder / "q"
    outlet = LineFile(path)
    path.unlink()
    folder.rmdir()
    with capture_logs() as logs:
        assert outlet.write(LINES) == 2
        assert outlet.write(LINES) == 2
        folder.mkdir()
        assert outlet.write(LINES) == 0
    assert [(entry["event"], entry["target"]) for entry in logs] == [
        ("log.failed", str(path)),
        ("log.recovered", str(path)),
    ]
    assert logs[0]["reason"] == "No such file or directory"
    outlet.close()
    assert path.read_bytes() == b"one\ntwo\n"


def test_after_a_full_disk_the_next_line_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "q"
    outlet = LineFile(path)
    really = os.write

    def full(fd: int, data: bytes) -> int:
        if full_now and len(data) > 2:
            return really(fd, bytes(data)[:2])
        if full_now:
            raise OSError(28, "No space left on device")
        return really(fd, data)

    monkeypatch.setattr(os, "write", full)
    full_now = True
    with capture_logs() as logs:
        assert outlet.write([b"one\n"]) == 1
        full_now = False
        assert outlet.write([b"two\n"]) == 0
    assert [entry["event"] for entry in logs] == ["log.failed", "log.recovered"]
    outlet.close()
    assert path.read_bytes() == b"on\ntwo\n"


def test_a_file_that_cannot_be_opened_fails_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"log\.queries\.file: cannot write .*: Is a directory"):
        LineFile(tmp_path)


def test_a_named_pipe_that_nobody_reads_holds_up_neither_start_nor_thread(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(StartError, match="No such device or address"):
        LineFile(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    outlet = LineFile(path)
    assert outlet.write([b"one\n"]) == 0
    assert os.read(reader, 100) == b"one\n"
    path.unlink()
    os.mkfifo(path)
    with capture_logs() as logs:
        assert outlet.write([b"lost\n"]) == 1
    assert logs[0]["reason"] == "No such device or address"
    outlet.close()
    os.close(reader)


def test_a_device_is_written_as_it_is() -> None:
    outlet = LineFile(Path("/dev/full"))
    with capture_logs() as logs:
        assert outlet.write(LINES) == 2
    assert logs[0]["reason"] == "No space left on device"
    outlet.close()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_gets_everything_however_slowly_it_is_read(blocking: bool) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    lines = [b"%06d\n" % number for number in range(40_000)]
    got: list[bytes] = []

    def read() -> None:
        while data := os.read(reading, 1000):
            got.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    assert StandardOutput(writing).write(lines) == 0
    os.close(writing)
    reader.join(60)
    os.close(reading)
    assert b"".join(got) == b"".join(lines)


def test_a_pipe_that_nobody_reads_any_more() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    outlet = StandardOutput(writing)
    with capture_logs() as logs:
        assert outlet.write(LINES) == 2
    assert logs[0]["reason"] == "Broken pipe"
    outlet.close()
    os.close(writing)


def test_whether_a_file_is_still_there(tmp_path: Path) -> None:
    path = tmp_path / "q"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    assert is_at(fd, path)
    path.rename(tmp_path / "r")
    assert not is_at(fd, path)
    path.touch()
    assert not is_at(fd, path)
    os.close(fd)
