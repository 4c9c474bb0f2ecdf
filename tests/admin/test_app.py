from __future__ import annotations

import asyncio
import base64
import io
import shutil
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from dnsproxy.admin.app import PER_CLIENT, TOTAL, start_admin
from dnsproxy.admin.status import Facts
from dnsproxy.core import names
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.explain import Explanation, Question, explain
from dnsproxy.core.registry import Wanted
from dnsproxy.core.stats import Stats
from dnsproxy.core.totals import Outcome, PullResult
from dnsproxy.errors import StartError
from dnsproxy.http_listener import open_socket
from dnsproxy.settings import Settings
from dnsproxy.settings.serving import AdminSettings, AdminTlsSettings
from dnsproxy.settings.values import Endpoint
from tests.admin.test_control import Control
from tests.certificates import make_certificate
from tests.messages import engine
from tests.strategies import learned, served_table, snapshot

LOOPBACK = Endpoint("127.0.0.1", 0)


class Operated:
    """A proxy that wants one name and notes what it is told."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.table = ServedTable()
        self.draining = False
        self.refreshed = self.restarts = 0
        self.outcome = Outcome()
        self.refusal: str | None = None
        self.gathered = 0
        self.flushed: list[bytes | None] = []
        self.addresses = Control()

    async def gather(self) -> None:
        self.gathered += 1

    def facts(self) -> Facts:
        return Facts(
            wanted=[Wanted("a.example.", "registry", "hangzhou")],
            table=self.table,
            sources=[],
            rejected={},
            stats=Stats(),
            upstreams={},
            cache_entries=0,
            in_flight=0,
            wall_now=1050.0,
            started_at=1000.0,
            draining=self.draining,
        )

    async def refresh(self) -> list[PullResult]:
        self.refreshed += 1
        return [PullResult("http://a.example/", issuer="helper-a", serial=7)]

    async def flush(self, name_key: bytes | None) -> int:
        self.flushed.append(name_key)
        return 3

    async def explain(self, key: bytes, qtype: int, client: bytes | None) -> Explanation:
        return explain(engine(), Question(key, qtype, allowed=None if client is None else False), 1.0)

    async def reload(self) -> Outcome:
        return self.outcome

    def restart_workers(self) -> str | None:
        self.restarts += 1
        return self.refusal


Ask = Callable[..., Awaitable[tuple[int, Any]]]
Start = Callable[..., Awaitable[Ask]]


@pytest.fixture
def operated() -> Operated:
    return Operated()


@pytest.fixture
async def start(operated: Operated) -> AsyncIterator[Start]:
    """Starts the endpoint; gives a function that asks it and returns status and content."""
    closers: list[Callable[[], Awaitable[None]]] = []

    async def start(token_file: Path | None = None) -> Ask:
        server = await start_admin(AdminSettings(token_file=token_file), LOOPBACK, operated)
        session = aiohttp.ClientSession(f"http://127.0.0.1:{server.endpoint.port}")
        closers.extend([session.close, server.close])

        async def ask(method: str, path: str, **options: Any) -> tuple[int, Any]:
            if method == "POST" and "json" not in options:
                options["headers"] = {"Content-Type": "application/json", **options.get("headers", {})}
            async with session.request(method, path, allow_redirects=False, **options) as response:
                is_json = response.content_type == "application/json"
                return response.status, await (response.json() if is_json else response.text())

        return ask

    yield start
    for close in closers:
        await close()


async def test_health_and_readiness(operated: Operated, start: Start) -> None:
    ask = await start()
    assert await ask("GET", "/health") == (200, {"status": "ok"})
    missing = {"ready": False, "draining": False, "missing": ["a.example."]}
    assert await ask("GET", "/ready") == (503, missing)
    operated.table = served_table(snapshot(learned("a.example.")))
    assert await ask("GET", "/ready") == (200, {"ready": True, "draining": False, "missing": []})
    operated.draining = True
    assert await ask("GET", "/ready") == (503, {"ready": False, "draining": True, "missing": []})
    assert (await ask("GET", "/health"))[0] == 200


async def test_status_and_metrics(operated: Operated, start: Start) -> None:
    operated.table = served_table(snapshot(learned("a.example."), serial=7))
    ask = await start()
    status, document = await ask("GET", "/api/v1/status")
    assert (status, document["serial"], document["names"][0]["status"]) == (200, 7, "ok")
    status, text = await ask("GET", "/metrics")
    values = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
    assert (status, values["dnsproxy_learned_serial"]) == (200, 7)
    # Readiness asks nobody: a probe must not wait for workers.
    await ask("GET", "/ready")
    assert operated.gathered == 2


@pytest.mark.parametrize("path", ["/ready", "/metrics", "/api/v1/status", "/"])
async def test_documents_asked_for_at_one_time_leave_turns_to_queries(
    operated: Operated, start: Start, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    loop, facts, all_here = asyncio.get_running_loop(), operated.facts, asyncio.Barrier(8)
    turn, made = 0, []

    def count() -> None:
        nonlocal turn
        turn += 1
        counting.append(loop.call_soon(count))

    def counted() -> Facts:
        made.append(turn)
        return facts()

    async def gather() -> None:
        await all_here.wait()

    monkeypatch.setattr(operated, "facts", counted)
    monkeypatch.setattr(operated, "gather", gather)
    ask = await start()
    counting: deque[asyncio.Handle] = deque(maxlen=1)
    count()
    await asyncio.gather(*(ask("GET", path, headers={"Accept": "text/html"}) for _ in range(8)))
    counting[0].cancel()
    assert len(set(made)) == len(made) == 8


async def test_refresh(operated: Operated, start: Start) -> None:
    ask = await start()
    result = {"url": "http://a.example/", "error": None, "issuer": "helper-a", "serial": 7}
    assert await ask("POST", "/api/v1/refresh") == (200, {"sources": [result]})
    assert (await ask("GET", "/api/v1/refresh"))[0] == 405
    assert operated.refreshed == 1


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("/api/v1/flush", {}, None),
        ("/api/v1/flush", {"json": {}}, None),
        ("/api/v1/flush", {"json": {"name": None}}, None),
        ("/api/v1/flush", {"json": {"name": "WWW.Example"}}, "www.example."),
        ("/api/v1/flush?name=www.example.", {}, "www.example."),
    ],
)
async def test_flush(
    operated: Operated, start: Start, path: str, options: dict[str, Any], expected: str | None
) -> None:
    ask = await start()
    assert await ask("POST", path, **options) == (200, {"flushed": 3})
    assert operated.flushed == [None if expected is None else names.to_key(expected)]


@pytest.mark.parametrize(
    "body",
    [
        b"junk",
        b"[]",
        b'["www.example"]',
        b'"x"',
        b'{"name": 5}',
        b'{"name": ""}',
        b'{"name": "a..b"}',
        b"\xff",
    ],
)
async def test_a_body_that_is_not_understood_forgets_nothing(
    operated: Operated, start: Start, body: bytes
) -> None:
    ask = await start()
    status, answer = await ask("POST", "/api/v1/flush", data=body)
    assert status == 400
    assert answer["error"].startswith("name: ")
    assert operated.flushed == []


async def test_bodies_that_are_deep_or_large(operated: Operated, start: Start) -> None:
    ask = await start()
    assert (await ask("POST", "/api/v1/flush", data=b"[" * 60_000))[0] == 400
    assert (await ask("POST", "/api/v1/flush", data=io.BytesIO(b" " * 3_000_000)))[0] == 413
    assert operated.flushed == []


async def test_other_paths(start: Start) -> None:
    ask = await start()
    assert (await ask("GET", "/nothing"))[0] == 404


GUARDED = [
    ("GET", "/"),
    ("GET", "/static/status.js"),
    ("GET", "/metrics"),
    ("GET", "/api/v1/explain?name=a.example"),
    ("GET", "/api/v1/status"),
    ("GET", "/%61pi/v1/status"),
    ("POST", "/api/v1/refresh"),
    ("POST", "/api/v1/flush"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_the_token_is_asked_for(
    operated: Operated, start: Start, tmp_path: Path, method: str, path: str
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("s3cret\n")
    ask = await start(token_file)
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
        assert (await ask(method, path, headers=header))[0] == 401
    assert (operated.refreshed, operated.flushed) == (0, [])
    assert (await ask(method, path, headers={"Authorization": "Bearer s3cret"}))[0] in {200, 202}


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


async def test_a_browser_may_give_the_token_as_a_password(
    operated: Operated, start: Start, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("s3cret\n")
    ask = await start(token_file)
    for path in ("/", "/metrics", "/api/v1/status", "/static/status.css"):
        assert (await ask("GET", path, headers=basic("me:s3cret")))[0] == 200
        assert (await ask("GET", path, headers=basic("me:wrong")))[0] == 401
        assert (await ask("HEAD", path, headers=basic(":s3cret")))[0] == 200
    # A browser would send it along with a form of anybody's page.
    for path in ("/api/v1/refresh", "/api/v1/flush", "/api/v1/freeze"):
        assert (await ask("POST", path, headers=basic("me:s3cret")))[0] == 401
    assert (operated.refreshed, operated.flushed, operated.addresses.told) == (0, [], [])


async def test_who_gives_no_token_is_told_how(operated: Operated, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("s3cret\n")
    server = await start_admin(AdminSettings(token_file=token_file), LOOPBACK, operated)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.endpoint.port}") as session:
        async with session.get("/") as response:
            challenge = response.headers["WWW-Authenticate"]
        async with session.post("/api/v1/flush") as response:
            assert "WWW-Authenticate" not in response.headers
    await server.close()
    assert challenge.startswith("Basic realm=")
    assert challenge.endswith(', Bearer realm="dnsproxy"')


async def test_probes_need_no_token(start: Start, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("s3cret")
    ask = await start(token_file)
    assert (await ask("GET", "/health"))[0] == 200
    assert (await ask("GET", "/ready"))[0] == 503


async def test_a_port_in_use(operated: Operated) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = Endpoint("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(StartError) as caught:
            await start_admin(AdminSettings(), listen, operated)
    assert str(caught.value) == f"admin.listen: cannot listen on {listen}: Address already in use"


async def test_an_unusable_token_file(operated: Operated, tmp_path: Path) -> None:
    path = tmp_path / "token"
    settings = AdminSettings(token_file=path)
    with pytest.raises(StartError, match=r"admin\.token_file: .*No such file"):
        await start_admin(settings, LOOPBACK, operated)
    path.write_text(" \n")
    with pytest.raises(StartError, match=r"admin\.token_file: .*not empty"):
        await start_admin(settings, LOOPBACK, operated)


@pytest.mark.parametrize(
    ("host", "token", "warned"),
    [
        ("127.0.0.1", None, False),
        ("127.0.0.2", None, False),
        ("0.0.0.0", None, True),
        ("0.0.0.0", "x", False),
    ],
)
async def test_an_open_endpoint_is_warned_of(
    operated: Operated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    token: str | None,
    *,
    warned: bool,
) -> None:
    # Only the decision is looked at: the socket itself stays on loopback.
    monkeypatch.setattr("dnsproxy.admin.app.open_socket", lambda _, port: open_socket("127.0.0.1", port))
    token_file = None
    if token is not None:
        token_file = tmp_path / "token"
        token_file.write_text(token)
    with capture_logs() as logs:
        server = await start_admin(AdminSettings(token_file=token_file), Endpoint(host, 0), operated)
        await server.close()
    assert any(entry["event"] == "admin.open" for entry in logs) is warned


async def test_https_with_a_certificate_that_is_read_again(operated: Operated, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "a.example")
    authority = tmp_path / "authority.pem"
    shutil.copy(certificate, authority)
    settings = AdminSettings(tls=AdminTlsSettings(cert_file=certificate, key_file=certificate))
    server = await start_admin(settings, LOOPBACK, operated)

    async def ask(name: str) -> int:
        context = ssl.create_default_context(cafile=authority)
        async with (
            aiohttp.ClientSession(f"https://127.0.0.1:{server.endpoint.port}") as session,
            session.get("/api/v1/status", ssl=context, server_hostname=name) as response,
        ):
            return response.status

    assert await ask("a.example") == 200
    make_certificate(tmp_path, "b.example").replace(certificate)
    shutil.copy(certificate, authority)
    assert await ask("b.example") == 200
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await ask("a.example")
    await server.close()


async def test_a_certificate_that_cannot_be_used(operated: Operated, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    settings = AdminSettings(tls=AdminTlsSettings(cert_file=missing, key_file=missing))
    with pytest.raises(StartError, match=r"admin\.tls: .*No such file"):
        await start_admin(settings, LOOPBACK, operated)


async def test_half_sent_requests_keep_nobody_out(operated: Operated) -> None:
    """760 of them exhausted the descriptors of the process."""
    server = await start_admin(AdminSettings(), LOOPBACK, operated)
    async with AsyncExitStack() as stack:
        for _ in range(3 * TOTAL):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.endpoint.port))
            sock.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-")
        session = await stack.enter_async_context(
            aiohttp.ClientSession(f"http://127.0.0.1:{server.endpoint.port}")
        )
        async with session.get("/health") as response:
            assert response.status == 200
        assert server._listener.connections <= PER_CLIENT
        await server.close()


async def test_requests_are_not_logged(start: Start) -> None:
    ask = await start()
    with capture_logs() as logs:
        await ask("GET", "/health")
    assert logs == []


async def test_registries(start: Start) -> None:
    ask = await start()
    verify = {"ports": [443], "tls": True, "ca_file": None}
    assert await ask("GET", "/api/v1/registries") == (200, {"registries": [], "verify": verify})
