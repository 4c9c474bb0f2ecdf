"""A nursery whose workers are ends of socket pairs in the test's own process."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from dnsproxy.errors import WorkerError
from dnsproxy.workers.channel import Channel
from dnsproxy.workers.messages import Ask, Content, NotOpened, Opened, Reply, Request, Stop, TakeBook

_NUMBER = struct.Struct("!i")


class FakeWorker:
    """Opens when it has a book, unless there is a ``refusal``; replies what ``answer`` gives, if anything."""

    def __init__(self, starter: FakeStarter, number: int, sock: socket.socket) -> None:
        self.number = number
        self.pid = 1000 * number + len(starter.started)
        self.books: list[TakeBook] = []
        self.asked: list[Request] = []
        self.is_stopped = False
        self.answer: Callable[[Request], Content | None] = starter.answer
        self.refusal = starter.refusals.pop(number, None)
        self._channel = Channel(sock, self._take, self.die)

    def _take(self, message: object) -> None:
        if isinstance(message, TakeBook):
            self.books.append(message)
            if len(self.books) == 1:
                self._open()
        elif isinstance(message, Ask):
            self.asked.append(message.request)
            content = self.answer(message.request)
            if content is not None:
                self._channel.send(Reply(message.number, content))
        elif isinstance(message, Stop):
            self.is_stopped = True
            self.die()

    def _open(self) -> None:
        if self.refusal is None:
            self._channel.send(Opened(self.pid))
        elif self.refusal:
            self._channel.send(NotOpened(self.refusal))
            self.die()

    def die(self) -> None:
        self._channel.close()


class FakeStarter:
    """``refusals`` are by number for the next start: a reason, or an empty text to say nothing at all."""

    def __init__(self, answer: Callable[[Request], Content | None]) -> None:
        self.sock, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.answer = answer
        self.refusals: dict[int, str] = {}
        self.started: list[int] = []
        self.killed: list[int] = []
        self.living: dict[int, FakeWorker] = {}
        self.has_gone = False

    def start_worker(self, number: int) -> socket.socket:
        if self.has_gone:
            raise WorkerError("gone")
        ours, theirs = socket.socketpair()
        self.started.append(number)
        assert number not in self.living, "two of one number"
        self.living[number] = FakeWorker(self, number, theirs)
        return ours

    def end_worker(self, number: int) -> None:
        if self.has_gone:
            raise WorkerError("gone")
        self.killed.append(number)
        worker = self.living.pop(number, None)
        if worker is not None:
            worker.die()
            self._theirs.send(_NUMBER.pack(number))

    def ended(self) -> tuple[int, str]:
        data = self.sock.recv(_NUMBER.size)
        if not data:
            raise WorkerError("gone")
        return int(_NUMBER.unpack(data)[0]), "exit code 1"

    def go(self) -> None:
        """End as a killed nursery does, with all its workers."""
        self.has_gone = True
        self._theirs.close()
        for worker in self.living.values():
            worker.die()

    def close(self) -> None:
        for worker in self.living.values():
            worker.die()
        self.sock.close()
        self._theirs.close()
