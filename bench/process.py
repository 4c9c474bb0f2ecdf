"""Children: started on one core, measured through /proc, stopped by process id."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

TICK = os.sysconf("SC_CLK_TCK")
_CLOCK_OF_PROCESS = 2  # CPUCLOCK_SCHED of the kernel's include/linux/posix-timers.h
STOP_SECONDS = 1.0  # a benchmarked server holds nothing that a longer farewell would save


class Child:
    """A program in the foreground on one core, with its output in a file.

    Leaving the `with` block stops it; should this program be killed, the
    kernel stops it (`setpriv --pdeathsig`).
    """

    def __init__(self, command: Sequence[str], *, core: int, log: Path, cwd: Path | None = None) -> None:
        self.command = tuple(command)
        self.log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603 - the commands are this package's own
                pinned(command, core),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id; `setpriv` and `taskset` replace themselves, so it is the program's own."""
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether the program still runs."""
        return self._process.poll() is None

    def hold(self, cores: Collection[int]) -> None:
        """Bind all processes and threads that it has now to ``cores``, even those that chose another."""
        for pid in tree(self.pid):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores)

    def stop(self) -> None:
        """Ask the program to end, then end it and whatever it started."""
        family = tree(self.pid) if self.alive() else []
        self._process.terminate()
        # A half-started server may not have seen the signal: a bounded wait, then the end.
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in family[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cpu_seconds(self) -> float:
        """Return the processor time that the program and its children have used, finished ones included."""
        return sum(cpu_seconds(pid) for pid in tree(self.pid))

    def memory(self, field: str = "VmRSS") -> int:
        """Return ``VmRSS`` (now) or ``VmHWM`` (peak) in bytes, summed over the process tree."""
        return sum(memory(pid, field) for pid in tree(self.pid))

    def said(self) -> str:
        """Return the end of its output, for a message about a failure."""
        return self.log.read_text(errors="replace")[-2_000:]


def pinned(command: Sequence[str], core: int) -> list[str]:
    """Return ``command`` bound to one core, ending when this program ends."""
    return ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *command]


def ended(pid: int, seconds: float) -> bool:
    """Tell whether a child ends within ``seconds``; it is not collected, for its times are read later."""
    descriptor = os.pidfd_open(pid)
    try:
        readable, _, _ = select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)
    return bool(readable)


def stat_fields(text: str) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on; the name before may hold anything."""
    return text.rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """Return ``root`` and every process below it, parents first."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(stat_fields((entry / "stat").read_text())[1])
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system time of all threads, and of children that it has waited for; 0 if gone.

    Its own time is that of its clock (clock_getcpuclockid(3)), to the nanosecond; in /proc/<pid>/stat it
    stands in hundredths of a second, 3 % of what a short run takes.
    """
    try:
        waited_for = stat_fields(Path(f"/proc/{pid}/stat").read_text())[13:15]
        own = time.clock_gettime(~pid << 3 | _CLOCK_OF_PROCESS)
    except OSError:
        return 0.0
    return own + sum(int(field) for field in waited_for) / TICK


def busy_seconds(stat: str) -> float:
    """Return the time that all processors were busy, from the text of /proc/stat."""
    fields = [int(field) for field in stat.splitlines()[0].split()[1:]]
    idle_and_waiting = sum(fields[3:5])
    guests = sum(fields[8:])  # counted in user time as well
    return (sum(fields) - idle_and_waiting - guests) / TICK


def memory(pid: int, field: str) -> int:
    """Return a field of /proc/<pid>/status in bytes; 0 if the process has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll ``condition`` until it is true.

    Raises:
        TimeoutError: naming ``what``, when it is not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.002)
