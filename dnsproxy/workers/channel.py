"""One end of the socket pair between the control process and a worker. Never waits for the other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import structlog

from dnsproxy.errors import WorkerError
from dnsproxy.workers.messages import Inbox, ToControl, ToWorker, frame

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_READ_SIZE = 256 * 1024


class Channel:
    """Reads and writes ``sock`` on the running loop.

    ``take`` is called with each message, ``ended`` once when the other end has gone. At most one
    message is on its way and one waits: to an end that does not read, `send` gives up at
    once, and `offer` keeps the newest.
    """

    def __init__(
        self, sock: socket.socket, take: Callable[[object], None], ended: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._take = take
        self._ended = ended
        self._inbox = Inbox()
        self._unsent = memoryview(b"")
        self._waiting: bytes | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._receive)
        self._open = True

    def send(self, message: ToWorker | ToControl) -> bool:
        """Send now; return False when earlier ones have not been read yet, or nobody is there."""
        if not self._open or self._unsent:
            return False
        self._write(frame(message))
        return self._open

    def offer(self, framed: bytes) -> None:
        """Send as soon as the other end reads; what waits for that already is replaced."""
        if self._unsent:
            self._waiting = framed
        elif self._open:
            self._write(framed)

    def close(self) -> None:
        """Close; ``ended`` is not called."""
        if not self._open:
            return
        self._open = False
        self._unsent, self._waiting = memoryview(b""), None
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()

    def _end(self) -> None:
        if self._open:
            self.close()
            self._ended()

    def _receive(self) -> None:
        try:
            octets = self._sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._end()
            return
        try:
            messages = self._inbox.take(octets)
        except WorkerError as exc:
            log.error("worker.bad_message", reason=str(exc))  # noqa: TRY400 - the trace would show this function
            self._end()
            return
        for message in messages:
            if self._open:
                self._take(message)

    def _write(self, framed: bytes) -> None:
        self._unsent = memoryview(framed)
        self._drain()
        if self._unsent:
            self._loop.add_writer(self._sock.fileno(), self._drain)

    def _drain(self) -> None:
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                # The reader says that the other end has gone, after what that one had still to say.
                self._loop.remove_writer(self._sock.fileno())
                self._unsent, self._waiting = memoryview(b""), None
                return
            self._unsent = self._unsent[sent:]
            if not self._unsent and self._waiting is not None:
                self._unsent, self._waiting = memoryview(self._waiting), None
        self._loop.remove_writer(self._sock.fileno())
