"""Connections to an HTTP endpoint: how many, and what is left to DNS."""

from __future__ import annotations

import asyncio
import itertools
import resource
import socket
import ssl
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dnsproxy import http_connection
from dnsproxy.certificate import HTTP, Certificate
from dnsproxy.http_listener import Limits, client_of, file_limit, spare_files
from tests.certificates import make_certificate
from tests.fakes.http_clients import HALF, WHOLE, world
from tests.fakes.upstream import until


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_seconds(**seconds: float) -> None:
        for name, value in seconds.items():
            monkeypatch.setattr(http_connection, f"{name.upper()}_SECONDS", value)

    return set_seconds


async def test_a_client_with_many_half_sent_requests_closes_its_own() -> None:
    async with world(Limits(total=100, per_client=4)) as made:
        other = await made.connect(HALF, "127.0.0.2")
        mine = [await made.connect(HALF) for _ in range(20)]
        await until(lambda: made.listener.connections == 5)
        assert [await made.read(sock) for sock in mine[:16]] == [b""] * 16
        assert await made.answered()
        # The other client's connection was not touched.
        await asyncio.get_running_loop().sock_sendall(other, b"a: b\r\nContent-Length: 0\r\n\r\n")
        assert (await made.read(other)).startswith(b"HTTP/1.1 200")


async def test_many_clients_with_half_sent_requests_keep_nobody_out() -> None:
    async with world(Limits(total=10, per_client=4)) as made:
        for number in range(30):
            await made.connect(HALF, f"127.0.1.{1 + number}")
        await until(lambda: made.listener.connections == 10)
        assert await made.answered("127.0.0.9")


async def test_connections_with_a_request_are_not_closed_for_others() -> None:
    async with world(Limits(total=3, per_client=3)) as made:
        made.release.clear()
        busy = [await made.connect(WHOLE) for _ in range(3)]
        await until(lambda: made.begun == 3)
        with capture_logs() as logs:
            refused = [await made.connect(WHOLE) for _ in range(3)]
            assert [await made.read(sock) for sock in refused] == [b""] * 3
        assert [(entry["event"], entry["listener"], entry["client"]) for entry in logs] == [
            ("http.connection_refused", "test", "127.0.0.1")
        ]
        made.release.set()
        for sock in busy:
            assert (await made.read(sock)).startswith(b"HTTP/1.1 200")


@pytest.fixture
def few_files() -> Iterator[int]:
    """A limit of descriptors a little above what is open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    free = (number for number in itertools.count() if number not in taken)
    limit = next(itertools.islice(free, 60, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_the_last_descriptors_are_left_to_dns(few_files: int) -> None:
    async with world(Limits(total=1000, per_client=1000, spare_files=20)) as made:
        for _ in range(35):
            # Each takes a descriptor on this side too.
            await made.connect(HALF)
        await until(lambda: made.listener._sock.fileno() >= 0)
        with socket.socket() as probe:
            assert probe.fileno() < few_files
        # What the listener holds lies below the reserve.
        assert all(
            connection._transport is None
            or connection._transport.get_extra_info("socket").fileno() < few_files - 20
            for connection in made.listener._connections
        )
        assert len(made.socks) == 35


async def test_handshakes_count_and_have_the_deadline(short: Callable[..., None], tmp_path: Path) -> None:
    short(header=0.1)
    path = make_certificate(tmp_path, "a.example")
    async with world(Limits(10, 3), Certificate(path, path, key="x", protocols=HTTP)) as made:
        socks = [await made.connect() for _ in range(6)]
        await until(lambda: made.listener.connections <= 3)
        assert [await made.read(sock) for sock in socks] == [b""] * 6
        await until(lambda: made.listener.connections == 0)


async def test_https(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "a.example")
    async with world(Limits(10, 3), Certificate(path, path, key="x", protocols=HTTP)) as made:
        context = ssl.create_default_context(cafile=path)
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection(
            *made.listener.address, ssl=context, server_hostname="a.example"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.write(WHOLE)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
        # What is no handshake is closed.
        assert await made.read(await made.connect(WHOLE)) == b""
        await until(lambda: made.listener.connections == 0)


async def test_the_client_that_holds_most_memory_loses_connections() -> None:
    async with world(Limits(100, 100, buffers=100_000)) as made:
        other = await made.connect(HALF + bytes(9000).replace(b"\0", b"x"), "127.0.0.2")
        mine = [await made.connect(HALF + b"x" * 7000) for _ in range(20)]
        await until(lambda: made.listener.connections <= 7)
        assert made.listener.budget.used <= 100_000
        assert sum([await made.read(sock) == b"" for sock in mine[:13]]) >= 13
        await asyncio.get_running_loop().sock_sendall(other, b": b\r\nContent-Length: 0\r\n\r\n")
        assert await made.read(other)
        assert await made.answered()


async def test_responses_that_are_not_read_are_counted() -> None:
    async with world(Limits(100, 100, buffers=5_000_000)) as made:
        made.body = bytes(2_000_000)
        for _ in range(6):
            await made.connect(WHOLE)
        await until(lambda: made.begun == 6 and made.listener.connections <= 3)
        assert 0 < made.listener.budget.used <= 5_000_000
        for sock in made.socks:
            sock.close()
        await until(lambda: made.listener.connections == 0)
    assert made.listener.budget.used == 0


async def test_a_connection_over_tls_takes_little_memory(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, "a.example")
    context = ssl.create_default_context(cafile=path)
    async with world(Limits(100, 100), Certificate(path, path, key="x", protocols=HTTP)) as made:

        def connect() -> ssl.SSLSocket:
            # Not asyncio's: its client would take as much in this process.
            return context.wrap_socket(
                socket.create_connection(made.listener.address), server_hostname="a.example"
            )

        first = await asyncio.to_thread(connect)
        tracemalloc.start()
        try:
            socks = [first, *[await asyncio.to_thread(connect) for _ in range(10)]]
            await until(lambda: made.listener.connections == 11)
            assert tracemalloc.get_traced_memory()[0] < 10 * 64 * 1024
        finally:
            tracemalloc.stop()
        for sock in socks:
            sock.close()
        await until(lambda: made.listener.connections == 0)


def test_a_client_is_an_address_or_a_64() -> None:
    assert client_of("10.0.0.1") == client_of("::ffff:10.0.0.1") != client_of("10.0.0.2")
    assert client_of("fd00::1") == client_of("fd00::2") != client_of("fd00:0:0:1::1")
    assert client_of("fe80::1%eth0") == client_of("fe80::2")


def test_few_descriptors_have_a_small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (48, 48))
    assert (file_limit(), spare_files()) == (48, 12)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert spare_files(256) == 256
