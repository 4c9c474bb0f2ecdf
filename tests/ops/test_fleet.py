from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dnsproxy.admin.standing import standing_document
from dnsproxy.admin.status import status_document
from dnsproxy.ops import fleet
from dnsproxy.ops.fleet import FleetError, ask_endpoints, parse_endpoint, read_endpoints, standing_of
from tests.fakes.facts import NOW, bad_facts, good_facts

WORD = "of-the-fleet"
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


def document(**changes: Any) -> dict[str, Any]:
    facts = good_facts()
    told: dict[str, Any] = json.loads(json.dumps(status_document(facts) | standing_document(facts)))
    return told | changes


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve whatever is asked for by one handler; return the URL."""
    runners: list[web.AppRunner] = []

    async def start(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> str:
        app = web.Application()
        app.router.add_get("/{any:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("10.0.0.1:9153", "http://10.0.0.1:9153"),
        ("[fd00::1]:9153", "http://[fd00::1]:9153"),
        ("proxy-1.internal:9153", "http://proxy-1.internal:9153"),
        ("https://proxies.internal/one/", "https://proxies.internal/one"),
    ],
)
def test_an_endpoint_is_a_url_or_host_and_port(text: str, url: str) -> None:
    assert parse_endpoint(text) == url


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1", "ftp://a", "http://", "http://a?b", "http://u:p@a", "http://a:99999", "a:b:1"]
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"endpoint|[Pp]ort"):
        parse_endpoint(text)


def test_a_file_of_endpoints(tmp_path: Path) -> None:
    path = tmp_path / "fleet"
    path.write_text("# all\n10.0.0.1:9153  # one\n\nhttp://b:1\n")
    assert read_endpoints(path) == ["http://10.0.0.1:9153", "http://b:1"]


def test_every_wrong_line_of_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "fleet"
    path.write_text("10.0.0.1:9153\nnonsense\nftp://x\n")
    with pytest.raises(ValueError, match="nonsense") as caught:
        read_endpoints(path)
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == [f"{path}:2", f"{path}:3"]
    with pytest.raises(ValueError, match="No such file"):
        read_endpoints(tmp_path / "missing")
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_endpoints(path)


def test_what_a_status_document_says() -> None:
    standing = standing_of("http://a:1", document())
    assert (standing.proxy, standing.ready, standing.draining) == ("idc-dns-1", True, False)
    assert standing.serials == {"helper-a": NOW * 1000}
    assert (standing.age, standing.last_error) == (5.0, None)
    assert standing.buckets[-1] == (float("inf"), 0.0)
    facts = bad_facts()
    bad = standing_of("http://a:1", status_document(facts) | standing_document(facts))
    assert (bad.ready, bad.draining, bad.last_error) == (False, True, "no answer")


def test_an_earlier_version_tells_by_its_sources() -> None:
    told = document()
    for key in ("proxy", "issuers", "convergence"):
        del told[key]
    standing = standing_of("http://a:1", told)
    assert (standing.proxy, standing.serials, standing.buckets) == ("idc-dns-1", {"helper-a": 5}, [])


@pytest.mark.parametrize("told", [{}, {"names": 1}, document(names=[1]), document(issuers=[{}])])
def test_other_documents_are_refused(told: dict[str, Any]) -> None:
    with pytest.raises(FleetError, match="not a status document"):
        standing_of("http://a:1", told)


async def test_all_are_asked_each_once_with_the_token(serve: Serve) -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(f"{request.path} {request.headers.get('Authorization')}")
        return web.json_response(document())

    one, other = await serve(handler), await serve(handler)
    standings = await ask_endpoints([one, other, one], token=WORD, at_once=1)
    assert [standing.endpoint for standing in standings] == [one, other]
    assert asked == [f"/api/v1/status Bearer {WORD}"] * 2
    assert all(standing.silence is None for standing in standings)


async def test_those_who_do_not_answer_are_named_with_the_reason(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, Callable[[], web.StreamResponse]] = {
        "/closed/api/v1/status": lambda: web.json_response({"error": "a bearer token is needed"}, status=401),
        "/moved/api/v1/status": lambda: web.Response(status=302, headers={"Location": "/ok/api/v1/status"}),
        "/text/api/v1/status": lambda: web.Response(text="hello"),
        "/list/api/v1/status": lambda: web.json_response([1]),
        "/deep/api/v1/status": lambda: web.Response(text="[" * 100_000),
        "/other/api/v1/status": lambda: web.json_response({"version": "1"}),
        "/large/api/v1/status": lambda: web.Response(body=b" " * 200_000),
        "/ok/api/v1/status": lambda: web.json_response(document()),
    }
    monkeypatch.setattr(fleet, "MAX_DOCUMENT", 100_000)
    monkeypatch.setattr(fleet.get_json, "__defaults__", (None, 100_000))

    async def handler(request: web.Request) -> web.StreamResponse:
        return answers[request.path]()

    url = await serve(handler)
    standings = await ask_endpoints([f"{url}{path.removesuffix('/api/v1/status')}" for path in answers])
    assert [standing.silence for standing in standings] == [
        "status 401 a bearer token is needed",
        "status 302 Found",
        *["the answer is not a JSON object"] * 3,
        "not a status document of dnsproxy",
        "an answer of more than 100000 octets",
        None,
    ]


async def test_one_that_hangs_and_one_that_is_gone(serve: Serve, unused_tcp_port: int) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        # The body never ends.
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    url = await serve(handler)
    gone = f"http://127.0.0.1:{unused_tcp_port}"
    hangs, refuses = await ask_endpoints([url, gone], timeout=0.5)
    assert hangs.silence == "none within 0.5 s"
    assert refuses.silence == "connection refused"
