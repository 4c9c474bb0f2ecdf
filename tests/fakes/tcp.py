"""A TCP listener with an engine and an upstream behind it, and clients that send what they like."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from dnsproxy.core.engine import Engine
from dnsproxy.core.features import Features
from dnsproxy.core.places import Places
from dnsproxy.core.policy import Owned
from dnsproxy.core.upstreams import Upstream
from dnsproxy.net.connection import Connection
from dnsproxy.net.hot import Serve
from dnsproxy.net.loop import Readiness
from dnsproxy.net.tcp import TcpListener
from dnsproxy.net.upstream import Forwarder
from dnsproxy.net.watch import Watch
from tests.fakes.forwarding import respond
from tests.fakes.upstream import FakeUpstream, Hook, until
from tests.messages import engine, hangzhou

# struct linger: on, for 0 seconds. Closing sends a reset.
RESET = struct.pack("ii", 1, 0)


class CountingReadiness(Readiness):
    """Counts the calls per descriptor: a socket that is served for nothing, again and again, shows."""

    def __init__(self) -> None:
        super().__init__()
        self.served = 0

    def add(self, fd: int, serve: Serve) -> None:
        def count() -> None:
            self.served += 1
            serve()

        super().add(fd, count)


@dataclass
class TcpWorld:
    """A TCP listener, what stands behind it, and an upstream."""

    engine: Engine
    forwarder: Forwarder
    listener: TcpListener
    upstream: FakeUpstream
    ready: CountingReadiness
    # What the loop was told of and nobody expected; a test that does expect it empties the list.
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def connections(self) -> list[Connection]:
        return list(self.listener._connections)

    async def all_gone(self) -> None:
        await until(lambda: not self.connections)

    async def rests(self, rounds: int = 20) -> bool:
        """Tell whether no socket of the listener is served while the loop goes round so often."""
        before = self.ready.served
        ours, theirs = socket.socketpair()
        with ours, theirs:
            seen: list[None] = []
            theirs.send(b"x")
            other = Readiness()
            other.add(ours.fileno(), lambda: seen.append(None))
            await until(lambda: len(seen) >= rounds)
            other.remove(ours.fileno())
        return self.ready.served == before

    def respond_all(self) -> None:
        """Let the upstream answer all that it was asked so far."""
        for asked in list(self.upstream.asked):
            self.upstream.send(respond(asked), asked.peer)


@asynccontextmanager
async def tcp_world(
    hook: Hook = respond,
    *,
    host: str = "127.0.0.1",
    max_clients: int = 16,
    max_per_client: int = 1000,
    owned: Sequence[Owned] | None = None,
    allow: Sequence[str] = ("127.0.0.0/8", "::1/128"),
    upstreams: Sequence[Upstream] = (),
    send_buffer: int = 0,
    watch: Watch | None = None,
    features: Features | None = None,
) -> AsyncIterator[TcpWorld]:
    """Listen on a free port; ``send_buffer`` is the kernel's per connection, in octets."""
    async with FakeUpstream(hook) as upstream:
        made = engine(
            hangzhou() if owned is None else owned,
            upstreams=upstreams or [Upstream("up", upstream.address)],
            allow=allow,
            max_in_flight=1000,
            features=features,
        )
        forwarder = Forwarder(made)
        listener = TcpListener(made, forwarder, Places(max_clients, max_per_client), watch)
        ready = CountingReadiness()
        listener._ready = ready
        await listener.open(host, 0)
        if send_buffer:
            assert listener._sock is not None
            listener._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        world = TcpWorld(made, forwarder, listener, upstream, ready)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: world.failures.append(context))
        try:
            yield world
        finally:
            await listener.close()
            forwarder.close()
            loop.set_exception_handler(None)
        assert world.failures == []


def framed(*messages: bytes) -> bytes:
    """The messages as a stream (RFC 1035 §4.2.2)."""
    return b"".join(struct.pack(">H", len(message)) + message for message in messages)


class TcpClient:
    """A client's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, *messages: bytes) -> None:
        self.writer.write(framed(*messages))

    async def receive(self) -> bytes:
        async with asyncio.timeout(10):
            (length,) = struct.unpack(">H", await self._reader.readexactly(2))
            return await self._reader.readexactly(length)

    async def idents(self, count: int) -> list[int]:
        """The ids of the next ``count`` responses."""
        return [int.from_bytes((await self.receive())[:2], "big") for _ in range(count)]

    def reset(self) -> None:
        """Cut the connection so that the other side hears of it at once."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()

    async def closed(self) -> bool:
        """Tell that the other side ended the connection and sent nothing more before."""
        async with asyncio.timeout(10):
            try:
                return await self._reader.read(1) == b""
            except ConnectionResetError:
                return True


@contextmanager
def idle(address: tuple[str, int], source: str) -> Iterator[socket.socket]:
    """A connection from the address ``source``, over which nothing is sent; it does not block."""
    with socket.socket() as sock:
        sock.bind((source, 0))
        sock.setblocking(False)
        assert sock.connect_ex(address) in {0, errno.EINPROGRESS}
        yield sock


def has_ended(sock: socket.socket) -> bool:
    """Tell whether the other side has closed a connection without a word."""
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@asynccontextmanager
async def connected(to: TcpWorld) -> AsyncIterator[TcpClient]:
    """A client of ``to`` whose input is read all the time, as asyncio's streams do, up to 128 KiB."""
    reader, writer = await asyncio.open_connection(*to.listener.address)
    try:
        yield TcpClient(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def unread(to: TcpWorld, receive_buffer: int = 4096) -> AsyncIterator[socket.socket]:
    """A client's non-blocking socket that is read only when the test does, with a small buffer."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, to.listener.address)
        await until(lambda: to.connections)
        yield client
