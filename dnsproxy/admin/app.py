"""The HTTP endpoint for operators: the status page, health, readiness, metrics, status, refresh, flush."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any, Protocol

import structlog
from aiohttp import web, web_app

from dnsproxy.admin import explain
from dnsproxy.admin.access import Access, check_access
from dnsproxy.admin.control import Control, ControlApi
from dnsproxy.admin.lifecycle import LifecycleApi
from dnsproxy.admin.metrics import render
from dnsproxy.admin.page import StatusPage, harden
from dnsproxy.admin.registries import registries_document
from dnsproxy.admin.standing import standing_document
from dnsproxy.admin.status import Facts, status_document
from dnsproxy.admin.turns import Turns
from dnsproxy.certificate import http_certificate
from dnsproxy.core import names
from dnsproxy.core.explain import Explanation
from dnsproxy.core.totals import Outcome, PullResult
from dnsproxy.errors import StartError
from dnsproxy.http_connection import MAX_BODY, read_body, watch_request
from dnsproxy.http_listener import HttpListener, Limits, make_runner, open_socket, spare_files
from dnsproxy.settings import Settings
from dnsproxy.settings.serving import AdminSettings
from dnsproxy.settings.values import Endpoint

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Connections at one time: operators, their browsers, Prometheus, probes, and helpers that ask for canaries.
TOTAL = 128
PER_CLIENT = 64


class Operated(Protocol):
    """What the endpoint needs of the running proxy."""

    @property
    def settings(self) -> Settings:
        """The configuration in force."""

    @property
    def addresses(self) -> Control:
        """Who takes orders."""

    async def gather(self) -> None:
        """Have the figures of `facts` brought up to date, which others may have to be asked for."""

    def facts(self) -> Facts:
        """Return all that there is to tell."""

    async def refresh(self) -> list[PullResult]:
        """Pull from all sources now; return what each pull did."""

    async def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of a name, or all; return how many."""

    async def explain(self, key: bytes, qtype: int, client: bytes | None) -> Explanation:
        """Return the path that a query would take; ``client`` is a packed address. Raises `WorkerError`."""

    async def reload(self) -> Outcome:
        """Read the configuration again, and go by it if nothing is wrong with it."""

    def restart_workers(self) -> str | None:
        """Begin to replace the workers, one after another; return why that cannot be, if so."""


class AdminServer:
    """The endpoint while it is open; ``endpoint`` has the real port."""

    def __init__(self, runner: web.AppRunner, listener: HttpListener) -> None:
        self._runner = runner
        self._listener = listener
        self.endpoint = Endpoint(*listener.address, "tcp")

    async def close(self) -> None:
        """Stop accepting and end what is under way."""
        await self._listener.stop()
        await self._runner.cleanup()
        await self._listener.close()
        _forget_handlers()


def _forget_handlers() -> None:
    """Clear the cache of aiohttp, which keeps 1,024 handlers, and with them tokens of closed endpoints."""
    cached = getattr(web_app, "_cached_build_middleware", None)
    if cached is not None:
        cached.cache_clear()


def create_app(operated: Operated, access: Access) -> web.Application:
    """Return the application; ``access`` says who may read and who may give orders."""
    app = web.Application(
        middlewares=[watch_request, check_access(access), read_body], client_max_size=MAX_BODY
    )
    api = _Api(operated)
    app.on_response_prepare.append(harden)
    StatusPage(operated).add_to(app)
    app.router.add_get("/health", api.health)
    app.router.add_get("/ready", api.ready)
    app.router.add_get("/metrics", api.metrics)
    app.router.add_get("/api/v1/status", api.status)
    app.router.add_get("/api/v1/registries", api.registries)
    app.router.add_get("/api/v1/explain", api.explain)
    app.router.add_post("/api/v1/refresh", api.refresh)
    app.router.add_post("/api/v1/flush", api.flush)
    ControlApi(operated).add_to(app)
    LifecycleApi(operated).add_to(app)
    return app


class _Api:
    def __init__(self, operated: Operated) -> None:
        self._operated = operated
        self._turns = Turns()
        self._explaining = Turns()

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(self, _request: web.Request) -> web.Response:
        async with self._turns.next():
            facts = self._operated.facts()
            missing = facts.missing()
        good = not missing and not facts.draining
        return web.json_response(
            {"ready": good, "draining": facts.draining, "missing": missing}, status=200 if good else 503
        )

    async def metrics(self, _request: web.Request) -> web.Response:
        await self._operated.gather()
        async with self._turns.next():
            return web.Response(body=render(self._operated.facts), headers={"Content-Type": METRICS_TYPE})

    async def status(self, _request: web.Request) -> web.Response:
        await self._operated.gather()
        async with self._turns.next():
            facts = self._operated.facts()
            return web.json_response(status_document(facts) | standing_document(facts))

    async def registries(self, _request: web.Request) -> web.Response:
        return web.json_response(registries_document(self._operated.settings))

    async def explain(self, request: web.Request) -> web.Response:
        async with self._explaining.next():
            return await explain.answer(self._operated, request)

    async def refresh(self, _request: web.Request) -> web.Response:
        results = await self._operated.refresh()
        return web.json_response({"sources": [asdict(result) for result in results]})

    async def flush(self, request: web.Request) -> web.Response:
        try:
            name = request.query.get("name") or await _name_in_body(request)
            key = None if name is None else names.to_key(name)
        except ValueError as exc:
            return web.json_response({"error": f"name: {exc}"}, status=400)
        return web.json_response({"flushed": await self._operated.flush(key)})


async def _name_in_body(request: web.Request) -> str | None:
    """Return ``name`` of the JSON object in the body; None without a body or a name.

    Raises:
        ValueError: the body is anything else, which must not be taken for "forget everything".
    """
    if not await request.read():
        return None
    try:
        body: Any = await request.json()
    except RecursionError as exc:
        raise ValueError("the body is nested too deeply") from exc
    name = body.get("name") if isinstance(body, dict) else body
    if isinstance(body, dict) and (name is None or isinstance(name, str)):
        return name
    raise ValueError('the body must be like {"name": "a.example"}')


async def start_admin(
    settings: AdminSettings, listen: Endpoint, operated: Operated, *, sock: socket.socket | None = None
) -> AdminServer:
    """Open the endpoint; ``sock``, if given, is bound to ``listen`` already, and its own from now on.

    Raises:
        StartError: the port is taken, or a token or certificate cannot be read.
    """
    try:
        access = Access.from_settings(settings, listen)
        certificate = http_certificate("admin.tls", settings.tls.cert_file, settings.tls.key_file)
        sock = sock or _open(listen)
    except StartError:
        if sock is not None:
            sock.close()
        raise
    runner = make_runner(create_app(operated, access), handler_cancellation=False, seconds=2.0)
    await runner.setup()
    if runner.server is None:
        raise StartError("admin.listen: the HTTP server is not set up")
    limits = Limits(TOTAL, PER_CLIENT, spare_files())
    listener = HttpListener("admin", sock, runner.server, limits, certificate)
    if access.token is None and not ip_address(listen.host).is_loopback:
        log.warning("admin.open", listen=str(listen), advice="set admin.token_file or listen on loopback")
    return AdminServer(runner, listener)


def _open(listen: Endpoint) -> socket.socket:
    try:
        return open_socket(listen.host, listen.port)
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise StartError(f"admin.listen: cannot listen on {listen}: {reason}") from exc
