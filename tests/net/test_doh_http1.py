from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import pytest

from dnsproxy.core.doh import get_target
from dnsproxy.net import encrypted
from tests.certificates import make_certificate
from tests.fakes.encrypted import MEDIA_TYPE, NAME, PATH, TlsWorld, tls_world
from tests.fakes.forwarding import respond
from tests.fakes.upstream import silence, until
from tests.messages import REGISTRY, addresses, query, read


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificates"), NAME)


class Peer:
    """A client of HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def post(self, body: bytes, path: str = PATH, content_type: str = MEDIA_TYPE, more: str = "") -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: {content_type}\r\n{more}"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def send(self, line: str) -> None:
        self.writer.write(f"{line} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        """The status, headers and content of the next reply."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split()[1]), headers, body

    async def closed(self) -> bool:
        async with asyncio.timeout(10):
            return await self.reader.read() == b""


@asynccontextmanager
async def http1(to: TlsWorld) -> AsyncIterator[Peer]:
    reader, writer = await to.connect("http/1.1")
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


async def test_p17_post_and_get_on_one_connection(certificate: Path) -> None:
    async with tls_world(certificate) as made, http1(made) as client:
        for name, address, ttl in ((REGISTRY, "10.94.205.198", 30), ("www.example.", "192.0.2.1", 60)):
            asked = query(name)
            for method in ("POST", "GET"):
                if method == "POST":
                    client.post(asked)
                else:
                    client.send(f"GET {get_target(PATH, asked)}")
                status, headers, body = await client.reply()
                assert (status, addresses(body)) == (200, [address])
                assert headers["content-type"] == MEDIA_TYPE
                assert headers["cache-control"] == f"max-age={ttl}"


async def test_p17_requests_sent_ahead_are_answered_in_order(certificate: Path) -> None:
    async with tls_world(certificate, silence) as made, http1(made) as client:
        client.post(query("www.example.", ident=1))
        client.post(query(REGISTRY, ident=2))
        client.post(query(REGISTRY, ident=3))
        await until(lambda: made.upstream.asked)
        asked = made.upstream.asked[0]
        made.upstream.send(respond(asked), asked.peer)
        assert [read((await client.reply())[2]).id for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /", 404),
        (f"GET {PATH}", 400),
        (f"PUT {PATH}", 405),
        (f"HEAD {PATH}", 405),
        (f"GET {PATH}?dns=" + "A" * 9000, 414),
    ],
)
async def test_p17_what_is_no_query_gets_its_status(certificate: Path, line: str, status: int) -> None:
    async with tls_world(certificate) as made, http1(made) as client:
        client.send(line)
        if line.startswith("HEAD"):
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b" 405 " in head
        else:
            found, headers, _ = await client.reply()
            assert found == status
            assert ("allow" in headers) == (status == 405)
        client.post(query(REGISTRY))
        assert (await client.reply())[0] == 200


async def test_p17_content_of_another_type(certificate: Path) -> None:
    async with tls_world(certificate) as made, http1(made) as client:
        client.post(query(REGISTRY), content_type="text/plain")
        assert (await client.reply())[0] == 415


async def test_p17_content_longer_than_a_message(certificate: Path) -> None:
    async with tls_world(certificate) as made, http1(made) as client:
        client.post(bytes(70_000))
        status, headers, _ = await client.reply()
        assert (status, headers["connection"]) == (413, "close")
        await made.all_gone()


async def test_p17_a_client_that_waits_to_be_told_to_go_on(certificate: Path) -> None:
    async with tls_world(certificate) as made, http1(made) as client:
        asked = query(REGISTRY)
        client.post(b"", more="")
        assert (await client.reply())[0] == 400
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {MEDIA_TYPE}\r\nExpect: 100-continue\r\n"
        client.writer.write(f"{head}Content-Length: {len(asked)}\r\n\r\n".encode())
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        client.writer.write(asked)
        assert addresses((await client.reply())[2]) == ["10.94.205.198"]


async def test_p17_a_client_that_wants_the_connection_closed(certificate: Path) -> None:
    async with tls_world(certificate) as made, http1(made) as client:
        client.post(query(REGISTRY), more="Connection: close\r\n")
        assert (await client.reply())[0] == 200
        assert await client.closed()
        await made.all_gone()


@pytest.mark.parametrize(
    ("junk", "status"),
    [
        (b"not http at all\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(4000)), 431),
    ],
)
async def test_p10_what_is_not_http_is_refused_and_cut(certificate: Path, junk: bytes, status: int) -> None:
    async with tls_world(certificate) as made, http1(made) as client:
        client.writer.write(junk)
        found, headers, _ = await client.reply()
        assert (found, headers["connection"]) == (status, "close")
        await made.all_gone()


async def test_p27_more_than_can_be_asked_is_unavailable_for_now(certificate: Path) -> None:
    async with (
        tls_world(certificate, silence, max_in_flight=1) as made,
        http1(made) as first,
        http1(made) as second,
    ):
        first.post(query("a.example."))
        await until(lambda: made.upstream.asked)
        second.post(query("b.example."))
        assert (await second.reply())[0] == 503


async def test_p17_a_request_that_does_not_end_is_given_up(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encrypted, "IDLE_SECONDS", 0.1)
    async with tls_world(certificate) as made, http1(made) as client:
        client.writer.write(b"POST /dns-query HTTP/1.1\r\nHost: x\r\n")
        await until(lambda: made.clients)
        assert await client.closed()
        await made.all_gone()


async def test_h11_is_what_the_program_expects() -> None:
    assert h11.Connection(h11.SERVER).our_state is h11.IDLE


async def test_p10_a_body_in_very_many_chunks_is_not_read_to_its_end(certificate: Path) -> None:
    async with tls_world(certificate) as made, http1(made) as client:
        head = f"POST {PATH} HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        client.writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"1\r\nx\r\n" * 20_000)
        status, headers, _ = await client.reply()
        assert (status, headers["connection"]) == (400, "close")
        assert made.engine.stats.drops == {"http_flood": 1}
        await made.all_gone()
