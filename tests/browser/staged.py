"""An admin endpoint in a thread, of a proxy that is in whatever state a test wants to see."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any, Self

from dnsproxy.admin.app import AdminServer, start_admin
from dnsproxy.admin.status import Facts
from dnsproxy.core.explain import Explanation
from dnsproxy.core.totals import Outcome, PullResult
from dnsproxy.settings import Settings
from dnsproxy.settings.serving import AdminSettings
from dnsproxy.settings.values import Endpoint
from tests.admin.test_control import Control
from tests.fakes.facts import good_facts


class Staged:
    """The endpoint while its context lasts; ``facts`` may be replaced at any time."""

    def __init__(self, settings: AdminSettings | None = None) -> None:
        self.facts_now = good_facts()
        self.addresses = Control()
        self.settings = Settings()
        self._settings = settings or AdminSettings()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: AdminServer | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(start_admin(self._settings, Endpoint("127.0.0.1", 0), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._run(self._server.close())
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.endpoint.port

    def show(self, facts: Facts) -> None:
        """Be in this state from now on."""
        self.addresses.state.overrides = facts.overrides
        self.facts_now = facts

    # -- admin.app.Operated

    async def gather(self) -> None:
        """Nothing to wait for."""

    def facts(self) -> Facts:
        return self.facts_now

    async def refresh(self) -> list[PullResult]:
        raise AssertionError("the page gives no orders")

    async def flush(self, name_key: bytes | None) -> int:
        raise AssertionError(f"the page gives no orders: {name_key!r}")

    async def explain(self, key: bytes, qtype: int, client: bytes | None) -> Explanation:
        raise AssertionError(f"the page asks for no explanation: {(key, qtype, client)}")

    async def reload(self) -> Outcome:
        return Outcome()

    def restart_workers(self) -> str | None:
        return None
