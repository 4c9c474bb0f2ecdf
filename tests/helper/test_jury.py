from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from dnsproxy.errors import StartError
from dnsproxy.helper import jury as module
from dnsproxy.helper.jury import Jury
from dnsproxy.settings.jury import JurySettings
from tests.certificates import make_certificate

NAME, NEW = "a.example.", ("10.0.0.2",)
ROLLED_BACK: dict[str, Any] = {
    "canary": {"trials": [{"name": NAME, "state": "rolled_back", "reason": "failed", "new": list(NEW)}]}
}


class Proxy:
    """An admin endpoint that gives ``answer`` to whoever has the token."""

    def __init__(self) -> None:
        self.answer: Any = ROLLED_BACK
        self.status = 200
        self.text: str | None = None
        self.scope: str | None = None
        app = web.Application()
        app.router.add_get("/api/v1/canary", self._canary)
        self.server = TestServer(app)

    async def _canary(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer a-token":
            return web.json_response({"error": "a bearer token is needed"}, status=401)
        if self.text is not None:
            return web.Response(text=self.text)
        return web.json_response(
            self.answer, status=self.status, headers={"X-Dnsproxy-Token": self.scope} if self.scope else None
        )

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    made = Proxy()
    await made.server.start_server()
    yield made
    await made.server.close()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("a-token\n")
    return path


def settings(token: Path, *proxies: str, **keys: Any) -> JurySettings:
    return JurySettings.model_validate(
        {"proxies": list(proxies), "read_token_file": str(token), "interval": "1s", **keys}
    )


async def test_what_a_proxy_has_rolled_back_is_refused(proxy: Proxy, token: Path, logs: list[Any]) -> None:
    jury = Jury(settings(token, proxy.url))
    changed = asyncio.Event()
    task = asyncio.ensure_future(jury.run(changed.set))
    try:
        async with asyncio.timeout(20):
            await changed.wait()
            assert jury.refused() == {(NAME, NEW)}
            changed.clear()
            proxy.answer = {"canary": None}
            await changed.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert jury.refused() == frozenset()
    told = [line["event"] for line in logs]
    assert told == ["helper.set_refused", "helper.set_refused_no_more"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": 500}, "status 500"),
        ({"text": "no JSON"}, "not understood: "),
        ({"text": '{"canary": {"trials": 5}}'}, "not understood: "),
        ({"text": "[" * 100_000}, "not understood: "),
        ({"text": " " * 200}, "larger than 100 octets"),
    ],
)
async def test_one_that_makes_no_sense_goes_on_saying_what_it_said(
    change: dict[str, Any],
    reason: str,
    proxy: Proxy,
    token: Path,
    logs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jury = Jury(settings(token, proxy.url))
    await jury.ask_all()
    if "larger" in reason:
        monkeypatch.setattr(module, "MAX_ANSWER", 100)
    for key, value in change.items():
        setattr(proxy, key, value)
    await jury.ask_all()
    await jury.ask_all()
    assert jury.refused() == {(NAME, NEW)}
    assert jury.failures[proxy.url].startswith(reason)
    proxy.text, proxy.status, proxy.answer = None, 200, {"canary": None}
    await jury.ask_all()
    assert jury.failures == {}
    told = [line["event"] for line in logs]
    assert told == ["helper.proxy_unheard", "helper.proxy_heard"]


async def test_one_that_is_not_there_keeps_nobody_from_being_heard(proxy: Proxy, token: Path) -> None:
    closed = Proxy()
    await closed.server.start_server()
    await closed.server.close()
    jury = Jury(settings(token, "http://127.0.0.1:1", proxy.url))
    await jury.ask_all()
    assert jury.refused() == {(NAME, NEW)}
    assert jury.failures == {"http://127.0.0.1:1": "Connection refused"}


async def test_a_certificate_that_is_not_trusted_is_named(token: Path, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(make_certificate(tmp_path, "a.example"))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        jury = Jury(settings(token, url))
        await jury.ask_all()
    assert "certificate" in jury.failures[url]


async def test_without_the_token_nothing_is_told(proxy: Proxy) -> None:
    jury = Jury(JurySettings(proxies=[proxy.url]))
    await jury.ask_all()
    assert jury.failures == {proxy.url: "status 401"}


async def test_a_proxy_that_refuses_without_end_does_not_fill_the_log(
    proxy: Proxy, token: Path, logs: list[Any]
) -> None:
    trial = ROLLED_BACK["canary"]["trials"][0]
    proxy.answer = {"canary": {"trials": [trial | {"name": f"n{number}.example."} for number in range(500)]}}
    jury = Jury(settings(token, proxy.url))
    changed = asyncio.Event()
    task = asyncio.ensure_future(jury.run(changed.set))
    async with asyncio.timeout(20):
        await changed.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(jury.refused()) == 500
    assert [line["event"] for line in logs] == ["helper.set_refused"] * 20


@pytest.mark.parametrize("key", ["read_token_file", "ca_file"])
def test_a_file_that_is_missing_is_named(key: str, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"helper.canary.{key}"):
        Jury(JurySettings.model_validate({"proxies": ["https://10.0.0.1:1"], key: str(tmp_path / "none")}))


async def test_a_token_that_gives_orders_is_reported_and_the_vote_does_not_count(
    proxy: Proxy, token: Path, logs: list[Any]
) -> None:
    proxy.scope = "orders"
    jury = Jury(settings(token, proxy.url))
    await jury.ask_all()
    assert jury.refused() == frozenset()
    assert jury.failures[proxy.url].startswith("the token gives orders there")
    proxy.scope = "reads"
    await jury.ask_all()
    assert jury.refused() == {(NAME, NEW)}
    assert [line["event"] for line in logs] == ["helper.proxy_unheard", "helper.proxy_heard"]


async def test_a_refusal_ends_after_a_day(proxy: Proxy, token: Path) -> None:
    now = 1_000_000.0
    jury = Jury(settings(token, proxy.url), wall=lambda: now)
    for _ in range(2):
        await jury.ask_all()
        assert jury.refused() == {(NAME, NEW)}
        now += 86_399.0 / 2
    now += 1.0
    await jury.ask_all()
    assert jury.refused() == frozenset()
