from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from dnsproxy.errors import DiscoverError, Doubt, ResolveError
from dnsproxy.helper.web import MAX_BODY, Page, open_web
from tests.fakes.hooked_registry import Handle, Registry, redirect
from tests.netns.authority import Authority

HOST = "files.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca") / "ca")


async def addresses_of(name: str) -> tuple[str, ...]:
    if name != f"{HOST}.":
        raise ResolveError(f"nobody knows {name}")
    # Nobody listens on the first.
    return ("::1", "127.0.0.1")


async def get(authority: Authority, handle: Handle, host: str = HOST) -> Page:
    async with (
        Registry(authority.issue(HOST), handle) as server,
        open_web(addresses_of, authority.file) as opened,
    ):
        return await opened.get("it", URL(f"https://{host}:{server.port}/s3cret?s3cret"))


async def refused(authority: Authority, handle: Handle, host: str = HOST) -> DiscoverError:
    with pytest.raises(DiscoverError) as caught:
        await get(authority, handle, host)
    assert str(caught.value).startswith("it: ")
    assert "s3cret" not in str(caught.value)
    return caught.value


async def test_a_success_comes_with_its_body_over_any_address_of_the_name(authority: Authority) -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=b"x" * MAX_BODY, headers={"X-Said": "yes"})

    page = await get(authority, handle)
    assert (page.status, page.headers["x-said"], len(page.body)) == (200, "yes", MAX_BODY)


async def test_other_answers_come_without_body_and_are_not_followed(authority: Authority) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return redirect("https://files.example/again", 302)

    page = await get(authority, handle)
    assert (page.status, page.headers["Location"], page.body) == (302, "https://files.example/again", b"")


async def test_a_body_that_is_not_read_may_be_of_any_length(authority: Authority) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * (MAX_BODY + 1))

    async with (
        Registry(authority.issue(HOST), handle) as server,
        open_web(addresses_of, authority.file) as opened,
    ):
        page = await opened.get("it", URL(f"https://{HOST}:{server.port}/"), read=False)
    assert (page.status, page.body) == (200, b"")


async def test_no_cookie_is_kept(authority: Authority) -> None:
    seen: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "a=b"})

    async with (
        Registry(authority.issue(HOST), handle) as server,
        open_web(addresses_of, authority.file) as opened,
    ):
        for _ in range(2):
            await opened.get("it", URL(f"https://{HOST}:{server.port}/"))
    assert seen == [None, None]


async def test_a_small_body_is_not_made_a_large_one(authority: Authority) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=b"not gzip at all", headers={"Content-Encoding": "gzip"})

    assert (await get(authority, handle)).body == b"not gzip at all"


@pytest.mark.parametrize(("octets", "reason"), [(MAX_BODY + 1, Doubt.TOO_LARGE)])
async def test_a_body_beyond_the_limit(authority: Authority, octets: int, reason: Doubt) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * octets)

    assert (await refused(authority, handle)).reason is reason


async def test_a_header_beyond_the_limit(authority: Authority) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(headers={"X-Large": "x" * 20_000})

    assert (await refused(authority, handle)).reason is Doubt.NOT_HTTP


async def test_a_connection_that_is_cut(authority: Authority) -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    assert (await refused(authority, handle)).reason is Doubt.UNREACHABLE


async def test_a_name_that_the_resolvers_do_not_know(authority: Authority) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response()

    error = await refused(authority, handle, "other.example")
    assert (error.reason, "nobody knows other.example." in str(error)) == (Doubt.UNREACHABLE, True)


async def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("none.pem", "empty.pem"):
        with pytest.raises(DiscoverError, match=f"ca_file .*{name}") as caught:
            async with open_web(addresses_of, tmp_path / name):
                pytest.fail("opened")
        assert caught.value.reason is Doubt.CERTIFICATE
