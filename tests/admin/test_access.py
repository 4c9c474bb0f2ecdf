"""The one check in front of every handler, over real connections."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import ValidationError

from dnsproxy.admin.access import Access, host_of, is_loopback
from dnsproxy.admin.app import AdminServer, create_app, start_admin
from dnsproxy.errors import StartError
from dnsproxy.settings.serving import AdminSettings
from dnsproxy.settings.values import Endpoint
from tests.admin.test_app import LOOPBACK, Operated

JSON = {"Content-Type": "application/json"}
Ask = Callable[..., Awaitable[tuple[int, Any]]]
Start = Callable[..., Awaitable[Ask]]


@pytest.fixture
def operated() -> Operated:
    return Operated()


@pytest.fixture
async def start(operated: Operated, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts the endpoint with the tokens given; gives a function that asks it."""
    servers: list[AdminServer] = []
    sessions: list[aiohttp.ClientSession] = []

    async def start(token: str | None = None, read_token: str | None = None, **settings: Any) -> Ask:
        for key, text in (("token_file", token), ("read_token_file", read_token)):
            if text is not None:
                (tmp_path / key).write_text(text)
                settings[key] = tmp_path / key
        server = await start_admin(AdminSettings(**settings), LOOPBACK, operated)
        session = aiohttp.ClientSession(f"http://127.0.0.1:{server.endpoint.port}")
        servers.append(server)
        sessions.append(session)

        async def ask(method: str, path: str, **options: Any) -> tuple[int, Any]:
            async with session.request(method, path, allow_redirects=False, **options) as response:
                text = await response.text()
                is_json = response.content_type == "application/json" and text
                return response.status, json.loads(text) if is_json else text

        return ask

    yield start
    for session in sessions:
        await session.close()
    for server in servers:
        await server.close()


def orders() -> list[tuple[str, str]]:
    """Method and path of all that does not read."""
    app = create_app(Operated(), Access())
    return sorted(
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.method not in {"GET", "HEAD"} and route.resource is not None
    )


def reads() -> list[str]:
    """Paths of all that reads."""
    app = create_app(Operated(), Access())
    resources = [r for r in app.router.resources() if isinstance(r, web.PlainResource)]
    return sorted({resource.canonical for resource in resources if any(x.method == "GET" for x in resource)})


def untouched(operated: Operated) -> bool:
    return not (operated.refreshed or operated.flushed or operated.restarts or operated.addresses.told)


async def test_there_is_something_to_guard() -> None:
    assert {
        "/api/v1/flush",
        "/api/v1/refresh",
        "/api/v1/reload",
        "/api/v1/restart-workers",
        "/api/v1/pin",
    } <= {path for _, path in orders()}
    assert {"/", "/metrics", "/api/v1/status", "/api/v1/canary", "/api/v1/history", "/health"} <= set(reads())


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
async def test_what_a_web_page_may_send_is_no_order(
    operated: Operated, start: Start, kind: str | None
) -> None:
    without, with_token = await start(), await start("s3cret")
    headers = {} if kind is None else {"Content-Type": kind}
    bearer = {"Authorization": "Bearer s3cret"}
    for method, path in orders():
        skipped = {"skip_auto_headers": ["Content-Type"]} if kind is None else {}
        assert (await without(method, path, data=b"{}", headers=headers, **skipped))[0] == 415
        assert (await with_token(method, path, data=b"{}", headers=headers | bearer, **skipped))[0] == 415
    assert untouched(operated)


@pytest.mark.parametrize("origin", ["http://attacker.example", "null", "http://127.0.0.1:1", ""])
async def test_a_page_of_another_origin_gives_no_orders(
    operated: Operated, start: Start, origin: str
) -> None:
    without, with_token = await start(), await start("s3cret")
    headers = JSON | {"Origin": origin, "Host": "127.0.0.1:9153"}
    for method, path in orders():
        assert (await without(method, path, data=b"{}", headers=headers))[0] == 403
        bearer = headers | {"Authorization": "Bearer s3cret"}
        assert (await with_token(method, path, data=b"{}", headers=bearer))[0] == 403
    assert untouched(operated)
    own = headers | {"Origin": "http://127.0.0.1:9153"}
    assert (await without("POST", "/api/v1/freeze", data=b"{}", headers=own))[0] == 200


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:9153", "127.0.0.1.attacker.example"])
async def test_a_page_that_was_pointed_here_gives_no_orders(
    operated: Operated, start: Start, host: str
) -> None:
    ask = await start(hosts=["proxy.example"], identity="proxy-1")
    for method, path in orders():
        for name in (host, "proxy.example", "proxy-1"):
            status, told = await ask(method, path, data=b"{}", headers={"Host": name, **JSON})
            error = "orders from elsewhere than loopback need admin.token_file"
            assert (status, told) == (403, {"error": error})
    assert untouched(operated)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_every_other_method_is_an_order(operated: Operated, start: Start, method: str) -> None:
    ask = await start()
    for path in ("/api/v1/flush", "/metrics", "/health"):
        assert (await ask(method, path, headers={"Host": "attacker.example"}))[0] == 403
        assert (await ask(method, path))[0] == 405
    ask = await start("s3cret")
    assert (await ask(method, "/metrics", headers=JSON))[0] == 401
    assert untouched(operated)


async def test_orders_from_this_host_and_with_the_token(operated: Operated, start: Start) -> None:
    ask = await start()
    for host in ("localhost", "localhost:9153", "[::1]:9153", "127.0.0.1", "LOCALHOST."):
        assert (await ask("POST", "/api/v1/freeze", data=b"{}", headers={"Host": host, **JSON}))[0] == 200
    ask = await start("s3cret")
    headers = {"Host": "anything.example", "Authorization": "Bearer s3cret", **JSON}
    assert (await ask("POST", "/api/v1/freeze", data=b"{}", headers=headers))[0] == 200
    assert len(operated.addresses.told) == 6


async def test_a_foreign_host_reads_nothing(start: Start) -> None:
    ask = await start(hosts=["proxy.example"], identity="Proxy-1")
    for path in reads():
        for host in ("attacker.example", "attacker.example:80", "192.0.2.1", "x@localhost", "", "::1", "a b"):
            status, told = await ask("GET", path, headers={"Host": host})
            if path in {"/health", "/ready"}:
                assert told == {}
            else:
                assert (status, list(told)) == (403, ["error"]), path
        for host in ("localhost:9153", "127.0.0.1", "127.0.0.2:80", "[::1]", "proxy.example", "PROXY-1:9153"):
            assert (await ask("GET", path, headers={"Host": host}))[0] != 403, path


async def test_with_a_token_the_host_does_not_matter(start: Start) -> None:
    ask = await start("s3cret")
    headers = {"Host": "anything.example"}
    assert (await ask("GET", "/metrics", headers=headers))[0] == 401
    assert (await ask("GET", "/metrics", headers={**headers, "Authorization": "Bearer s3cret"}))[0] == 200
    assert (await ask("GET", "/health", headers=headers)) == (200, {"status": "ok"})


async def test_one_of_two_hosts_is_not_enough(start: Start, operated: Operated) -> None:
    server = await start_admin(AdminSettings(), LOOPBACK, operated)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.endpoint.port)
    writer.write(
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: attacker.example\r\nConnection: close\r\n\r\n"
    )
    first = await reader.readline()
    assert first.split()[1] in {b"403", b"400"}
    writer.close()
    await server.close()


async def test_the_read_only_token_reads_and_gives_no_orders(operated: Operated, start: Start) -> None:
    ask = await start("s3cret", "reader")
    basic = base64.b64encode(b"me:reader").decode()
    for path in reads():
        expected = (await ask("GET", path, headers={"Authorization": "Bearer s3cret"}))[0]
        assert expected != 401
        for given in ("Bearer reader", f"Basic {basic}"):
            assert (await ask("GET", path, headers={"Authorization": given}))[0] == expected
    for method, path in orders():
        status, told = await ask(method, path, data=b"{}", headers={"Authorization": "Bearer reader", **JSON})
        assert (status, told) == (403, {"error": "admin.read_token_file gives no orders"})
        headers = {"Authorization": f"Basic {basic}", **JSON}
        assert (await ask(method, path, data=b"{}", headers=headers))[0] == 401
    assert untouched(operated)


async def test_a_response_says_what_the_token_is_good_for() -> None:
    async with TestClient(TestServer(create_app(Operated(), Access("s3cret", "reader")))) as client:
        for given, expected in (("s3cret", "orders"), ("reader", "reads"), ("other", None)):
            response = await client.get("/api/v1/canary", headers={"Authorization": f"Bearer {given}"})
            assert response.headers.get("X-Dnsproxy-Token") == expected


async def test_both_tokens_differ_and_there_is_a_first(start: Start) -> None:
    with pytest.raises(StartError, match=r"admin\.read_token_file: holds the token of admin\.token_file"):
        await start("same", "same")
    with pytest.raises(ValidationError, match="read_token_file needs token_file"):
        AdminSettings(read_token_file=Path("token"))


@pytest.mark.parametrize(
    ("listen", "host", "known"),
    [
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.6", False),
        ("0.0.0.0", "10.0.0.6", True),
        ("::", "fd00::1", True),
        ("0.0.0.0", "name.example", False),
    ],
)
def test_the_address_of_the_listener_is_known(listen: str, host: str, *, known: bool) -> None:
    access = Access.from_settings(AdminSettings(), Endpoint(listen, 9153))
    text = f"[{host}]" if ":" in host else host
    request = type("Request", (), {"headers": Headers(text), "transport": None})()
    assert access.knows_host(request) is known


class Headers:
    """The one header that is looked at."""

    def __init__(self, host: str) -> None:
        self._host = host

    def getall(self, _name: str, _default: list[str]) -> list[str]:
        return [self._host]


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("a.example", "a.example"),
        ("A.Example.:80", "a.example"),
        ("[::1]:9153", "::1"),
        ("::1", None),
        ("a:b", None),
        ("a@b", None),
        ("a/b", None),
        ("", None),
        ("x" * 300, None),
    ],
)
def test_the_host_of_a_field(text: str, host: str | None) -> None:
    assert host_of(text) == host


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        (None, False),
    ],
)
def test_loopback(host: str | None, *, expected: bool) -> None:
    assert is_loopback(host) is expected
