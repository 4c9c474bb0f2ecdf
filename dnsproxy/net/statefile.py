"""The last known good on disk: one signed snapshot (JWS) per line, oldest first.

The file is replaced whole or not at all. What is in it is checked by whoever
reads it; here it is only text.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from dnsproxy.errors import StartError
from dnsproxy.files import remove_leftovers, write_atomically

# Octets. Eight snapshots of the largest size that a source may send.
MAX_STATE = 64 * 1024 * 1024
# Files set aside that are kept.
KEEP_ASIDE = 3
# Seconds between two writes that change no address, and before a failed write is tried again.
REFRESH_GAP = 60.0
# Octets written to see whether a file can be: one block of most file systems.
_PROBE = 4096
# What a disk that was good before does: it fills up, fails, or is made read-only because it fails.
DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE})

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def read_state(path: Path) -> list[str]:
    """Return the tokens in ``path``; none when there is no such file.

    Torn or foreign content comes back as tokens that do not verify.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_STATE)
    except FileNotFoundError:
        return []
    lines = (line.decode("utf-8", "replace").strip() for line in content.split(b"\n"))
    return [line for line in lines if line]


def write_state(path: Path, tokens: Sequence[str]) -> None:
    """Put ``tokens`` in place of the file at ``path``, on disk when this returns; mode 0600.

    A folder that has gone is made again.

    Raises:
        OSError: the folder cannot be written; the old file is as it was.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, "".join(f"{token}\n" for token in tokens).encode("utf-8"), 0o600)


def set_aside(path: Path, wall_now: float) -> Path | None:
    """Keep the file at ``path`` as ``<name>.bad-<Unix time>``; return that path, None if it cannot be kept.

    A second name for the same file, not a move: until its replacement is
    written, what is good in it is still where the next start looks. Only on a
    file system without hard links is it moved. The newest three are kept.
    """
    try:
        earlier = _set_aside_before(path)
        # Above all others, also within one second or after the clock was set back.
        stamp = max([int(wall_now), *(taken + 1 for taken, _ in earlier)])
        aside = path.with_name(f"{path.name}.bad-{stamp}")
        try:
            aside.hardlink_to(path)
        except OSError:
            path.rename(aside)
        for _, old in earlier[: -KEEP_ASIDE + 1]:
            old.unlink()
    except OSError as exc:
        # A traceback would say nothing more than the system's reason.
        log.error("learned.state_set_aside_failed", file=str(path), reason=exc.strerror or str(exc))  # noqa: TRY400
        return None
    log.warning("learned.state_set_aside", file=str(path), kept_as=str(aside))
    return aside


def _set_aside_before(path: Path) -> list[tuple[int, Path]]:
    """Return stamp and path of the files set aside for ``path``, oldest first."""
    pattern = re.compile(re.escape(path.name) + r"\.bad-([0-9]{1,20})")
    return sorted(
        (int(match[1]), entry) for entry in path.parent.iterdir() if (match := pattern.fullmatch(entry.name))
    )


def check_writable(path: Path) -> str | None:
    """Make the folder of ``path`` if need be, and see that a file can be written there.

    Where there is a state to answer from, a disk that has failed since does not keep the
    program from starting: the reason is logged and returned.

    Raises:
        StartError: it cannot; the message is one line.
    """
    remove_leftovers(path, time.time())
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent) as file:
            # A full disk still takes an empty file, and some tell only when it is synced.
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        reason = exc.strerror or str(exc)
        if exc.errno not in DISK_FAULTS or not path.is_file():
            raise StartError(f"learn.state_file: {path}: cannot be written: {reason}") from exc
        log.error("learned.state_write_failed", file=str(path), reason=reason)  # noqa: TRY400 - the same
        return reason
    return None


class StateWriter:
    """Writes the state in the background: changed addresses at once, mere refreshes at most once a minute.

    A write that fails is logged and tried again with the next change or after
    a minute; it is never an error of the caller, whose memory stays right. ``failure``
    is what was wrong with the disk already.
    """

    def __init__(
        self, path: Path, monotonic: Callable[[], float] = time.monotonic, failure: str | None = None
    ) -> None:
        self._path = path
        self._monotonic = monotonic
        self._pending: list[str] | None = None
        self._due = math.inf
        self._written_at = -math.inf
        self._offered = asyncio.Event()
        self._writing: asyncio.Future[None] | None = None
        self._failure = failure

    @property
    def delay(self) -> float:
        """Seconds until the next write; infinite when nothing waits to be written."""
        return max(0.0, self._due - self._monotonic())

    @property
    def failure(self) -> str | None:
        """Why the last write failed; None when it did not."""
        return self._failure

    def offer(self, tokens: list[str], *, urgent: bool) -> None:
        """Have ``tokens`` written, soon when ``urgent``; they replace what still waits."""
        self._pending = tokens
        due = -math.inf if urgent else self._written_at + REFRESH_GAP
        self._due = min(self._due, due)
        self._offered.set()

    async def run(self) -> None:
        """Write what is offered until cancelled."""
        while True:
            self._offered.clear()
            delay = self.delay
            if delay > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay if delay < math.inf else None):
                        await self._offered.wait()
            else:
                await self.flush()

    async def flush(self) -> None:
        """Write what waits to be written, if anything."""
        if self._writing is not None:
            # A cancelled `run` leaves its write behind, which must not end after this one.
            await asyncio.wait([self._writing])
        tokens, self._pending, self._due = self._pending, None, math.inf
        if tokens is None:
            return
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._write, tokens)
        try:
            await asyncio.shield(self._writing)
        except BaseException:
            self._pending = self._pending or tokens
            raise
        if self._failure is not None:
            self._pending = self._pending or tokens
            self._due = min(self._due, self._monotonic() + REFRESH_GAP)

    def _write(self, tokens: list[str]) -> None:
        try:
            write_state(self._path, tokens)
        except OSError as exc:
            reason = exc.strerror or str(exc)
            if reason != self._failure:
                log.error("learned.state_write_failed", file=str(self._path), reason=reason)  # noqa: TRY400 - the same
            self._failure = reason
        else:
            if self._failure is not None:
                log.info("learned.state_written", file=str(self._path))
            self._failure = None
            self._written_at = self._monotonic()
