"""The HTTP endpoint for operators: health, readiness, metrics, status, refresh, flush."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, Protocol

import structlog
from aiohttp import web

from dnsproxy.admin.metrics import render
from dnsproxy.admin.status import Facts, status_document
from dnsproxy.core import names
from dnsproxy.errors import StartError
from dnsproxy.settings import AdminSettings, Endpoint

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Probes of kubelets and load balancers carry no token, and learn nothing that a query would not tell.
_OPEN_PATHS = frozenset({"/health", "/ready"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Operated(Protocol):
    """What the endpoint needs of the running proxy."""

    def facts(self) -> Facts:
        """Return all that there is to tell."""

    def refresh(self) -> None:
        """Pull from all sources now."""

    def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of a name, or all; return how many."""


class AdminServer:
    """The endpoint while it is open; ``endpoint`` has the real port."""

    def __init__(self, runner: web.AppRunner, endpoint: Endpoint) -> None:
        self._runner = runner
        self.endpoint = endpoint

    async def close(self) -> None:
        """Stop accepting and end what is under way."""
        await self._runner.cleanup()


def create_app(operated: Operated, token: str | None) -> web.Application:
    """Return the application; with ``token`` all but the probes ask for it as a bearer token."""

    @web.middleware
    async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token is not None and request.path not in _OPEN_PATHS and not _authorized(request, token):
            return web.json_response({"error": "a bearer token is needed"}, status=401)
        return await handler(request)

    app = web.Application(middlewares=[authorize])
    api = _Api(operated)
    app.router.add_get("/", api.index)
    app.router.add_get("/health", api.health)
    app.router.add_get("/ready", api.ready)
    app.router.add_get("/metrics", api.metrics)
    app.router.add_get("/api/v1/status", api.status)
    app.router.add_post("/api/v1/refresh", api.refresh)
    app.router.add_post("/api/v1/flush", api.flush)
    return app


def _authorized(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode("utf-8"))
    return same and scheme.lower() == "bearer"


class _Api:
    def __init__(self, operated: Operated) -> None:
        self._operated = operated

    async def index(self, request: web.Request) -> web.Response:
        paths = sorted({route.resource.canonical for route in request.app.router.routes() if route.resource})
        return web.Response(text="dnsproxy\n" + "".join(f"{path}\n" for path in paths))

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(self, _request: web.Request) -> web.Response:
        facts = self._operated.facts()
        missing = facts.missing()
        good = not missing and not facts.draining
        return web.json_response(
            {"ready": good, "draining": facts.draining, "missing": missing}, status=200 if good else 503
        )

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=render(self._operated.facts), headers={"Content-Type": METRICS_TYPE})

    async def status(self, _request: web.Request) -> web.Response:
        return web.json_response(status_document(self._operated.facts()))

    async def refresh(self, _request: web.Request) -> web.Response:
        self._operated.refresh()
        return web.json_response({"refresh": "started"}, status=202)

    async def flush(self, request: web.Request) -> web.Response:
        name = request.query.get("name")
        if name is None and request.can_read_body:
            body: Any = await request.json()
            name = body.get("name") if isinstance(body, dict) else None
        try:
            key = None if name is None else names.to_key(str(name))
        except ValueError as exc:
            return web.json_response({"error": f"name: {exc}"}, status=400)
        return web.json_response({"flushed": self._operated.flush(key)})


async def start_admin(settings: AdminSettings, listen: Endpoint, operated: Operated) -> AdminServer:
    """Open the endpoint.

    Raises:
        StartError: the port is taken, or the token cannot be read.
    """
    token: str | None = None
    if settings.token_file is not None:
        try:
            token = settings.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise StartError(f"admin.token_file: {settings.token_file}: {exc}") from exc
        if not token:
            raise StartError(f"admin.token_file: {settings.token_file} is empty")
    runner = web.AppRunner(
        create_app(operated, token), handle_signals=False, access_log=None, shutdown_timeout=2.0
    )
    await runner.setup()
    site = web.TCPSite(runner, listen.host, listen.port)
    try:
        await site.start()
    except OSError as exc:
        await runner.cleanup()
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise StartError(f"admin.listen: cannot listen on {listen}: {reason}") from exc
    host, port = runner.addresses[0][:2]
    if token is None and not ip_address(listen.host).is_loopback:
        log.warning("admin.open", listen=str(listen), advice="set admin.token_file or listen on loopback")
    return AdminServer(runner, Endpoint(str(host), int(port), "tcp"))
