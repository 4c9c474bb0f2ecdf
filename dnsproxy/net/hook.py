"""Run the operator's program when addresses change: one at a time, with the newest state.

The next run reports what changes while it runs. It has its own process group, which ends with it, at the time
limit, or with the proxy.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from dnsproxy.core.addresses.change_event import NameStatus, change_event
from dnsproxy.errors import StartError

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds that a run may take, and that it has after SIGTERM.
LIMIT = 30.0
GRACE = 2.0
# Octets of its output that go to the log; the rest is read and forgotten.
MAX_OUTPUT = 4096


def check_program(path: Path) -> None:
    """See that ``path`` can be run.

    Raises:
        StartError: it is missing, no file, or not executable; the message is one line.
    """
    reason = None
    if not path.exists():
        reason = "No such file or directory"
    elif not path.is_file():
        reason = "not a file"
    elif not os.access(path, os.X_OK):
        reason = "not executable; run: chmod +x"
    if reason:
        raise StartError(f"learn.on_change: {path}: {reason}")


class Hook:
    """Runs ``path``, if there is one, after each `offer` that changes something; ``limit`` is in seconds."""

    def __init__(self, path: Path | None, limit: float = LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._reported: Mapping[str, NameStatus] = {}
        self._newest: tuple[Mapping[str, NameStatus], int, bool] | None = None
        self._offered = asyncio.Event()

    @property
    def is_wanted(self) -> bool:
        """Whether there is a program."""
        return self._path is not None

    def change(self, path: Path | None) -> None:
        """Run another program from now on; it gets an event with every name first."""
        if path != self._path:
            self._path, self._reported = path, {}

    def offer(self, statuses: Mapping[str, NameStatus], serial: int, *, frozen: bool) -> None:
        """Report ``statuses``, in place of those that still wait."""
        self._newest = statuses, serial, frozen
        self._offered.set()

    async def run(self) -> None:
        """Report what is offered until cancelled; then the program that runs is ended."""
        while True:
            await self._offered.wait()
            self._offered.clear()
            if self._newest is None or self._path is None:
                continue
            statuses, serial, frozen = self._newest
            before = self._reported
            document = change_event(before, statuses, serial=serial, frozen=frozen)
            # Reported once, also when the program fails: its next run may depend on what it did.
            self._reported = statuses
            if document is None:
                continue
            try:
                await self._report(document)
            except BaseException:
                # Reported again when `run` is called again.
                self._reported = before
                self._offered.set()
                raise

    async def _report(self, document: dict[str, Any]) -> None:
        started = asyncio.get_running_loop().time()
        try:
            code, output = await self._run(json.dumps(document).encode() + b"\n")
        except (OSError, RuntimeError) as exc:  # RuntimeError: no thread can be started
            reason = getattr(exc, "strerror", None) or str(exc)
            log.warning("learned.hook_failed", program=str(self._path), reason=reason)
            return
        seconds = round(asyncio.get_running_loop().time() - started, 3)
        facts = {"program": str(self._path), "seconds": seconds, "output": output}
        if code == 0:
            log.info("learned.hook_done", **facts)
        else:
            reason = f"ended by the limit of {self._limit:g} s" if code is None else f"exit code {code}"
            log.warning("learned.hook_failed", reason=reason, **facts)

    async def _run(self, document: bytes) -> tuple[int | None, str]:
        """Return exit code (negative for a signal, None at the time limit) and output."""
        # A file in memory: a program that does not read its input cannot hold anything up.
        given = os.memfd_create("dnsproxy-change", os.MFD_CLOEXEC)
        try:
            reading, writing = os.pipe()
        except OSError:
            os.close(given)
            raise
        try:
            os.write(given, document)
            os.lseek(given, 0, os.SEEK_SET)
            process = await asyncio.create_subprocess_exec(
                str(self._path), stdin=given, stdout=writing, stderr=writing, process_group=0
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(given)
            os.close(writing)
        output = _Output(reading)
        try:
            async with asyncio.timeout(self._limit):
                return await process.wait(), output.text()
        except TimeoutError:
            return None, output.text()
        finally:
            await _end(process)
            output.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End what is left of the process group."""
    ending = signal.SIGTERM if process.returncode is None else signal.SIGKILL
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, ending)
    if process.returncode is not None:
        return
    try:
        async with asyncio.timeout(GRACE):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


class _Output:
    """The first octets that come out of a pipe; what follows is read and forgotten."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept = bytearray()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> bool:
        try:
            octets = os.read(self._descriptor, 65_536)
        except BlockingIOError:
            return False
        if not octets:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._kept += octets[: MAX_OUTPUT - len(self._kept)]
        return bool(octets)

    def text(self) -> str:
        """Return what has come, as text."""
        # Enough for what a pipe holds when the program has just ended.
        for _ in range(16):
            if not self._read():
                break
        return self._kept.decode("utf-8", "replace").strip()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
