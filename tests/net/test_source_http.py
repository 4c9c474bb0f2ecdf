from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dnsproxy.errors import FetchError
from dnsproxy.net import fetch as module
from dnsproxy.net.fetch import MAX_OCTETS, Fetched, Fetcher, Request
from dnsproxy.settings.sources import SourceSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
PLAIN = Request()


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    fetcher = Fetcher()
    yield fetcher
    await fetcher.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[TestServer] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_get("/v1/snapshot", handler)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server(shutdown_timeout=0.1)
        servers.append(server)
        return str(server.make_url("/v1/snapshot"))

    yield start
    for server in servers:
        await server.close()


def source(url: str, token_file: Path | None = None, ca_file: Path | None = None) -> SourceSettings:
    return SourceSettings(url=url, token_file=token_file, ca_file=ca_file)


async def failure(fetcher: Fetcher, settings: SourceSettings, request: Request = PLAIN) -> str:
    """Fetch, which must fail, within bounds; return the message."""
    async with asyncio.timeout(20):
        with pytest.raises(FetchError) as caught:
            await fetcher.fetch(settings, request)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_the_document_with_its_tag(fetcher: Fetcher, serve: Serve) -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(text="a.b.c\n", headers={"ETag": '"7-1"'})

    url = await serve(handler)
    assert await fetcher.fetch(source(url), PLAIN) == Fetched("a.b.c", '"7-1"')
    assert seen[0].query_string == ""
    assert "Authorization" not in seen[0].headers
    assert "If-None-Match" not in seen[0].headers
    # A body that unpacks to a thousand times its size is not asked for.
    assert seen[0].headers["Accept-Encoding"] == "identity"


async def test_serial_and_tag_are_sent_back(fetcher: Fetcher, serve: Serve) -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(status=304, headers={"ETag": '"7-1"'})

    url = await serve(handler)
    fetched = await fetcher.fetch(source(url), Request(serial=7, etag='"7-1"', wait=0.1))
    assert fetched.token is None
    assert dict(seen[0].query) == {"wait": "7", "timeout": "0.1"}
    assert seen[0].headers["If-None-Match"] == '"7-1"'


async def test_a_long_poll_returns_when_the_helper_has_something_new(fetcher: Fetcher, serve: Serve) -> None:
    asked, changed = asyncio.Event(), asyncio.Event()

    async def handler(_request: web.Request) -> web.Response:
        asked.set()
        await changed.wait()
        return web.Response(text="new")

    url = await serve(handler)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        fetching = group.create_task(fetcher.fetch(source(url), Request(serial=7, wait=100)))
        await asked.wait()
        assert not fetching.done()
        changed.set()
    assert fetching.result() == Fetched("new")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, "status 500 Internal Server Error"),
        (503, "status 503 Service Unavailable"),
        (401, "status 401 Unauthorized"),
        (204, "status 204 No Content"),
        (304, "status 304 Not Modified"),  # nothing was offered that could be unmodified
        (599, "status 599"),
    ],
)
async def test_another_status_is_a_failure(
    fetcher: Fetcher, serve: Serve, status: int, expected: str
) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    url = await serve(handler)
    assert await failure(fetcher, source(url)) == f"{url}: {expected}"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("2", 2.0),
        ("999999", 999999.0),
        ("9999999", None),
        ("-1", None),
        ("Fri, 01 Jan 2027", None),
        ("", None),
    ],
)
async def test_when_a_source_asks_for_the_next_request(
    fetcher: Fetcher, serve: Serve, field: str, expected: float | None
) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": field})

    url = await serve(handler)
    with pytest.raises(FetchError) as failed:
        await fetcher.fetch(source(url), PLAIN)
    assert failed.value.retry_after == expected


async def test_a_redirect_is_not_followed(fetcher: Fetcher, serve: Serve) -> None:
    followed: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        followed.append(request.path)
        return web.Response(text="evil")

    target = await serve(elsewhere)

    async def handler(_request: web.Request) -> web.Response:
        raise web.HTTPFound(target)

    url = await serve(handler)
    expected = f"{url}: status 302 Found (redirects are not followed)"
    assert await failure(fetcher, source(url)) == expected
    assert followed == []


async def endless(
    request: web.Request, chunk: bytes, sent: list[int], pause: float = 0.0
) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 1 << 30
    await response.prepare(request)
    try:
        for _ in range((1 << 30) // len(chunk)):
            await response.write(chunk)
            sent.append(len(chunk))
            await asyncio.sleep(pause)
    except ConnectionError:
        pass
    return response


async def test_a_body_of_a_gigabyte_is_cut_off_at_the_cap(fetcher: Fetcher, serve: Serve) -> None:
    sent: list[int] = []
    url = await serve(partial(endless, chunk=b"x" * 65_536, sent=sent))
    assert await failure(fetcher, source(url)) == f"{url}: larger than {MAX_OCTETS} octets"
    # What is under way in socket buffers is small beside the gigabyte.
    assert sum(sent) < 8 * MAX_OCTETS


@pytest.mark.parametrize(("size", "good"), [(1000, True), (1001, False)])
async def test_the_cap_counts_octets_exactly(
    fetcher: Fetcher, serve: Serve, monkeypatch: pytest.MonkeyPatch, size: int, *, good: bool
) -> None:
    monkeypatch.setattr(module, "MAX_OCTETS", 1000)
    body = "x" * size

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(text=body)

    url = await serve(handler)
    if good:
        assert (await fetcher.fetch(source(url), PLAIN)).token == body
    else:
        assert "larger than 1000 octets" in await failure(fetcher, source(url))


async def test_a_body_that_trickles_hits_the_deadline(
    fetcher: Fetcher, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINE", 0.2)
    url = await serve(partial(endless, chunk=b"x", sent=[], pause=0.01))
    assert await failure(fetcher, source(url)) == f"{url}: no whole answer within 0.2 s"


async def test_a_long_poll_has_its_wait_and_a_margin(
    fetcher: Fetcher, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_MARGIN", 0.1)

    async def handler(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    url = await serve(handler)
    message = await failure(fetcher, source(url), Request(serial=7, wait=0.2))
    assert message == f"{url}: no whole answer within 0.3 s"


async def raw_server(answer: bytes) -> asyncio.Server:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_a_broken_or_cut_response_is_a_failure(fetcher: Fetcher, answer: bytes) -> None:
    server = await raw_server(answer)
    async with server:
        port = server.sockets[0].getsockname()[1]
        message = await failure(fetcher, source(f"http://127.0.0.1:{port}/v1/snapshot?sig=hunter2"))
    assert message.startswith(f"http://127.0.0.1:{port}/v1/snapshot: ")
    assert "hunter2" not in message


async def test_a_closed_port(fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    assert await failure(fetcher, source(url)) == f"{url}: Connection refused"


async def test_neither_password_nor_query_is_in_the_message(fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    message = await failure(fetcher, source(f"http://me:hunter2@127.0.0.1:{port}/x?sig=s3cret#f"))
    assert message == f"http://127.0.0.1:{port}/x: Connection refused"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/", "http://[::1/x", "http://127.0.0.1:x/?sig=hunter2"]
)
async def test_a_url_that_makes_no_sense_is_a_failure(fetcher: Fetcher, url: str) -> None:
    assert "hunter2" not in await failure(fetcher, source(url))


async def test_the_token_is_sent_and_read_anew_each_time(
    fetcher: Fetcher, serve: Serve, tmp_path: Path
) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.Response(text="a.b.c")

    url, token_file = await serve(handler), tmp_path / "token"
    for token in ("one", "two"):
        token_file.write_text(f"{token}\n")
        await fetcher.fetch(source(url, token_file), PLAIN)
    assert seen == ["Bearer one", "Bearer two"]
    token_file.unlink()
    assert "No such file" in await failure(fetcher, source(url, token_file))


async def test_an_unusable_ca_file(fetcher: Fetcher, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    url = "https://127.0.0.1:1/"
    assert "No such file" in await failure(fetcher, source(url, ca_file=ca_file))
    ca_file.write_text("not a certificate")
    assert f"ca_file {ca_file}" in await failure(fetcher, source(url, ca_file=ca_file))


async def test_a_server_without_tls_on_an_https_url(fetcher: Fetcher, serve: Serve) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(text="a.b.c")

    url = (await serve(handler)).replace("http:", "https:")
    assert (await failure(fetcher, source(url))).startswith(f"{url}: ")


async def test_a_tag_cannot_add_a_header(fetcher: Fetcher, serve: Serve) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(text="a.b.c")

    url = await serve(handler)
    message = await failure(fetcher, source(url), Request(etag='"1"\r\nAuthorization: Bearer x'))
    assert message.startswith(f"{url}: ")


async def test_close_twice(fetcher: Fetcher, serve: Serve) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(text="a.b.c")

    url = await serve(handler)
    for _ in range(2):
        assert await fetcher.fetch(source(url), PLAIN) == Fetched("a.b.c")
        await fetcher.close()
        await fetcher.close()
