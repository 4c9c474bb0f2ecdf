"""One end of the socket pair between the control process and a worker. Never waits for the other end."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from dnsproxy.errors import MessageError
from dnsproxy.supervise import note_failure
from dnsproxy.workers.messages import Inbox, ToControl, ToWorker, frame

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_READ_SIZE = 256 * 1024
# Descriptors with one message: what the kernel allows (SCM_MAX_FD).
MAX_SOCKETS = 253
# Messages that wait behind a slice of the table.
MAX_QUEUED = 16


class Channel:
    """Reads messages of ``kind`` from ``sock`` on the running loop, and writes others.

    ``take`` is called with each message, one in a turn of the loop, and ``ended`` once when the other end has
    gone. `send` writes at once, and gives up when the other end does not read. ``feed`` returns what to send
    when nothing else is to be sent, a slice of the table; messages go before the next slice.
    """

    def __init__(
        self,
        sock: socket.socket,
        kind: Any,  # noqa: ANN401 - `ToWorker` or `ToControl`
        take: Callable[[object], None],
        ended: Callable[[], None],
        feed: Callable[[], bytes | None] | None = None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._take = take
        self._ended = ended
        self._feed = feed
        # A worker that clients have taken over must not fill the table of descriptors of the control process.
        self._takes_sockets = kind is ToWorker
        self._inbox = Inbox(kind)
        self._unsent = memoryview(b"")
        self._enclosed: list[socket.socket] = []
        self._is_slice = False
        self._queued: deque[tuple[bytes, list[socket.socket]]] = deque()
        self._received: list[socket.socket] = []
        self._is_turn_due = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._receive)
        self._open = True

    def send(self, message: ToWorker | ToControl, sockets: Iterable[socket.socket] = ()) -> bool:
        """Send now; return False when earlier messages have not been read yet, or the other end has gone.

        ``sockets`` are sent with it, and are closed here.

        Raises:
            MessageError: it is too large.
        """
        enclosed = list(sockets)
        waits = bool(self._unsent)
        if not self._open or (waits and not (self._is_slice and len(self._queued) < MAX_QUEUED)):
            _close(enclosed)
            return False
        try:
            framed = frame(message)
        except MessageError:
            _close(enclosed)
            raise
        if waits:
            self._queued.append((framed, enclosed))
        else:
            self._write(framed, enclosed)
        return self._open

    def offer(self) -> None:
        """Send what the feed has as soon as the other end reads."""
        if self._open and not self._unsent:
            self._send_slice()

    def take_sockets(self, count: int) -> list[socket.socket]:
        """Return the first ``count`` of the sockets that came with messages; they are the caller's now."""
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def close(self) -> None:
        """Close; ``ended`` is not called."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._drop_unsent()
        _close(self._received)
        self._received = []

    def _drop_unsent(self) -> None:
        self._unsent = memoryview(b"")
        _close(self._enclosed)
        self._enclosed = []
        for _, enclosed in self._queued:
            _close(enclosed)
        self._queued.clear()

    def _end(self) -> None:
        if self._open:
            self.close()
            self._ended()

    # -- reading -------------------------------------------------------------------------------

    def _receive(self) -> None:
        if not self._inbox.has_message and not self._read():
            return
        if self._inbox.has_message and not self._is_turn_due:
            self._is_turn_due = True
            self._turn()

    def _read(self) -> bool:
        try:
            if self._takes_sockets:
                received, descriptors, _, _ = socket.recv_fds(self._sock, _READ_SIZE, MAX_SOCKETS)
                self._received += [socket.socket(fileno=descriptor) for descriptor in descriptors]
            else:
                received = self._sock.recv(_READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            received = b""
        if not received:
            self._end()
            return False
        self._inbox.add(received)
        return True

    def _turn(self) -> None:
        """Take one message; the next in another turn of the loop: queries have theirs between."""
        self._is_turn_due = False
        if not self._open:
            return
        try:
            message = self._inbox.next()
        except MessageError as exc:
            log.error("worker.bad_message", reason=str(exc))  # noqa: TRY400 - the trace would show this function
            self._end()
            return
        try:
            self._take(message)
        except Exception as exc:  # noqa: BLE001 - the messages after it are taken all the same
            note_failure("worker channel", exc, detail=type(message).__name__)
        if self._open and self._inbox.has_message:
            self._is_turn_due = True
            self._loop.call_soon(self._turn)

    # -- writing -------------------------------------------------------------------------------

    def _write(self, framed: bytes, enclosed: list[socket.socket], *, is_slice: bool = False) -> None:
        self._unsent, self._enclosed, self._is_slice = memoryview(framed), enclosed, is_slice
        self._drain()

    def _send_slice(self) -> None:
        framed = None if self._feed is None else self._feed()
        if framed is not None:
            self._write(framed, [], is_slice=True)
        else:
            self._loop.remove_writer(self._sock.fileno())

    def _writable(self) -> None:
        """Continue; at most one slice is made in a turn of the loop."""
        if self._unsent:
            self._drain()
        else:
            self._send_slice()

    def _drain(self) -> None:
        while self._unsent:
            try:
                sent = self._send_some()
            except BlockingIOError:
                break
            except OSError:
                # Reading finds that the other end has gone, after what that one had still to say.
                self._loop.remove_writer(self._sock.fileno())
                self._drop_unsent()
                return
            self._unsent = self._unsent[sent:]
            if not self._unsent and self._queued:
                framed, self._enclosed = self._queued.popleft()
                self._unsent, self._is_slice = memoryview(framed), False
        if self._unsent or self._feed is not None:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._sock.fileno())

    def _send_some(self) -> int:
        if not self._enclosed:
            return self._sock.send(self._unsent)
        sent = socket.send_fds(self._sock, [self._unsent], [sock.fileno() for sock in self._enclosed])
        # They are with the first byte, and in flight they are kept open by the kernel.
        _close(self._enclosed)
        self._enclosed = []
        return sent


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
