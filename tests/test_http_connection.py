"""The time that a connection to an HTTP endpoint has."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from contextlib import suppress
from unittest.mock import Mock

import pytest
from aiohttp import web

from dnsproxy import http_connection
from dnsproxy.http_connection import MAX_HEAD, HttpConnection, watch_request
from dnsproxy.http_listener import Limits
from tests.fakes.http_clients import HALF, WHOLE, world
from tests.fakes.upstream import until


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_seconds(**seconds: float) -> None:
        for name, value in seconds.items():
            monkeypatch.setattr(http_connection, f"{name.upper()}_SECONDS", value)

    return set_seconds


@pytest.mark.parametrize("data", [b"", HALF])
async def test_headers_have_a_deadline(short: Callable[..., None], data: bytes) -> None:
    short(header=0.05)
    async with world(Limits(10, 10)) as made:
        assert await made.read(await made.connect(data)) == b""
        await until(lambda: made.listener.connections == 0)


async def test_one_byte_after_another_does_not_extend_the_deadline(short: Callable[..., None]) -> None:
    short(header=0.2)
    async with world(Limits(10, 10)) as made:
        sock = await made.connect(HALF)
        sent = 0
        while made.listener.connections or not sent:
            await asyncio.sleep(0.01)
            sent += 1
            try:
                sock.send(b"x")
            except ConnectionError:
                break
        assert sent < 200


async def test_the_headers_of_a_second_request_have_the_same_deadline(short: Callable[..., None]) -> None:
    short(header=0.1, idle=60.0)
    async with world(Limits(10, 10)) as made:
        sock = await made.connect(WHOLE)
        assert (await made.read(sock)).startswith(b"HTTP/1.1 200")
        await asyncio.get_running_loop().sock_sendall(sock, HALF)
        assert await made.read(sock) == b""


async def test_an_idle_connection_is_closed(short: Callable[..., None]) -> None:
    short(idle=0.05)
    async with world(Limits(10, 10)) as made:
        sock = await made.connect(WHOLE)
        assert (await made.read(sock)).startswith(b"HTTP/1.1 200")
        assert await made.read(sock) == b""


async def test_a_request_that_is_being_answered_has_no_deadline_here(short: Callable[..., None]) -> None:
    short(header=0.05, idle=0.05)
    async with world(Limits(10, 10)) as made:
        made.release.clear()
        sock = await made.connect(WHOLE)
        await until(lambda: made.begun == 1)
        asyncio.get_running_loop().call_later(0.2, made.release.set)
        assert (await made.read(sock)).startswith(b"HTTP/1.1 200")


async def test_a_body_has_a_deadline_and_a_bound(short: Callable[..., None]) -> None:
    short(body=0.05)
    async with world(Limits(10, 10)) as made:
        head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        slow = await made.connect(head % 10 + b"x")
        assert (await made.read(slow)).startswith(b"HTTP/1.1 408")
        large = await made.connect(head % 5000 + bytes(5000))
        assert (await made.read(large)).startswith(b"HTTP/1.1 413")
        assert made.begun == 0


@pytest.mark.parametrize("is_busy", [False, True])
async def test_headers_without_end_are_not_kept(*, is_busy: bool) -> None:
    async with world(Limits(10, 10)) as made:
        made.release.clear()
        sock = await made.connect(WHOLE if is_busy else b"")
        await until(lambda: made.begun == is_busy)
        head = b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x%d: %d\r\n" % (n, n) for n in range(100))
        with suppress(ConnectionError):
            for _ in range(2000):
                await asyncio.get_running_loop().sock_sendall(sock, head)
                head = b"y: %s\r\n" % (b"z" * 4000)
                await asyncio.sleep(0)
        await until(lambda: made.listener.connections == 0)


async def test_headers_without_end_behind_a_request_that_waits_are_not_kept() -> None:
    listener, inner, transport = Mock(), Mock(), Mock()
    transport.get_write_buffer_size.return_value = 0
    connection = HttpConnection(listener, b"", inner)
    connection.connection_made(transport)
    connection.data_received(WHOLE)
    connection.begin_request()
    connection.end_body()
    connection.data_received(WHOLE + HALF)
    sent = 0
    while not transport.abort.called:
        connection.data_received(b"y: %s\r\n" % (b"z" * 4000))
        sent += 4000
        assert sent <= 2 * MAX_HEAD


async def test_requests_sent_ahead_are_few() -> None:
    async with world(Limits(10, 10)) as made:
        made.release.clear()
        few = await made.connect(WHOLE * 5)
        many = await made.connect(WHOLE * 2000)
        assert await made.read(many) == b""
        made.release.set()
        answered = b""
        while answered.count(b"HTTP/1.1 200") < 5:
            answered += await made.read(few)
        assert made.begun <= 6


async def test_a_body_is_not_unpacked() -> None:
    async with world(Limits(10, 10)) as made:
        packed = gzip.compress(bytes(500_000))
        head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        sock = await made.connect(head % len(packed) + packed)
        # Unpacked it would be larger than what is taken.
        assert (await made.read(sock)).startswith(b"HTTP/1.1 200")


async def test_a_long_body_is_no_header() -> None:
    async with world(Limits(10, 10)) as made:
        sock = await made.connect(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(9):
                await asyncio.get_running_loop().sock_sendall(sock, bytes(100_000))
        assert (await made.read(sock)).startswith(b"HTTP/1.1 413")


async def test_without_the_listener_requests_are_handled_all_the_same() -> None:
    request = type("Request", (), {"transport": None})()

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    handled: Callable[..., Awaitable[web.StreamResponse]] = watch_request
    assert (await handled(request, handle)).status == 200
