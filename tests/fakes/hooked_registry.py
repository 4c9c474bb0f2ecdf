"""A registry, its token service and whatever else speaks HTTPS, on one port of loopback, with one hook.

``handle(request)`` returns the response; what it raises fails the test.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.netns.authority import Certificate

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]

DIGEST = "sha256:" + "c" * 64
MANIFEST = {"schemaVersion": 2, "config": {"digest": DIGEST, "size": 2}, "layers": []}


class Registry:
    """Listens on 127.0.0.1 while its context lasts; ``requests`` has host and path of each, in order."""

    def __init__(self, certificate: Certificate, handle: Handle) -> None:
        self.handle = handle
        self.port = 0
        self.requests: list[str] = []
        self._certificate = certificate
        self._failures: list[Exception] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._certificate.certificate, self._certificate.key)
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        if self._failures and exc is None:
            raise self._failures[0]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.host.partition(':')[0]}{request.path}")
        try:
            return await self.handle(request)
        except Exception as exc:
            self._failures.append(exc)
            raise


class Threaded:
    """Runs a registry in a thread of its own, for tests that wait for processes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Registry:
        self._thread.start()
        self._run(self._registry.__aenter__())
        return self._registry

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(self._registry.__aexit__(kind, exc, trace))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, step: Awaitable[object]) -> None:
        async def run() -> None:
            await step

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)


def unauthorized(*challenges: str) -> web.Response:
    """The answer to a request without a token."""
    response = web.Response(status=401)
    for challenge in challenges:
        response.headers.add("WWW-Authenticate", challenge)
    return response


def redirect(location: str, status: int = 307) -> web.Response:
    return web.Response(status=status, headers={"Location": location})
