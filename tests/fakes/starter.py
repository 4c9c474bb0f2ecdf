"""A nursery whose workers are ends of socket pairs in the test's own process."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from dnsproxy.errors import WorkerError
from dnsproxy.workers.channel import Channel
from dnsproxy.workers.messages import (
    Ask,
    Begin,
    Content,
    NotOpened,
    Opened,
    Refit,
    Reply,
    Request,
    Stop,
    TakeNames,
    ToWorker,
)

_NUMBER = struct.Struct("!i")


class FakeWorker:
    """Opens when it has a table, unless there is a ``refusal``; replies with ``answer``, if it gives any."""

    def __init__(self, starter: FakeStarter, process: int, number: int, sock: socket.socket) -> None:
        self.process = process
        self.number = number
        self.pid = 1000 * number + len(starter.started)
        self.begun: list[Begin] = []
        self.slices: list[TakeNames] = []
        self.is_open = False
        self.stops: list[Stop] = []
        self.asked: list[Request] = []
        self.is_stopped = False
        self.answer: Callable[[Request], Content | None] = starter.answer
        self.refusal = starter.refusals.pop(number, None)
        self._channel = Channel(sock, ToWorker, self._take, self.die)

    def _take(self, message: object) -> None:
        if isinstance(message, Begin):
            self.begun.append(message)
            self._close(len(message.doors))
        elif isinstance(message, TakeNames):
            self.slices.append(message)
            if message.is_complete and not self.is_open:
                self.is_open = True
                self._open()
        elif isinstance(message, Ask):
            self.asked.append(message.request)
            if isinstance(message.request, Refit):
                self._close(len(message.request.doors))
            content = self.answer(message.request)
            if content is not None:
                self._channel.send(Reply(message.number, content))
        elif isinstance(message, Stop):
            self.is_stopped = True
            self.stops.append(message)
            self.die()

    @property
    def serials(self) -> list[int | None]:
        """Of the entries that have arrived."""
        return [entry.serial for taken in self.slices for entry in taken.entries]

    def _close(self, count: int) -> None:
        sockets = self._channel.take_sockets(count)
        assert len(sockets) == count, "a socket for each door"
        for sock in sockets:
            sock.close()

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
        self._processes: dict[int, FakeWorker] = {}
        self.has_gone = False

    def start_worker(self, process: int, number: int) -> socket.socket:
        if self.has_gone:
            raise WorkerError("gone")
        ours, theirs = socket.socketpair()
        self.started.append(number)
        self.living[number] = self._processes[process] = FakeWorker(self, process, number, theirs)
        return ours

    def end_worker(self, process: int) -> None:
        if self.has_gone:
            raise WorkerError("gone")
        worker = self._processes.pop(process, None)
        if worker is not None:
            self.killed.append(worker.number)
            if self.living.get(worker.number) is worker:
                del self.living[worker.number]
            worker.die()
            self._theirs.send(_NUMBER.pack(process))

    def ended(self) -> tuple[int, str]:
        data = self.sock.recv(_NUMBER.size)
        if not data:
            raise WorkerError("gone")
        return int(_NUMBER.unpack(data)[0]), "exit code 1"

    def go(self) -> None:
        """End as a killed nursery does, with all its workers."""
        self.has_gone = True
        self._theirs.close()
        for worker in self._processes.values():
            worker.die()

    def close(self) -> None:
        for worker in self._processes.values():
            worker.die()
        self.sock.close()
        self._theirs.close()
