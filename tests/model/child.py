"""Starts `dnsproxy serve` with a wall clock that a test sets, to be killed at a step of a write.

``python -m tests.model.child`` imports the program once and forks a process for each line on standard input:
``{"clock": FILE, "plan": FILE, "log": FILE, "arguments": [...]}``. It prints `started PID`, and
`ended PID CODE` when one has ended. The file of the clock holds one double, Unix time, which stands still
until the file changes. That of the plan is one line, `PLAN WRITE STEP`: the process ends in the WRITE-th
write of a state after this PLAN was written.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

CLOCK = struct.Struct("<d")
# Of one write: no temporary file, half of it, all of it but not on disk, on disk, renamed, on disk as well.
STEPS = ("begin", "half", "written", "synced", "renamed", "end")
# Seconds: the program writes ages after a minute, and looks for what is over after half of one.
REFRESH_GAP, TICK = 0.5, 0.2
_PR_SET_PDEATHSIG = 1
_clock: list[mmap.mmap] = []


def wall() -> float:
    """The wall clock of the processes; that of the machine before they are forked."""
    return float(CLOCK.unpack_from(_clock[0])[0]) if _clock else time.clock_gettime(time.CLOCK_REALTIME)


class Shim:
    """A module with some of its functions replaced."""

    def __init__(self, module: ModuleType, **replaced: Callable[..., Any]) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class Killer:
    """Kills this process at a step of a write."""

    def __init__(self) -> None:
        self.plan_file = Path(os.devnull)
        self._plan = ""
        self._writes = 0
        self._step: str | None = None

    def install(self) -> None:
        """Take part in every write of `dnsproxy.files`."""
        from dnsproxy import files  # noqa: PLC0415 - after the clock is replaced

        write = files.write_atomically

        def write_atomically(*arguments: Any) -> None:
            write(*arguments)
            self._reach("end")

        vars(files).update(
            write_atomically=write_atomically,
            tempfile=Shim(tempfile, mkstemp=self._make),
            os=Shim(os, fdopen=self._open, fsync=self._sync),
            Path=lambda path: SimpleNamespace(
                replace=lambda target: self._rename(Path(path), target), unlink=Path(path).unlink
            ),
        )

    def _begin(self) -> None:
        plan, number, step = self.plan_file.read_text().split()
        if plan != self._plan:
            self._plan, self._writes = plan, 0
        self._writes += 1
        self._step = step if self._writes == int(number) else None

    def _reach(self, step: str) -> None:
        if self._step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def _make(self, *arguments: Any, **options: Any) -> tuple[int, str]:
        self._begin()
        self._reach("begin")
        return tempfile.mkstemp(*arguments, **options)

    def _open(self, descriptor: int, mode: str) -> Any:
        file = os.fdopen(descriptor, mode)
        if self._step != "half":
            return file

        def write(content: bytes) -> None:
            os.write(descriptor, content[: len(content) // 2])
            self._reach("half")

        return _Half(file, write)

    def _sync(self, descriptor: int) -> None:
        self._reach("written")
        os.fsync(descriptor)

    def _rename(self, path: Path, target: Path) -> None:
        self._reach("synced")
        path.replace(target)
        self._reach("renamed")


class _Half:
    """A file whose first write is its last."""

    def __init__(self, file: Any, write: Callable[[bytes], None]) -> None:
        self._file = file
        self.write = write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _become(order: Mapping[str, Any], killer: Killer) -> None:
    """Be the program, in a fork."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    with Path(order["clock"]).open("rb") as file:
        _clock.append(mmap.mmap(file.fileno(), CLOCK.size, prot=mmap.PROT_READ))
    killer.plan_file = Path(order["plan"])
    sys.argv = ["dnsproxy", *order["arguments"]]

    from dnsproxy import cli  # noqa: PLC0415 - after the clock is replaced

    cli.main()


def _tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def _prepare() -> Killer:
    time.time = wall
    killer = Killer()
    killer.install()

    from dnsproxy import address_service, app, daemon  # noqa: F401, PLC0415 - after the clock is replaced
    from dnsproxy.net import source_etcd, source_file, source_http  # noqa: F401, PLC0415
    from dnsproxy.workers import start  # noqa: F401, PLC0415

    vars(address_service).update(REFRESH_GAP=REFRESH_GAP, TICK=TICK)
    # The clock stands still between two steps: that it does is not one.
    vars(address_service)["AddressService"]._clock_offset = lambda _service: wall()
    return killer


def main() -> None:
    killer = _prepare()
    running: set[int] = set()
    while True:
        if select.select([0], [], [], 0.02)[0]:
            line = sys.stdin.readline()
            if not line:
                break
            pid = os.fork()
            if pid == 0:
                _become(json.loads(line), killer)
                os._exit(1)
            running.add(pid)
            _tell("started", pid)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                _tell("ended", pid, os.waitstatus_to_exitcode(status))
    for pid in running:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
