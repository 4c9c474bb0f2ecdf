"""The state of learned addresses on disk, in the form of `core.addresses.state_file`."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import tempfile
import time
from pathlib import Path

import structlog

from dnsproxy.core import seal
from dnsproxy.core.addresses.lifecycle import AddressLifecycle, OpenedSnapshot
from dnsproxy.core.addresses.state_file import restore
from dnsproxy.core.fields import Fields
from dnsproxy.core.learned import in_scope
from dnsproxy.core.trust import Trust
from dnsproxy.errors import SnapshotError, StartError
from dnsproxy.files import remove_leftovers, write_atomically

# Bytes. More than all snapshots that are kept, and what belongs to them.
MAX_STATE = 128 * 1024 * 1024
# Files set aside that are kept.
KEEP_ASIDE = 3
# Seconds that a changed answer waits for the disk.
PATIENCE = 5.0
# A signed snapshot (RFC 7515 §7.1).
_TOKEN = re.compile(r"ey[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# Bytes written to find out whether a file can be: one block of most file systems.
_PROBE = 4096
# What a disk that was good before does: it fills up, fails, or is made read-only because it fails.
DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE})

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def load_state(path: Path, state: AddressLifecycle, trust: Trust) -> list[str] | None:
    """Read the file at ``path`` into ``state``, under its policy.

    Returns what cannot be used, a text each; None where there is no file. Files of the version before, and
    the file of overrides beside it, are read as well.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        text = _read(path)
    except FileNotFoundError:
        if not overrides_path(path).exists():
            return None
        text = ""
    problems: list[str] = []
    tokens, document = _parse(path, text, problems)
    opened = []
    for token in tokens:
        try:
            opened.append(open_snapshot(token, trust))
        except SnapshotError as exc:
            problems.append(f"{exc.reason.value}: {exc}")
    if document is not None:
        try:
            restore(state, document, {entry.snapshot.issuer: entry.key_id for entry in opened})
        except SnapshotError as exc:
            problems.append(f"{path}: {exc}")
    latest = {entry.snapshot.issuer: entry for entry in opened}
    for entry in opened:
        if latest[entry.snapshot.issuer] is not entry:
            state.accept(entry)  # of the version before: it has the names that the latest lacks
    state.configure(state.policy, latest.values())
    return problems


def _parse(path: Path, text: str, problems: list[str]) -> tuple[list[str], object]:
    """Return the signed snapshots in ``text`` and the document of all else, None where there is none.

    Snapshots are signed, so each one that verifies is as good as before, whatever is damaged besides.
    """
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
            return Fields(document, "state").texts("snapshots"), document
        except (ValueError, RecursionError, SnapshotError) as exc:
            problems.append(f"{path}: {exc}")
            return _TOKEN.findall(text), None
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    tokens = [token for line in lines for token in _TOKEN.findall(line)]
    if tokens != lines:
        problems.append(f"{path}: not every line is a snapshot")
    return tokens, _read_overrides(overrides_path(path), problems)


def open_snapshot(token: str, trust: Trust) -> OpenedSnapshot:
    """Return the snapshot in ``token``, verified and reduced to what its key may speak for.

    Raises:
        SnapshotError: it cannot be used.
    """
    snapshot, scope = trust.open(token)
    ours, _ = in_scope(snapshot, scope)
    return OpenedSnapshot(ours, seal.signer(token), token)


def overrides_path(state_file: Path) -> Path:
    """Return where the version before kept what operators ordered."""
    return state_file.with_name(f"{state_file.name}.orders")


def _read_overrides(path: Path, problems: list[str]) -> object:
    try:
        return json.loads(_read(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:
        problems.append(f"{path}: {exc}")
        return None


def _read(path: Path) -> str:
    """Return the text of a file; what is no text comes back as content that does not verify."""
    with path.open("rb") as file:
        return file.read(MAX_STATE).decode("utf-8", "replace")


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


class StateFile:
    """Writes the state; one write at a time. ``failure`` is why the last one failed, None when it did not."""

    def __init__(self, path: Path, failure: str | None = None) -> None:
        self.path = path
        self.failure = failure
        self._writing: asyncio.Future[None] | None = None

    async def write(self, lines: list[str]) -> None:
        """Replace the file. Returns when it is on disk, when that failed, or after `PATIENCE` seconds.

        Never raises: a failure is logged once, until a write succeeds again.
        """
        if self._writing is not None and not await self._wait(self._writing):
            return
        try:
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._replace, lines)
        except RuntimeError as exc:  # no thread can be started
            self._note(str(exc))
            return
        await self._wait(self._writing)

    async def _wait(self, writing: asyncio.Future[None]) -> bool:
        """Wait for a write; return whether it has ended."""
        await asyncio.wait([writing], timeout=PATIENCE)
        if not writing.done():
            self._note(f"the disk has not completed a write within {PATIENCE:g} s")
            return False
        self._writing = None
        exc = writing.exception()
        self._note(None if exc is None else getattr(exc, "strerror", None) or str(exc))
        return True

    def _replace(self, lines: list[str]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self.path, "\n".join(lines).encode("utf-8"), 0o600)

    def _note(self, failure: str | None) -> None:
        if failure is not None and failure != self.failure:
            log.error("learned.state_write_failed", file=str(self.path), reason=failure)
        elif failure is None and self.failure is not None:
            log.info("learned.state_written", file=str(self.path))
        self.failure = failure
