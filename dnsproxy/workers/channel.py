"""One end of the socket pair between the control process and a worker. Never waits for the other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

import structlog

from dnsproxy.errors import WorkerError
from dnsproxy.supervise import note_failure
from dnsproxy.workers.messages import Inbox, ToControl, ToWorker, frame

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_READ_SIZE = 256 * 1024
# Descriptors with one message: what the kernel allows (SCM_MAX_FD).
MAX_SOCKETS = 253


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
        self._enclosed: list[socket.socket] = []
        self._waiting: bytes | None = None
        self._received: list[socket.socket] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._receive)
        self._open = True

    def send(self, message: ToWorker | ToControl, sockets: Iterable[socket.socket] = ()) -> bool:
        """Send now; return False when earlier ones have not been read yet, or nobody is there.

        ``sockets`` go along, and are closed here.
        """
        enclosed = list(sockets)
        if not self._open or self._unsent:
            for sock in enclosed:
                sock.close()
            return False
        self._enclosed = enclosed
        self._write(frame(message))
        return self._open

    def take_sockets(self, count: int) -> list[socket.socket]:
        """Return the first ``count`` of the sockets that came with messages; they are the caller's now."""
        taken, self._received = self._received[:count], self._received[count:]
        return taken

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
        self._enclosed = _closed(self._enclosed)
        self._received = _closed(self._received)

    def _end(self) -> None:
        if self._open:
            self.close()
            self._ended()

    def _receive(self) -> None:
        try:
            octets, descriptors, _, _ = socket.recv_fds(self._sock, _READ_SIZE, MAX_SOCKETS)
        except BlockingIOError:
            return
        except OSError:
            octets, descriptors = b"", []
        self._received += [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if not octets:
            self._end()
            return
        try:
            messages = self._inbox.take(octets)
        except WorkerError as exc:
            log.error("worker.bad_message", reason=str(exc))  # noqa: TRY400 - the trace would show this function
            self._end()
            return
        except Exception as exc:  # noqa: BLE001 - whatever unpickling raises; what follows makes no sense either
            log.error("worker.bad_message", reason=f"{type(exc).__name__}: {exc}")  # noqa: TRY400 - the same
            self._end()
            return
        for message in messages:
            if self._open:
                try:
                    self._take(message)
                except Exception as exc:  # noqa: BLE001 - the messages after it are taken all the same
                    note_failure("worker channel", exc, detail=type(message).__name__)

    def _write(self, framed: bytes) -> None:
        self._unsent = memoryview(framed)
        self._drain()
        if self._unsent:
            self._loop.add_writer(self._sock.fileno(), self._drain)

    def _drain(self) -> None:
        while self._unsent:
            try:
                sent = self._send_some()
            except BlockingIOError:
                return
            except OSError:
                # The reader says that the other end has gone, after what that one had still to say.
                self._loop.remove_writer(self._sock.fileno())
                self._unsent, self._waiting = memoryview(b""), None
                self._enclosed = _closed(self._enclosed)
                return
            self._unsent = self._unsent[sent:]
            if not self._unsent and self._waiting is not None:
                self._unsent, self._waiting = memoryview(self._waiting), None
        self._loop.remove_writer(self._sock.fileno())

    def _send_some(self) -> int:
        if not self._enclosed:
            return self._sock.send(self._unsent)
        sent = socket.send_fds(self._sock, [self._unsent], [sock.fileno() for sock in self._enclosed])
        # They are with the first octet, and in flight they are kept open by the kernel.
        self._enclosed = _closed(self._enclosed)
        return sent


def _closed(sockets: Iterable[socket.socket]) -> list[socket.socket]:
    for sock in sockets:
        sock.close()
    return []
