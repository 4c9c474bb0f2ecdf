"""An HTTP server behind the listener, and clients that send what they like."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from dnsproxy.certificate import Certificate
from dnsproxy.http_connection import read_body, watch_request
from dnsproxy.http_listener import HttpListener, Limits, make_runner, open_socket

HALF = b"POST /x HTTP/1.1\r\nHost: a\r\nX-"
WHOLE = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


class World:
    """A listener whose handler answers at once, or when ``release`` is set."""

    def __init__(self) -> None:
        self.listener: HttpListener
        self.begun = 0
        self.release = asyncio.Event()
        self.release.set()
        self.body = b"ok"
        self.socks: list[socket.socket] = []

    async def handle(self, _request: web.Request) -> web.Response:
        self.begun += 1
        await self.release.wait()
        return web.Response(body=self.body)

    async def connect(self, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        sock = socket.socket()
        self.socks.append(sock)
        sock.setblocking(False)
        sock.bind((source, 0))
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, self.listener.address)
        await loop.sock_sendall(sock, data)
        return sock

    async def read(self, sock: socket.socket) -> bytes:
        """What comes next: a whole small response, or nothing at the end."""
        async with asyncio.timeout(10):
            try:
                return await asyncio.get_running_loop().sock_recv(sock, 65_536)
            except ConnectionError:
                return b""

    async def answered(self, source: str = "127.0.0.1") -> bool:
        return (await self.read(await self.connect(WHOLE, source))).startswith(b"HTTP/1.1 200")


@asynccontextmanager
async def world(limits: Limits, certificate: Certificate | None = None) -> AsyncIterator[World]:
    made = World()
    app = web.Application(middlewares=[watch_request, read_body], client_max_size=1000)
    app.router.add_route("*", "/x", made.handle)
    runner = make_runner(app, handler_cancellation=False, seconds=1.0)
    await runner.setup()
    assert runner.server is not None
    made.listener = HttpListener("test", open_socket("127.0.0.1", 0), runner.server, limits, certificate)
    try:
        yield made
    finally:
        made.release.set()
        await made.listener.stop()
        await runner.cleanup()
        await made.listener.close()
        for sock in made.socks:
            sock.close()
        assert made.listener.connections == 0
        assert not made.listener._held
        assert not made.listener._waiting
        assert not made.listener._waiting_of
