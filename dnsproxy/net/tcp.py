"""The TCP listener: messages with a two-octet length, many per connection (RFC 7766)."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from ipaddress import ip_address
from time import monotonic

from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.wire import Query
from dnsproxy.errors import DropReason, StartError
from dnsproxy.net.upstream import Forwarder

# Seconds without a whole message after which a connection is closed (RFC 7766 §6.2.3
# leaves the number to us; unbound's and BIND's are 30 s, but with a cap on clients less is fairer).
IDLE_SECONDS = 10.0
# A client that does not read: what it has not taken is at most this much, in octets.
MAX_UNREAD = 256 * 1024
# Queries of one connection that may wait for upstreams at a time.
MAX_WAITING = 128
_LENGTH = struct.Struct(">H")
_HEADER = 12


class _Connection(asyncio.Protocol):
    """One client. Responses go out as they come, in any order (RFC 7766 §7)."""

    def __init__(self, listener: TcpListener) -> None:
        self._listener = listener
        self._engine = listener.engine
        self._buffer = bytearray()
        self._source = b""
        self._waiting = 0
        self._transport: asyncio.Transport | None = None
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is needed")
        if not self._listener.admit(self):
            # A full house: the client may try again or use UDP.
            transport.abort()
            return
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._source = ip_address(str(peer[0]).partition("%")[0]).packed if peer else b""
        transport.set_write_buffer_limits(high=MAX_UNREAD)
        self._restart_idle_timer()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        if self._idle is not None:
            self._idle.cancel()
        self._listener.forget(self)

    def pause_writing(self) -> None:
        self.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._take_messages()

    def _take_messages(self) -> None:
        """Take what is whole from the buffer; the rest stays there while too many answers are awaited."""
        while self._transport is not None and self._waiting < MAX_WAITING and len(self._buffer) >= 2:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length < _HEADER:
                self.abort()
                return
            if len(self._buffer) < 2 + length:
                return
            message = bytes(self._buffer[2 : 2 + length])
            del self._buffer[: 2 + length]
            self._receive(message)

    def _receive(self, message: bytes) -> None:
        self._restart_idle_timer()
        now = monotonic()
        step = self._engine.receive(message, self._source, now, tcp=True)
        if type(step) is bytes:
            self._write(step)
            self._engine.stats.record_duration(monotonic() - now)
        elif type(step) is Forward:
            self._waiting += 1
            if self._waiting >= MAX_WAITING and self._transport is not None:
                self._transport.pause_reading()
            self._listener.forwarder.submit(step, self._respond, None, now)
            self._listener.forwarder.flush()

    def _respond(self, _token: object, response: bytes, _query: Query) -> None:
        self._waiting -= 1
        if self._transport is not None:
            self._write(response)
            if not self._transport.is_reading():
                self._transport.resume_reading()
                # Not at once: answers that come without a wait would nest.
                asyncio.get_running_loop().call_soon(self._take_messages)

    def _write(self, response: bytes) -> None:
        if self._transport is not None:
            self._transport.write(_LENGTH.pack(len(response)) + response)

    def _restart_idle_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        if self._waiting:
            self._restart_idle_timer()
        elif self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection without waiting for the client."""
        if self._transport is not None:
            self._transport.abort()


class TcpListener:
    """One listening socket; at most ``max_clients`` connections at a time."""

    def __init__(self, engine: Engine, forwarder: Forwarder, max_clients: int) -> None:
        self.engine = engine
        self.forwarder = forwarder
        self._max_clients = max_clients
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int, *, reuse_port: bool = False) -> None:
        """Bind and accept.

        Raises:
            StartError: the address cannot be bound.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _Connection(self), host, port, family=family, backlog=512, reuse_port=reuse_port
            )
        except OSError as exc:
            # asyncio's own text repeats the address; the system's says why.
            reason = os.strerror(exc.errno) if exc.errno else str(exc)
            raise StartError(f"cannot listen on tcp {host} port {port}: {reason}") from exc

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are really bound."""
        if self._server is None:
            raise StartError("not listening")
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    def admit(self, connection: _Connection) -> bool:
        """Count a new connection, unless the house is full."""
        if len(self._connections) >= self._max_clients:
            self.engine.stats.drops[DropReason.TCP_CLIENTS] += 1
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: _Connection) -> None:
        """Count a connection that has ended."""
        self._connections.discard(connection)

    async def close(self) -> None:
        """Stop accepting and cut what is still connected."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.abort()
        await self._server.wait_closed()
