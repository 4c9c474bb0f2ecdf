"""The TCP listener: messages with a two-octet length, many per connection (RFC 7766).

On sockets of its own rather than asyncio's transports: those cost 60 us more per query.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING, Final

from dnsproxy.core.engine import Engine
from dnsproxy.core.places import Place, Places
from dnsproxy.errors import DropReason, WireError
from dnsproxy.net import connection
from dnsproxy.net.heap import trim
from dnsproxy.net.loop import Readiness
from dnsproxy.net.proxied import receive_header
from dnsproxy.net.stream import (
    EXHAUSTED_SECONDS,
    IDLE_LOOKS,
    TCP_CLIENTS,
    Greeting,
    bound_address,
    bound_buffers,
    displace,
    expects_header,
    listen,
    may_stay,
    note_exhausted,
)
from dnsproxy.net.upstream import Forwarder

if TYPE_CHECKING:
    from dnsproxy.net.watch import Watch

# Connections taken per wake-up before other sockets get their turn.
_ACCEPTS: Final = 32
# So many times at the end, for all that a full backlog holds.
_LAST_ACCEPTS: Final = 16


class TcpListener:
    """One listening socket; ``places`` are shared by all of them. ``watch`` is told of each query."""

    def __init__(
        self, engine: Engine, forwarder: Forwarder, places: Places, watch: Watch | None = None
    ) -> None:
        self._watch = watch
        self.engine = engine
        self.forwarder = forwarder
        self._places = places
        self._connections: set[connection.Connection] = set()
        self._greetings: set[asyncio.Task[None]] = set()
        self._sock: socket.socket | None = None
        self._ready = Readiness()
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None

    async def open(self, host: str = "", port: int = 0, *, sock: socket.socket | None = None) -> None:
        """Bind, or take ``sock``, which listens and does not block, and accept.

        Raises:
            StartError: the address cannot be bound.
        """
        self._sock = bound_buffers(listen("tcp", host, port, reuse_port=False) if sock is None else sock)
        self._ready.add(self._sock.fileno(), self._accept)

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are really bound."""
        return bound_address(self._sock)

    def _accept(self) -> None:
        if self._sock is None:
            return
        for _ in range(_ACCEPTS):
            try:
                sock, peer = self._sock.accept()
            except OSError as exc:  # nobody waits any more, or the client has gone again
                if note_exhausted(TCP_CLIENTS, exc, self.engine.stats.local_failures):
                    self._ready.remove(self._sock.fileno())
                    self._pause = self._loop.call_later(EXHAUSTED_SECONDS, self._resume)
                return
            source = ip_address(str(peer[0]).partition("%")[0]).packed
            if not self.engine.admits(source):
                sock.close()
                continue
            proxied = expects_header(self.engine, source)
            place = self._places.take(source, proxied=proxied)
            if not isinstance(place, Place):
                # The client may retry, or use UDP.
                self.engine.stats.drops[place] += 1
                sock.close()
                continue
            displace(place, self.engine)
            if proxied:
                self._greet(sock, source, place)
            else:
                self._admit(sock, source, place)

    def _resume(self) -> None:
        self._pause = None
        if self._sock is not None:
            self._ready.add(self._sock.fileno(), self._accept)

    def _greet(self, sock: socket.socket, peer: bytes, place: Place) -> None:
        greeting = Greeting(place)
        task = greeting.task = self._loop.create_task(self._receive_header(sock, peer, greeting))
        self._greetings.add(task)
        task.add_done_callback(partial(self._end_greeting, sock, greeting))

    def _end_greeting(self, sock: socket.socket, greeting: Greeting, task: asyncio.Task[None]) -> None:
        self._greetings.discard(task)
        if greeting.place.holder is greeting:
            sock.close()
            self._places.leave(greeting.place)

    async def _receive_header(self, sock: socket.socket, peer: bytes, greeting: Greeting) -> None:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(connection.IDLE_SECONDS):
                header = await receive_header(sock)
        except (OSError, WireError):  # TimeoutError is an OSError
            self.engine.stats.drops[DropReason.PROXY_HEADER] += 1
            return
        source = greeting.client(header, peer, self.engine, self._places)
        if source is not None:
            client = self._admit(sock, source, greeting.place)
            if header.address:
                client.come_by(peer, header.port)

    def _admit(self, sock: socket.socket, source: bytes, place: Place) -> connection.Connection:
        try:
            client = place.holder = self._connection(sock, source, place)
        except Exception:  # the kernel watches no more sockets (epoll(7), max_user_watches)
            self._places.leave(place)
            sock.close()
            raise
        self._connections.add(client)
        if self._sweep is None:
            self._sweep = self._loop.call_later(connection.IDLE_SECONDS / IDLE_LOOKS, self._close_idle)
        return client

    def _connection(self, sock: socket.socket, source: bytes, place: Place) -> connection.Connection:
        forget = partial(self._forget, place)
        if self._watch is None:
            return connection.Connection(
                sock, source, self.engine, self.forwarder, self._ready, self._places.buffers, forget
            )
        from dnsproxy.net.watched import WatchedConnection  # noqa: PLC0415 - few proxies watch

        return WatchedConnection(
            sock,
            source,
            self.engine,
            self.forwarder,
            self._ready,
            self._places.buffers,
            forget,
            self._watch,
        )

    def _forget(self, place: Place, client: connection.Connection) -> None:
        self._connections.discard(client)
        self._places.leave(place)
        # Each refers to the other: without this they would stay until a collection of garbage.
        place.holder = None

    def _close_idle(self) -> None:
        now = monotonic()
        for client in list(self._connections):
            client.close_if_idle(now)
        later = trim(self._places.buffers)
        again = (
            self._loop.call_later(connection.IDLE_SECONDS / IDLE_LOOKS, self._close_idle)
            if self._connections or later
            else None
        )
        self._sweep = again

    def refit(self, engine: Engine, forwarder: Forwarder) -> None:
        """Have these answer from the next query on; what waits is answered by those before.

        Connections of clients that ``engine`` does not admit are closed.
        """
        self.engine = engine
        self.forwarder = forwarder
        for client in list(self._connections):
            client.refit(engine, forwarder)
            if not may_stay(engine, client.source, client.peer):
                client.finish()

    def finish(self) -> None:
        """Take the connections that wait to be accepted, and no more."""
        if self._sock is None:
            return
        for _ in range(_LAST_ACCEPTS):
            if self._pause is None:
                self._accept()
        self._stop_accepting()

    @property
    def has_clients(self) -> bool:
        """Whether a connection is open, or being made."""
        return bool(self._greetings or self._connections)

    def is_busy(self, since: float) -> bool:
        """Tell whether a client waits for an answer, or has asked anything since ``since``."""
        return bool(self._greetings) or any(client.is_busy(since) for client in self._connections)

    def _stop_accepting(self) -> None:
        if self._sock is None:
            return
        if self._pause is None:
            self._ready.remove(self._sock.fileno())
        else:
            self._pause.cancel()
            self._pause = None
        self._sock.close()
        self._sock = None

    async def close(self) -> None:
        """Stop accepting; end the connections, in good order where nothing waits."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._stop_accepting()
        for task in self._greetings:
            task.cancel()
        await asyncio.gather(*self._greetings, return_exceptions=True)
        for client in list(self._connections):
            client.finish()
