"""Standard error and standard output of this process.

A command that an operator runs writes directly. A daemon calls `queue_standard_error`: from then on all that
reaches ``sys.stderr`` (events, tracebacks, warnings, messages of libraries) goes through a queue that a
thread writes (see `writer`). So a reader that has gone, one that has stopped and a full disk end nothing and
delay nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import select
import stat
import sys
from collections.abc import Callable
from threading import RLock
from typing import TextIO

from dnsproxy.writer import BackgroundWriter, flush_all

STDOUT = 1
# Bytes of events that may wait: some 5,000 of them.
BUFFER = 1 << 20
# A line without an end becomes a record by itself at this length.
MAX_LINE = 64 * 1024
# Seconds that the last events may take at the end of the process.
EXIT_SECONDS = 1.0
# Bytes that a pipe takes as one piece, beside other writers (pipe(7)); POSIX promises 512, Linux 4096.
PIPE_BYTES = select.PIPE_BUF


class LineStream:
    """Writes lines to the descriptor ``fd``; after a failure the next one starts a new line."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._torn = False

    def write(self, lines: list[bytes]) -> OSError | None:
        """Write ``lines``; return why that failed."""
        # After a full disk the file may end within a line.
        failure = write_lines(self.fd, [b"\n", *lines] if self._torn else lines)
        self._torn = failure is not None
        return failure

    def is_ready(self) -> bool:
        """Whether a write is unlikely to wait."""
        return wait_writable(self.fd, 0)


class _Sink:
    """Standard error, as a `writer.Sink`."""

    def __init__(self, fd: int) -> None:
        self._stream = LineStream(fd)
        self.is_ready = self._stream.is_ready

    def open(self) -> None:
        """See `Sink.open`: it is."""

    def write(self, batch: list[bytes]) -> int:
        """See `Sink.write`."""
        return 0 if self._stream.write(batch) is None else len(batch)

    def close(self) -> None:
        """See `Sink.close`: it stays open as long as the process."""


class QueuedStream(io.TextIOBase):
    """A text stream whose lines are records of a `BackgroundWriter`. Writing never waits and never raises."""

    def __init__(self, fd: int, recovered: Callable[[int], None] | None = None) -> None:
        self.writer = BackgroundWriter(_Sink(fd), buffer=BUFFER, recovered=recovered)
        self._fd = fd
        self._line: list[str] = []
        self._length = 0
        # Reentrant: a finaliser that runs inside `write` may have something to report.
        self._lock = RLock()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = RLock()
        self._line, self._length = [], 0

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base class has an attribute
        """The encoding of what is written."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # the base class has an attribute
        """What becomes of text that has no such encoding."""
        return "backslashreplace"

    def writable(self) -> bool:
        """See `io.IOBase.writable`."""
        return True

    def fileno(self) -> int:
        """See `io.IOBase.fileno`."""
        return self._fd

    def isatty(self) -> bool:
        """See `io.IOBase.isatty`."""
        return os.isatty(self._fd)

    def write(self, text: str) -> int:
        """Queue the lines of ``text``; what has no end of line yet waits for it."""
        with self._lock:
            self._line.append(text)
            self._length += len(text)
            whole = text.endswith("\n") or self._length >= MAX_LINE
        # Not within the lock: a thread that has the writer's may want this one, for a finaliser.
        if whole:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Queue what has no end of line yet; does not wait until it is written."""
        with self._lock:
            text, self._line, self._length = "".join(self._line), [], 0
        if text:
            self.writer.put(text.encode("utf-8", "backslashreplace"))


def queue_standard_error(recovered: Callable[[int], None] | None = None) -> None:
    """Put a queue in front of ``sys.stderr``, once; ``recovered`` is called as `BackgroundWriter` says.

    What waits at the end of the process is written, for `EXIT_SECONDS` at most.
    """
    if is_queued():
        return
    try:
        fd = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # a stream in memory
        return
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    sys.stderr = QueuedStream(fd, recovered)
    atexit.register(flush)


def is_queued() -> bool:
    """Whether this is a daemon: standard error has a queue."""
    return isinstance(sys.stderr, QueuedStream)


def flush() -> None:
    """Write what waits, for a bounded time; a process that ends without ``atexit`` must call this.

    Also before a fork, so that the thread has ended when it happens.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    flush_all(EXIT_SECONDS)


def counts() -> tuple[int, int]:
    """Return how many lines this process has written to its standard error, and how many were lost."""
    if isinstance(sys.stderr, QueuedStream):
        return sys.stderr.writer.written, sys.stderr.writer.lost
    return 0, 0


def open_standard_descriptors() -> None:
    """Put /dev/null in place of descriptors 0, 1 and 2 that are closed.

    The next socket or file would have such a number, and get what is meant for standard error.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(fd, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for the whole process


def print_error(line: str) -> None:
    """Print ``line`` to standard error, if that can be written."""
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - a command's output
    except OSError:
        _discard(sys.stderr)


def finish_standard_output() -> str | None:
    """Write what is buffered for standard output; return why that failed, if so."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        _discard(sys.stdout)
        return exc.strerror or str(exc)
    return None


def _discard(stream: TextIO) -> None:
    """Have ``stream`` written to /dev/null: the interpreter flushes it at its end, or exits with 120."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


# -- lines -----------------------------------------------------------------------------------


def write_lines(fd: int, lines: list[bytes]) -> OSError | None:
    """Write ``lines`` to ``fd``, each whole beside those of other processes; return why that failed."""
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            for piece in pieces(lines, PIPE_BYTES):
                write_all(fd, piece)
        else:
            # One call: with O_APPEND it lands in one place.
            write_all(fd, b"".join(lines))
    except OSError as exc:
        return exc
    return None


def pieces(lines: list[bytes], most: int) -> list[bytes]:
    """Return ``lines`` joined to pieces of at most ``most`` bytes; a longer line is one by itself."""
    joined: list[bytes] = []
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > most:
            joined.append(b"".join(piece))
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    return [*joined, b"".join(piece)] if piece else joined


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, waiting for the reader where that is needed.

    Raises:
        OSError: it cannot be written.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:  # the descriptor may have been made non-blocking by another process
            wait_writable(fd, None)


def wait_writable(fd: int, seconds: float | None) -> bool:
    """Wait until ``fd`` takes a write, or has an error; return whether that came within ``seconds``."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
