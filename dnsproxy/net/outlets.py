"""Where the query log goes: a file that may be rotated under it, or standard output."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from dnsproxy.errors import StartError
from dnsproxy.output import STDOUT, LineStream

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Queries tell a lot about their clients: for the owner and the group that rotates logs.
MODE = 0o640
# Without O_NONBLOCK a named pipe that nobody reads would hold the start up (fifo(7)).
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


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
        try:
            self._stream = LineStream(os.open(path, _APPEND, MODE))
        except OSError as exc:
            raise StartError(f"log.queries.file: cannot write {path}: {exc.strerror}") from exc

    def open(self) -> None:
        """See `Sink.open`: it is."""

    def reopen(self) -> None:
        """Write to what is at the path now; the old file until that can be opened.

        Raises:
            OSError: it cannot.
        """
        fd = os.open(self._path, _APPEND, MODE)
        os.close(self._stream.fd)
        self._stream = LineStream(fd)

    def write(self, batch: list[bytes]) -> int:
        """See `Sink.write`."""
        try:
            if not is_at(self._stream.fd, self._path):
                self.reopen()
        except OSError as exc:
            return self._condition.record(exc, batch)
        return self._condition.record(self._stream.write(batch), batch)

    def close(self) -> None:
        """See `Sink.close`."""
        os.close(self._stream.fd)

    def is_ready(self) -> bool:
        """See `Sink.is_ready`."""
        return self._stream.is_ready()


class StandardOutput:
    """Writes lines to standard output, whatever that is."""

    def __init__(self, fd: int = STDOUT) -> None:
        self._stream = LineStream(fd)
        self._condition = Condition("queries", "standard output")

    def open(self) -> None:
        """See `Sink.open`: it is."""

    def write(self, batch: list[bytes]) -> int:
        """See `Sink.write`."""
        return self._condition.record(self._stream.write(batch), batch)

    def close(self) -> None:
        """See `Sink.close`: other parts of the process may use it."""

    def is_ready(self) -> bool:
        """See `Sink.is_ready`."""
        return self._stream.is_ready()


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
