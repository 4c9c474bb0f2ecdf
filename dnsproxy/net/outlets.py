"""Where the query log goes: a file that may be rotated under it, or standard output."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path

import structlog

from dnsproxy.errors import StartError

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Queries tell a lot about their clients: for the owner and the group that rotates logs.
MODE = 0o640
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
# Octets that a pipe takes as one piece, whoever else writes to it (pipe(7)); POSIX promises 512, Linux 4096.
PIPE_OCTETS = select.PIPE_BUF
STDOUT = 1


class Condition:
    """Whether an outlet can be written to; each change is logged once."""

    def __init__(self, name: str, target: str) -> None:
        self._name = name
        self._target = target
        self._failure: str | None = None

    def record(self, failure: OSError | None, batch: list[bytes]) -> int:
        """Record how it went; return how many of ``batch`` are lost."""
        if failure is None:
            self.record_success()
            return 0
        self.record_failure(failure.strerror or str(failure))
        return len(batch)

    def record_failure(self, reason: str) -> None:
        """Record that records are being lost."""
        if self._failure is None:
            log.warning("log.failed", log=self._name, target=self._target, reason=reason)
        self._failure = reason

    def record_success(self) -> None:
        """Record that records are being written."""
        if self._failure is not None:
            log.info("log.recovered", log=self._name, target=self._target)
        self._failure = None


class LineFile:
    """Appends lines to ``path``. When the file there is another one, or none any more, it is opened anew.

    So a file may be renamed or removed at any time, without a signal; lines stay whole, and several
    processes may append to one file.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            StartError: it cannot be written.
        """
        self._path = path
        self._condition = Condition("queries", str(path))
        self._torn = False
        try:
            self._fd = os.open(path, _APPEND, MODE)
        except OSError as exc:
            raise StartError(f"log.queries.file: cannot write {path}: {exc.strerror}") from exc

    def open(self) -> None:
        """See `Outlet.open`: it is."""

    def reopen(self) -> None:
        """Write to what is at the path now; the old file until that can be opened.

        Raises:
            OSError: it cannot.
        """
        fd = os.open(self._path, _APPEND, MODE)
        os.close(self._fd)
        self._fd = fd
        self._torn = False

    def write(self, batch: list[bytes]) -> int:
        """See `Outlet.write`."""
        try:
            if not is_at(self._fd, self._path):
                self.reopen()
        except OSError as exc:
            return self._condition.record(exc, batch)
        # After a full disk the file may end within a line.
        failure = write_lines(self._fd, [b"\n", *batch] if self._torn else batch)
        self._torn = failure is not None
        return self._condition.record(failure, batch)

    def close(self) -> None:
        """See `Outlet.close`."""
        os.close(self._fd)


class StandardOutput:
    """Writes lines to standard output, whatever that is."""

    def __init__(self, fd: int = STDOUT) -> None:
        self._fd = fd
        self._condition = Condition("queries", "standard output")

    def open(self) -> None:
        """See `Outlet.open`: it is."""

    def write(self, batch: list[bytes]) -> int:
        """See `Outlet.write`."""
        return self._condition.record(write_lines(self._fd, batch), batch)

    def close(self) -> None:
        """See `Outlet.close`: it is not ours."""


def is_at(fd: int, path: Path) -> bool:
    """Tell whether the open file ``fd`` is still the one at ``path``.

    Raises:
        OSError: that cannot be looked up.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(fd)
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


def write_lines(fd: int, lines: list[bytes]) -> OSError | None:
    """Write ``lines`` to ``fd``, each whole beside those of other processes; return what went wrong."""
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            for piece in pieces(lines, PIPE_OCTETS):
                write_all(fd, piece)
        else:
            # One call: with O_APPEND it lands in one place.
            write_all(fd, b"".join(lines))
    except OSError as exc:
        return exc
    return None


def pieces(lines: list[bytes], most: int) -> list[bytes]:
    """Return ``lines`` joined to pieces of at most ``most`` octets; a longer line is one by itself."""
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
    """Write all of ``data``, waiting for whoever reads where that is needed.

    Raises:
        OSError: it cannot be written.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:  # standard output may have been made non-blocking by whoever else has it
            select.select([], [fd], [])
