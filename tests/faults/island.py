"""A loopback interface of one's own, for what would disturb others on the machine's."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.processes import run_command

# Of sched.h; Python has unshare and setns since 3.12 only.
_CLONE_NEWNET = 0x40000000
_NAMESPACE = "/proc/thread-self/ns/net"


class IslandError(Exception):
    """There is no new network namespace to be had; the text says why."""


class Island:
    """While its context lasts, this thread and all that it starts live in a network namespace of their own.

    It has a loopback interface with an MTU of ``mtu`` octets and nothing else. Needs CAP_SYS_ADMIN.
    """

    def __init__(self, mtu: int = 65_536) -> None:
        self._mtu = mtu
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._home = -1

    def __enter__(self) -> Self:
        self._home = os.open(_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        if self._libc.unshare(_CLONE_NEWNET) != 0:
            os.close(self._home)
            raise IslandError(os.strerror(ctypes.get_errno()))
        done = run_command("ip", "link", "set", "lo", "mtu", str(self._mtu), "up")
        if done.returncode != 0:
            self._leave()
            raise IslandError(done.stderr.strip())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        try:
            if self._libc.setns(self._home, _CLONE_NEWNET) != 0:
                raise IslandError(os.strerror(ctypes.get_errno()))
        finally:
            os.close(self._home)

    @staticmethod
    def set(name: str, value: int) -> None:
        """Set a variable of sysctl(8), such as ``net.ipv4.ipfrag_high_thresh``, in here only."""
        done = run_command("sysctl", "-q", "-w", f"{name}={value}")
        if done.returncode != 0:
            raise IslandError(done.stderr.strip())

    @staticmethod
    def counter(protocol: str, name: str) -> int:
        """Return one of the kernel's counters for in here, such as ``Udp`` ``NoPorts`` (RFC 1213)."""
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        head, values = (line.split() for line in lines if line.startswith(f"{protocol}:"))
        return int(values[head.index(name)])
