from __future__ import annotations

import contextlib
import errno
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsproxy import output
from dnsproxy.output import PIPE_BYTES, LineStream, QueuedStream, pieces, write_lines

SECONDS = 30.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(fd)


def fill(fd: int) -> None:
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, bytes(4096))
    os.set_blocking(fd, True)


# --- the stream in place of sys.stderr


def test_lines_are_records_however_they_are_written(pipe: tuple[int, int]) -> None:
    stream = QueuedStream(pipe[1])
    print("one", 1, file=stream)
    stream.write("two\nthree\n")
    stream.write("no end")
    stream.flush()
    assert stream.writer.flush(SECONDS)
    assert os.read(pipe[0], 100) == b"one 1\ntwo\nthree\nno end"
    assert stream.writer.written == 3
    assert (stream.fileno(), stream.isatty(), stream.writable()) == (pipe[1], False, True)


def test_text_that_has_no_encoding_is_escaped(pipe: tuple[int, int]) -> None:
    stream = QueuedStream(pipe[1])
    stream.write("\udc80\n")
    assert stream.writer.flush(SECONDS)
    assert os.read(pipe[0], 100) == b"\\udc80\n"


def test_a_line_without_an_end_does_not_grow(pipe: tuple[int, int]) -> None:
    stream = QueuedStream(pipe[1])
    for _ in range(2 * output.MAX_LINE):
        stream.write("x")
    assert stream.writer.lost == 0
    threading.Thread(target=lambda: os.read(pipe[0], 1 << 20), daemon=True).start()
    assert stream.writer.flush(SECONDS)
    assert stream.writer.written == 2


@pytest.mark.parametrize("what", ["closed", "full disk", "stopped"])
def test_nothing_raises_or_waits(pipe: tuple[int, int], what: str) -> None:
    reading, writing = pipe
    if what == "closed":
        os.close(reading)
    elif what == "full disk":
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, writing)
        os.close(full)
    else:
        fill(writing)
    reports: list[int] = []
    stream = QueuedStream(writing, reports.append)
    for number in range(20_000):
        print(f"{number:080}", file=stream)
    assert stream.writer.flush(0.01) == (what != "stopped")
    assert stream.writer.written == 0
    assert stream.writer.lost > 5_000
    assert reports == []
    if what == "stopped":
        total = threading.Event()

        def read() -> None:
            while not total.is_set():
                os.read(reading, 1 << 16)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        assert stream.writer.flush(SECONDS)
        assert stream.writer.written + stream.writer.lost == 20_000
        assert reports == [stream.writer.lost]
        total.set()
        os.write(writing, b"x")
        reader.join(SECONDS)


def test_a_stream_in_memory_gets_no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    held = io.StringIO()
    monkeypatch.setattr(sys, "stderr", held)
    output.queue_standard_error()
    assert sys.stderr is held
    assert not output.is_queued()
    assert output.counts() == (0, 0)


def test_standard_error_gets_one_queue_which_is_written_at_the_end() -> None:
    code = (
        "import sys; from dnsproxy import output; output.queue_standard_error();"
        "held = sys.stderr; output.queue_standard_error(); assert sys.stderr is held;"
        "print('line', file=sys.stderr); output.flush(); assert output.counts() == (1, 0);"
        "raise ZeroDivisionError('the crash')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.startswith("line\nTraceback")
    assert run.stderr.endswith("ZeroDivisionError: the crash\n")
    assert run.returncode == 1


def test_what_others_write_to_standard_error_is_queued_as_well() -> None:
    """Warnings, Python's logging, and what unraisable errors and threads print."""
    code = """
import logging, sys, threading, warnings
from dnsproxy import output
output.queue_standard_error()
warnings.warn("a warning")
logging.getLogger("aiohttp.server").error("an error")
class Bad:
    def __del__(self): raise ValueError("in a finaliser")
Bad()
thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
output.flush()
assert output.counts()[0] >= 4, output.counts()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for text in ("a warning", "an error", "in a finaliser", "ZeroDivisionError"):
        assert text in run.stderr


# --- a command


def test_closed_descriptors_are_not_given_to_the_next_socket() -> None:
    code = (
        "import os; from dnsproxy import output; output.open_standard_descriptors();"
        "import socket, sys; sock = socket.socket(); assert sock.fileno() > 2, sock.fileno();"
        "print('x'); print('y', file=sys.stderr)"
    )
    run = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False
    )
    assert run.returncode == 0


def test_an_error_is_printed_if_that_can_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output.print_error("dnsproxy: wrong")
    assert capsys.readouterr().err == "dnsproxy: wrong\n"
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stderr", full)
        output.print_error("dnsproxy: wrong")
        monkeypatch.undo()
        # What could not be written is discarded, so that the end of the interpreter does not fail.
        full.flush()


def test_standard_output_that_cannot_be_written_is_one_reason() -> None:
    code = (
        "import sys; from dnsproxy import output; print('x');"
        "print(output.finish_standard_output(), file=sys.stderr); sys.exit(3)"
    )
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={},  # not PYTHONUNBUFFERED, with which `print` would fail
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (run.returncode, run.stderr) == (3, "No space left on device\n")
    assert output.finish_standard_output() is None


def test_what_is_written_while_the_interpreter_ends_is_written_here() -> None:
    """A finaliser that fails is reported when no thread can be started any more; it used to wait for one."""
    code = (
        "import sys; from dnsproxy import output\n"
        "class Late:\n"
        "    def __del__(self): raise OSError('too late')\n"
        "sys.last_value = Late(); output.queue_standard_error()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0
    assert "too late" in run.stderr


# --- lines


def test_after_a_full_disk_the_next_line_is_whole(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    stream = LineStream(pipe[1])
    failures = [OSError(errno.ENOSPC, "No space left on device"), None]
    written: list[list[bytes]] = []

    def write(_fd: int, lines: list[bytes]) -> OSError | None:
        written.append(lines)
        return failures.pop(0)

    monkeypatch.setattr(output, "write_lines", write)
    assert stream.write([b"one\n"]) is not None
    assert stream.write([b"two\n"]) is None
    assert written == [[b"one\n"], [b"\n", b"two\n"]]


def test_whether_a_write_would_wait(pipe: tuple[int, int]) -> None:
    stream = LineStream(pipe[1])
    assert stream.is_ready()
    fill(pipe[1])
    assert not stream.is_ready()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_gets_everything_however_slowly_it_is_read(pipe: tuple[int, int], blocking: bool) -> None:
    reading, writing = pipe
    os.set_blocking(writing, blocking)
    lines = [b"%06d\n" % number for number in range(40_000)]
    got: list[bytes] = []

    def read() -> None:
        while data := os.read(reading, 1000):
            got.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    assert write_lines(writing, lines) is None
    os.close(writing)
    reader.join(SECONDS)
    assert b"".join(got) == b"".join(lines)


def test_a_descriptor_above_1023_can_be_waited_for(pipe: tuple[int, int]) -> None:
    """select(2) cannot do that."""
    import resource  # noqa: PLC0415

    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1100:
        pytest.skip("the limit of descriptors is too low")
    os.dup2(pipe[1], 1099)
    try:
        assert output.wait_writable(1099, 0)
    finally:
        os.close(1099)


def test_pieces_are_whole_lines_that_a_pipe_takes_at_once() -> None:
    lines = [b"x" * 1500 + b"\n"] * 7
    found = pieces(lines, PIPE_BYTES)
    assert b"".join(found) == b"".join(lines)
    assert all(len(piece) <= PIPE_BYTES and piece.endswith(b"\n") for piece in found)
    assert pieces([b"x" * 9000], 4096) == [b"x" * 9000]
    assert pieces([], 4096) == []
