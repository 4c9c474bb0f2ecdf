from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest

from dnsproxy.admin.app import AdminServer, start_admin
from dnsproxy.admin.page import POLICY
from dnsproxy.settings.serving import AdminSettings
from dnsproxy.settings.values import Endpoint
from tests.admin.test_app import Operated

FILES = {"status.css": "text/css", "status.js": "text/javascript", "icon.svg": "image/svg+xml"}


@pytest.fixture
async def server() -> AsyncIterator[AdminServer]:
    opened = await start_admin(AdminSettings(), Endpoint("127.0.0.1", 0), Operated())
    yield opened
    await opened.close()


@pytest.fixture
async def session(server: AdminServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.endpoint.port}") as opened:
        yield opened


HTML = {"Accept": "text/html,application/xhtml+xml"}


async def test_the_page(session: aiohttp.ClientSession) -> None:
    async with session.get("/", headers=HTML) as response:
        text = await response.text()
        headers = response.headers
    assert (response.status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["Cache-Control"] == "no-store"
    assert text.startswith("<!doctype html>")
    assert "a.example" in text


@pytest.mark.parametrize("accepted", [None, "*/*", "application/json"])
async def test_a_program_gets_the_paths(session: aiohttp.ClientSession, accepted: str | None) -> None:
    async with session.get("/", headers={"Accept": accepted} if accepted else None) as response:
        text = await response.text()
    assert (response.status, response.content_type, response.headers["Vary"]) == (200, "text/plain", "Accept")
    assert {"/", "/health", "/ready", "/metrics", "/api/v1/status", "/api/v1/pin"} <= set(text.split())


def test_the_policy_allows_nothing_but_this_origin() -> None:
    directives = dict(directive.strip().split(" ", 1) for directive in POLICY.split(";"))
    assert directives["default-src"] == directives["frame-ancestors"] == "'none'"
    assert set(directives.values()) == {"'none'", "'self'"}


@pytest.mark.parametrize("path", ["/", "/ready", "/metrics", "/api/v1/status", "/nothing", "/static/x"])
async def test_every_response_is_hardened(session: aiohttp.ClientSession, path: str) -> None:
    async with session.get(path) as response:
        headers = response.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", sorted(FILES))
async def test_a_file_is_sent_once(session: aiohttp.ClientSession, name: str) -> None:
    async with session.get(f"/static/{name}") as response:
        content = await response.read()
    tag = response.headers["ETag"]
    assert (response.status, response.content_type, bool(content)) == (200, FILES[name], True)
    assert response.headers["Cache-Control"] == "no-cache"
    for known, status in (
        (tag, 304),
        (f'"other", {tag}', 304),
        (f"W/{tag}", 304),
        ("*", 304),
        ('"other"', 200),
    ):
        async with session.get(f"/static/{name}", headers={"If-None-Match": known}) as response:
            assert (response.status, response.headers["ETag"]) == (status, tag)
            assert bool(await response.read()) is (status == 200)


@pytest.mark.parametrize("name", ["", "page.html.jinja", "..%2fpage.py", "%2e%2e/page.py", "status.cs"])
async def test_no_other_file_is_sent(session: aiohttp.ClientSession, name: str) -> None:
    async with session.get(f"/static/{name}") as response:
        assert response.status == 404


async def test_the_figures_are_gathered_first() -> None:
    operated = Operated()
    opened = await start_admin(AdminSettings(), Endpoint("127.0.0.1", 0), operated)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{opened.endpoint.port}") as session:
        for _ in range(2):
            async with session.get("/", headers=HTML) as response:
                assert response.status == 200
    await opened.close()
    assert operated.gathered == 2


def test_a_proxy_that_starts_does_not_load_the_template_engine() -> None:
    # In a process of its own: this one has loaded it for other tests.
    program = "import sys, dnsproxy.app, dnsproxy.admin.app; print('jinja2' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
