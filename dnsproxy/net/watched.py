"""The listeners for UDP and TCP when queries are written down.

A subclass of each, chosen when the sockets are opened: the usual one has no test for it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from time import monotonic, time

from dnsproxy.core.budget import MemoryBudget
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.seen import Seen, receive_counted
from dnsproxy.core.wire import Query
from dnsproxy.errors import DropReason
from dnsproxy.net.connection import Connection
from dnsproxy.net.datagrams import Token
from dnsproxy.net.loop import Readiness
from dnsproxy.net.udp import UdpListener
from dnsproxy.net.upstream import Forwarder
from dnsproxy.net.watch import Awaited, Watch


class WatchedUdpListener(UdpListener):
    """A `UdpListener` that tells ``watch`` of each query."""

    def __init__(
        self,
        engine: Engine,
        forwarder: Forwarder,
        host: str,
        port: int,
        watch: Watch,
        *,
        sock: socket.socket | None = None,
    ) -> None:
        self._watch = watch
        super().__init__(engine, forwarder, host, port, sock=sock)
        self._server, self._server_port = server_of(self._sock)

    def _expect_proxies(self, engine: Engine) -> None:
        super()._expect_proxies(engine)
        self._batch = None  # so that every message comes by `_answer`

    def _answer(self, messages: list[bytes], sources: Sequence[bytes]) -> None:
        now = monotonic()
        wall = time()
        engine, watch, datagrams = self._engine, self._watch, self._datagrams
        steps: list[object] = []
        answered: list[tuple[Seen, bytes, int]] = []
        count = 0
        for index, (data, source) in enumerate(zip(messages, sources, strict=True)):
            step, number = receive_counted(engine, data, source, now, tcp=False)
            steps.append(step)
            seen = watch.begin("udp", source, datagrams.port(index), data, now, wall)
            if seen is not None:
                seen.server, seen.server_port = self._server, self._server_port
            if isinstance(step, bytes):
                count += 1
                if seen is not None:
                    answered.append((seen, step, number))
            elif isinstance(step, Forward):
                self._wait(step, datagrams.token(index), seen, now)
            elif seen is not None:
                watch.drop(seen, step, now)
        if count:
            self._count_failed(datagrams.answer(steps))
        sent = monotonic()
        engine.times.record(sent - now, count)
        for seen, response, number in answered:
            watch.end(seen, response, number, sent)

    def _wait(self, step: Forward, token: Token, seen: Seen | None, now: float) -> None:
        if seen is None:
            self._forwarder.submit(step, self._respond, token, now)
        elif not self._forwarder.submit(step, self._respond_watched, Awaited(token, seen, step), now):
            self._watch.drop(seen, DropReason.DUPLICATE, now)

    def _respond_watched(self, awaited: Awaited, response: bytes, query: Query) -> None:
        self._respond(awaited.token, response, query)
        self._watch.end_forwarded(awaited, response, monotonic())


class WatchedConnection(Connection):
    """A `Connection` that tells ``watch`` of each query."""

    def __init__(
        self,
        sock: socket.socket,
        source: bytes,
        engine: Engine,
        forwarder: Forwarder,
        ready: Readiness,
        buffers: MemoryBudget,
        forget: Callable[[Connection], None],
        watch: Watch,
    ) -> None:
        self._watch = watch
        self._client_port = port_of(sock)
        self._server, self._server_port = server_of(sock)
        super().__init__(sock, source, engine, forwarder, ready, buffers, forget)

    def come_by(self, peer: bytes, port: int) -> None:
        """See `Connection.come_by`."""
        super().come_by(peer, port)
        self._client_port = port

    def _take(self, message: bytes, now: float) -> bool:
        step, number = receive_counted(self._engine, message, self.source, now, tcp=True)
        seen = self._watch.begin("tcp", self.source, self._client_port, message, now, time())
        if seen is not None:
            seen.server, seen.server_port = self._server, self._server_port
        if isinstance(step, bytes):
            self._put(message, step)
            if seen is not None:
                self._watch.end(seen, step, number, monotonic())
            return True
        if isinstance(step, Forward):
            self._waiting += 1
            if seen is None:
                self._forwarder.submit(step, self._respond, None, now)
            else:
                self._forwarder.submit(step, self._respond_watched, Awaited(None, seen, step), now)
        elif seen is not None:
            self._watch.drop(seen, step, now)
        return False

    def _respond_watched(self, awaited: Awaited, response: bytes, query: Query) -> None:
        self._respond(None, response, query)
        self._watch.end_forwarded(awaited, response, monotonic())


def port_of(sock: socket.socket) -> int:
    """Return the port of the other end; 0 when it has gone already."""
    try:
        return int(sock.getpeername()[1])
    except OSError:
        return 0


def server_of(sock: socket.socket) -> tuple[bytes, int]:
    """Return the packed address and the port of ``sock``; no address where it is bound to all."""
    name = sock.getsockname()
    address = socket.inet_pton(sock.family, str(name[0]).partition("%")[0])
    return (address if any(address) else b""), int(name[1])
