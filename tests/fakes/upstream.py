"""An upstream on loopback that sends the octets its hook says, whatever they are, and a client's waits."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

from tests.fakes.nameserver import _sockets


@dataclass(frozen=True)
class Asked:
    """One query as it came in, and the port it came from."""

    data: bytes
    peer: Any
    tcp: bool

    @property
    def ident(self) -> bytes:
        return self.data[:2]


Hook = Callable[[Asked], Iterable[bytes]]


def silence(_asked: Asked) -> Iterable[bytes]:
    """Answer nothing."""
    return ()


class FakeUpstream:
    """UDP and TCP on one free port; ``asked`` is everything that came in, in order.

    Without ``tcp`` connections are refused; with a ``context`` they are TLS. `send` and `send_stream`
    are for replies at another time than at once. ``accepted`` counts connections.
    """

    def __init__(
        self,
        hook: Hook,
        *,
        tcp: bool = True,
        host: str = "127.0.0.1",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.hook = hook
        self.accepted = 0
        self._context = context
        self.asked: list[Asked] = []
        self.address = (host, 0)
        self._with_tcp = tcp
        self._udp: socket.socket | None = None
        self._tcp: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        if self.address[0] == "127.0.0.1":
            self._udp, self._tcp = _sockets()
        else:
            self._udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self._udp.setblocking(False)
            self._udp.bind((self.address[0], 0))
        self.address = (self.address[0], self._udp.getsockname()[1])
        asyncio.get_running_loop().add_reader(self._udp, self._receive)
        if self._with_tcp and self._tcp is not None:
            self._server = await asyncio.start_server(self._serve, sock=self._tcp, ssl=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_udp()
        if self._server is not None:
            self._server.close()
        if self._tcp is not None:
            self._tcp.close()
        await self.cut()

    @property
    def writers(self) -> list[asyncio.StreamWriter]:
        """The connections that are open, oldest first."""
        return list(self._connections.values())

    async def cut(self) -> None:
        """Reset every connection."""
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.gather(*self._connections)

    async def hang_up(self) -> None:
        """Close every connection in good order, whatever waits."""
        for writer in self.writers:
            writer.close()
        await asyncio.gather(*self._connections)

    def send_stream(self, replies: Iterable[bytes]) -> None:
        """Send ``replies`` on the newest connection."""
        self.writers[-1].write(b"".join(struct.pack(">H", len(data)) + data for data in replies))

    def close_udp(self) -> None:
        """Stop listening: from now on the kernel refuses queries (ICMP port unreachable)."""
        if self._udp is not None and self._udp.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._udp)
            self._udp.close()

    def send(self, replies: Iterable[bytes], peer: Any) -> None:
        """Send ``replies`` from this upstream's UDP port."""
        assert self._udp is not None
        for data in replies:
            self._udp.sendto(data, peer)

    def _receive(self) -> None:
        assert self._udp is not None
        while self._udp.fileno() >= 0:
            try:
                data, peer = self._udp.recvfrom(65535)
            except BlockingIOError:
                return
            asked = Asked(data, peer, tcp=False)
            self.asked.append(asked)
            self.send(self.hook(asked), peer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections[task] = writer
        self.accepted += 1
        try:
            while True:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                asked = Asked(await reader.readexactly(length), writer.get_extra_info("peername"), tcp=True)
                self.asked.append(asked)
                for reply in self.hook(asked):
                    writer.write(struct.pack(">H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            del self._connections[task]


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for ``condition``; fail when it does not come true in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


class Client:
    """A UDP client that takes answers only from the address that it asked."""

    def __init__(self, host: str, port: int, source: str | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        if source is not None:
            self.sock.bind((source, 0))
        self.sock.connect((host, port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.send(data)

    async def receive(self) -> bytes:
        """The next answer; fails after ten seconds."""
        async with asyncio.timeout(10):
            return await asyncio.get_running_loop().sock_recv(self.sock, 65535)

    async def ask(self, data: bytes) -> bytes:
        self.send(data)
        return await self.receive()
