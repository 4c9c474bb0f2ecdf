from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from dnsproxy.admin.lifecycle import LifecycleApi
from dnsproxy.core.totals import Outcome


class Program:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.outcome = Outcome()
        self.refusal: str | None = None
        self.told: list[str] = []

    async def reload(self) -> Outcome:
        self.told.append("reload")
        return self.outcome

    def restart_workers(self) -> str | None:
        self.told.append("restart-workers")
        return self.refusal


Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
async def ask(program: Program) -> AsyncIterator[Ask]:
    app = web.Application()
    LifecycleApi(program).add_to(app)
    async with TestClient(TestServer(app)) as client:

        async def ask(path: str, **options: Any) -> tuple[int, Any]:
            async with client.post(f"/api/v1/{path}", **options) as response:
                return response.status, await response.json()

        yield ask


async def test_what_a_reload_changed(program: Program, ask: Ask) -> None:
    program.outcome = Outcome(("serve.allow",), ("user",), files=("/etc/dnsproxy/helper.pub",))
    changed = {"changed": ["serve.allow"], "changed_files": ["/etc/dnsproxy/helper.pub"]}
    assert await ask("reload", json={}) == (200, {**changed, "need_restart": ["user"]})


async def test_every_reason_why_it_did_not(program: Program, ask: Ask) -> None:
    program.outcome = Outcome(problems=("config.yaml:1: a", "config.yaml:2: b"))
    assert await ask("reload", json={}) == (
        409,
        {
            "error": "config.yaml:1: a\nconfig.yaml:2: b",
            "problems": ["config.yaml:1: a", "config.yaml:2: b"],
        },
    )


async def test_workers_are_replaced_where_there_are_some(program: Program, ask: Ask) -> None:
    assert await ask("restart-workers", json={}) == (202, {"restart": "started"})
    program.refusal = "there are none"
    assert await ask("restart-workers", json={}) == (409, {"error": "there are none"})
