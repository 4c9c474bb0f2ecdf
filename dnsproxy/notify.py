"""Tell the service manager how it goes (sd_notify(3)): ready, reloading, stopping, a line of status, alive.

A datagram to the socket that ``NOTIFY_SOCKET`` names; without it every call does nothing. The
libraries for it on PyPI are older than ``MONOTONIC_USEC``, or bind libsystemd, which containers do not have.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from dnsproxy.writer import BackgroundWriter

# Seconds that one message may wait for a manager that does not read; what is sent meanwhile waits behind it.
_SEND_SECONDS = 2.0
# Bytes of messages that may wait.
_BUFFER = 64 * 1024


class Notifier:
    """Sends to ``path``; one that starts with ``@`` is abstract (unix(7)).

    ``watchdog`` is how often, in seconds, the manager wants to hear `alive`; None when it does not.
    """

    def __init__(self, path: str = "", watchdog: float | None = None) -> None:
        self._writer = BackgroundWriter(_Socket(path), buffer=_BUFFER) if path else None
        self.watchdog = watchdog
        self._status = ""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> Notifier:
        """Return one for what the manager has asked for; its variables are taken out of ``environ``.

        They are not for the programs that this one starts.
        """
        environ = os.environ if environ is None else environ
        path = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        watchdog = None
        if path and microseconds.isdecimal() and int(microseconds) and pid in {"", str(os.getpid())}:
            watchdog = int(microseconds) / 1e6
        return cls(path if path[:1] in {"/", "@"} else "", watchdog)

    def ready(self, status: str) -> None:
        """Say that the start, or a reload, is over."""
        self._status = status
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a reload begins; `ready` ends it (``Type=notify-reload``)."""
        self._status = "reloading"
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self, status: str) -> None:
        """Say that the end begins."""
        self._status = status
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Say how it goes, in one line, where that has changed."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def alive(self) -> None:
        """Say that all is well; due twice in each ``watchdog`` seconds."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._writer is not None:
            self._writer.put("\n".join(lines).encode())


class _Socket:
    """The manager's socket, as a `writer.Sink`.

    It stays open from the first message on: without a sign of life the manager would end a program that is
    short of descriptors.
    """

    def __init__(self, path: str) -> None:
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._sock: socket.socket | None = None

    def open(self) -> None:
        """See `Sink.open`: the first message does it."""

    def write(self, batch: list[bytes]) -> int:
        """See `Sink.write`. A manager that has gone, or does not listen, gets nothing."""
        return sum(not self._send(message) for message in batch)

    def _send(self, message: bytes) -> bool:
        try:
            if self._sock is None:
                self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._sock.settimeout(_SEND_SECONDS)
            # By the path each time: a manager that starts again has another socket there.
            self._sock.sendto(message, self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """See `Sink.close`."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def __del__(self) -> None:
        self.close()

    def is_ready(self) -> bool:
        """See `Sink.is_ready`: a message waits for a bounded time only."""
        return True
