from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from dnsproxy import time_slice, tls_transport
from dnsproxy.certificate import Certificate
from dnsproxy.tls_transport import CHUNK, SLICE, Buffers, TlsTransport
from tests.certificates import make_certificate
from tests.fakes.encrypted import NAME
from tests.fakes.upstream import until


class Inner(asyncio.Protocol):
    """Keeps what comes; pauses after each piece when it is told to."""

    def __init__(self) -> None:
        self.received = b""
        self.pieces = 0
        self.pauses = False
        self.paused_writing = False
        self.lost: list[Exception | None] = []
        self.transport: TlsTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("TlsTransport", transport)

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.received += data
        self.pieces += 1
        if self.pauses:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        self.paused_writing = True

    def resume_writing(self) -> None:
        self.paused_writing = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Server:
    """Accepts one kind of connection; ``inner`` are those whose handshake is done."""

    def __init__(self, certificate: Path) -> None:
        self.certificate = certificate
        self.made: list[TlsTransport] = []
        self.inner: list[Inner] = []
        self.failed: list[BaseException] = []
        self._buffers = Buffers()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._make, "127.0.0.1", 0)

    def _make(self) -> TlsTransport:
        made = TlsTransport(Certificate(self.certificate, self.certificate).context(), self._buffers)
        self.made.append(made)
        task = asyncio.get_running_loop().create_task(self._serve(made))
        self._tasks.add(task)
        return made

    async def _serve(self, made: TlsTransport) -> None:
        try:
            await made.handshake
        except OSError as exc:
            self.failed.append(exc)
            return
        inner = Inner()
        self.inner.append(inner)
        made.serve(inner)

    async def connect(self, **versions: ssl.TLSVersion) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert self._server is not None
        context = ssl.create_default_context(cafile=self.certificate)
        for name, version in versions.items():
            setattr(context, name, version)
        host, port = self._server.sockets[0].getsockname()
        return await asyncio.open_connection(host, port, ssl=context, server_hostname=NAME)

    async def connect_plainly(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert self._server is not None
        return await asyncio.open_connection(*self._server.sockets[0].getsockname())

    def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for made in self.made:
            made.abort()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    server = Server(make_certificate(folder, NAME))
    await server.open()
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_bytes_go_both_ways(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with serving(tmp_path) as server:
        reader, writer = await server.connect(maximum_version=version)
        sent = bytes(range(256)) * 1000
        writer.write(sent)
        await until(lambda: server.inner and len(server.inner[0].received) == len(sent))
        inner = server.inner[0]
        assert inner.received == sent
        assert inner.pieces >= len(sent) // CHUNK
        assert inner.transport is not None
        inner.transport.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        writer.transport.abort()
        await until(lambda: inner.lost)


async def test_connections_with_much_to_take_have_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much three connections have sent, each iteration of the loop takes one slice of one of them."""
    monkeypatch.setattr(time_slice, "SECONDS", 0.0)
    async with serving(tmp_path) as server:
        writers = [(await server.connect())[1] for _ in range(3)]
        await until(lambda: len(server.inner) == 3)
        for writer in writers:
            writer.write(bytes(3 * CHUNK))
        taken = [0]
        while taken[-1] < 9 * CHUNK:
            await asyncio.sleep(0)
            taken.append(sum(len(inner.received) for inner in server.inner))
        # A connection that is read from has its first slice in the iteration in which all have waited.
        assert max(now - before for before, now in pairwise(taken)) <= 2 * SLICE
        # One that closes while its turn has not come is forgotten.
        writers[0].write(bytes(CHUNK))
        await until(lambda: any(made._put_off for made in server.made))
        server.made[0].abort()
        for writer in writers:
            writer.transport.abort()
        await until(lambda: all(inner.lost for inner in server.inner))


async def test_what_has_come_waits_while_reading_is_paused(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        _, writer = await server.connect()
        await until(lambda: server.inner)
        inner = server.inner[0]
        inner.pauses = True
        for number in range(3):
            writer.write(b"%d" % number)
        await until(lambda: inner.received)
        assert inner.transport is not None
        assert not inner.transport.is_reading()
        for count in (1, 2, 3):
            await until(lambda count=count: inner.pieces == count)  # type: ignore[misc]
            inner.transport.resume_reading()
        await until(lambda: inner.received == b"012")
        writer.transport.abort()


async def test_a_client_that_does_not_read_is_noticed(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reader, writer = await server.connect()
        await until(lambda: server.inner)
        inner = server.inner[0]
        assert inner.transport is not None
        inner.transport.set_write_buffer_limits(64 * 1024)
        cast("asyncio.Transport", writer.transport).pause_reading()
        written = 0
        while not inner.paused_writing:
            inner.transport.write(bytes(CHUNK))
            written += CHUNK
            await asyncio.sleep(0)
        assert inner.transport.get_write_buffer_size() > 64 * 1024
        cast("asyncio.Transport", writer.transport).resume_reading()
        assert await reader.readexactly(written) == bytes(written)
        await until(lambda: not inner.paused_writing)
        writer.transport.abort()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_closing_sends_what_is_unsent_and_close_notify(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with serving(tmp_path) as server:
        reader, writer = await server.connect(maximum_version=version)
        writer.write(b"unread")
        await until(lambda: server.inner)
        inner = server.inner[0]
        assert inner.transport is not None
        inner.transport.write(bytes(1_000_000))
        inner.transport.close()
        inner.transport.close()
        assert inner.transport.is_closing()
        inner.transport.write(b"late")
        # `read` raises where close_notify is missing.
        assert await reader.read(-1) == bytes(1_000_000)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await until(lambda: inner.lost == [None])


async def test_a_client_that_does_not_close_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_transport, "GOODBYE_SECONDS", 0.1)
    async with serving(tmp_path) as server:
        _, writer = await server.connect()
        await until(lambda: server.inner)
        inner = server.inner[0]
        cast("asyncio.Transport", writer.transport).pause_reading()
        assert inner.transport is not None
        inner.transport.write(bytes(8_000_000))
        inner.transport.close()
        await until(lambda: inner.lost)
        writer.transport.abort()


async def test_a_client_that_closes_ends_the_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        _, writer = await server.connect()
        await until(lambda: server.inner)
        writer.close()
        await until(lambda: server.inner[0].lost)
        assert server.made[0].get_write_buffer_size() == 0
        assert server.made[0].get_extra_info("socket", "none") == "none"


async def test_records_that_cannot_be_read_end_the_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reader, writer = await server.connect()
        await until(lambda: server.inner)
        raw = writer.get_extra_info("socket")
        os.write(raw.fileno(), b"\x17\x03\x03\x00\x10" + bytes(16))
        await until(lambda: server.inner[0].lost)
        with contextlib.suppress(OSError):
            await reader.read()
        writer.transport.abort()


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.0\r\n\r\n", b""])
async def test_a_failed_handshake_has_its_reason(tmp_path: Path, junk: bytes) -> None:
    async with serving(tmp_path) as server:
        _, writer = await server.connect_plainly()
        writer.write(junk)
        if not junk:
            writer.close()
        await until(lambda: server.failed)
        assert isinstance(server.failed[0], ssl.SSLError if junk else ConnectionResetError)
        writer.close()


async def test_p20_a_handshake_is_short(tmp_path: Path) -> None:
    """OpenSSL itself keeps up to 131 kB of a ClientHello."""
    async with serving(tmp_path) as server:
        _, writer = await server.connect_plainly()
        hello = b"\x01\x01\xff\xfc\x03\x03" + bytes(32) + b"\0"
        for number in range(8):
            part = (hello if not number else b"").ljust(CHUNK, b"\0")
            writer.write(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part)
        await until(lambda: server.failed)
        writer.close()


async def test_a_client_that_has_gone_before_it_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        _, writer = await server.connect()
        await until(lambda: server.inner)
        writer.transport.abort()
        await until(lambda: server.inner[0].lost)
        late = Inner()
        server.made[0].serve(late)
        assert late.lost == []
        await until(lambda: late.lost == [None])
