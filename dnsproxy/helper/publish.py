"""The helper's HTTP server, and the composition of ``dnsproxy helper``.

GET /v1/snapshot[?wait=SERIAL[&timeout=SECONDS]]   the signed snapshot
GET /health                                        what it holds, as JSON; asks for no token
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from dnsproxy.certificate import Certificate, http_certificate
from dnsproxy.errors import StartError
from dnsproxy.files import remove_leftovers
from dnsproxy.helper.assemble import group_keys, make_election, make_helper
from dnsproxy.helper.caching import NO_STORE, cache_headers
from dnsproxy.helper.issue import Published
from dnsproxy.helper.jury import Jury
from dnsproxy.helper.outlets import Outlets, TargetStatus, make_targets
from dnsproxy.helper.service import Helper
from dnsproxy.http_connection import MAX_BODY, read_body, watch_request
from dnsproxy.http_listener import HttpListener, Limits, open_socket, spare_files
from dnsproxy.keys import read_private_key
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint
from dnsproxy.supervise import supervise
from dnsproxy.system import expand_resolvers, raise_file_limit
from dnsproxy.tokens import is_bearer, read_token
from dnsproxy.transport.reasons import os_reason

if TYPE_CHECKING:
    from dnsproxy.helper.election import Election

# Seconds that a blocking query waits.
DEFAULT_WAIT = 30.0
MAX_WAIT = 120.0
# Blocking queries at one time; each holds a connection and some 10 kB. The next ones are answered at once, so
# their proxies pull once in a refresh: an error would make them back off and count their helper as failing.
MAX_WAITERS = 10_000
# Connections of which no blocking query waits.
_OTHER_CONNECTIONS = 1000
# Descriptors that are left to the helper's own work: its resolvers, registries and targets.
_SPARE_FILES = 256
# One client may have this part of the connections: many proxies may share an address behind NAT.
_CLIENT_PART = 2
# Seconds that a request waits for the first snapshot; proxies give up after 10.
FIRST_WAIT = 5.0
# Seconds after which a proxy that came too early should ask again: the first round takes about as long.
RETRY_AFTER = "2"
# Seconds that responses under way get at the end.
SHUTDOWN = 5.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Api:
    """The handlers. Nothing here changes what the helper holds."""

    def __init__(
        self,
        helper: Helper,
        token: str | None,
        wall: Callable[[], float],
        *,
        guarded: bool,
        most: int,
        first_wait: float,
    ) -> None:
        self._helper = helper
        self._token = token
        self._guarded = guarded or token is not None
        self._wall = wall
        self._waiters = 0
        self._most = most
        self._first_wait = first_wait

    async def snapshot(self, request: web.Request) -> web.Response:
        if not self._authorized(request):
            return _error(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
        try:
            serial, seconds = _wait_wanted(request)
        except ValueError as exc:
            return _error(400, str(exc))
        if serial is not None and self._waiters < self._most:
            await self._wait(serial, seconds)
        if self._helper.current is None and self._waiters < self._most:
            await self._wait_first()
        published = self._helper.current
        if published is None:
            return _error(503, "no snapshot yet", {"Retry-After": RETRY_AFTER})
        response = _document(request, published)
        left = published.snapshot.expires_at - self._wall()
        response.headers.update(
            cache_headers(left, status=response.status, guarded=self._guarded, blocking=serial is not None)
        )
        return response

    async def _wait(self, serial: int, seconds: float) -> None:
        self._waiters += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._helper.wait_beyond(serial)
        finally:
            self._waiters -= 1

    async def _wait_first(self) -> None:
        """Wait while the helper starts: an error would make every proxy back off."""
        self._waiters += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._first_wait):
                    await self._helper.wait_first()
        finally:
            self._waiters -= 1

    async def health(self, _request: web.Request) -> web.Response:
        published = self._helper.current
        statuses = self._helper.outlets.statuses
        targets = [_target(status) for status in statuses]
        election = _office(self._helper.election)
        if published is None:
            starting = {"status": "starting", "serial": None, "names": 0, "age": None}
            return web.json_response({**starting, "targets": targets, "election": election})
        entries = published.snapshot.names
        good = (
            all(entry.status == "ok" for entry in entries)
            and not self._helper.failing
            and all(status.error is None for status in statuses)
            and (election is None or election["status"] == "ok")
        )
        age = max(0, int(self._wall()) - published.snapshot.issued_at)
        return web.json_response(
            {
                "status": "ok" if good else "degraded",
                "serial": published.snapshot.serial,
                "names": len(entries),
                "age": age,
                "targets": targets,
                "election": election,
            }
        )

    def _authorized(self, request: web.Request) -> bool:
        if self._token is None:
            return True
        return is_bearer(request.headers.get("Authorization", ""), self._token)


def _target(status: TargetStatus) -> dict[str, object]:
    # The reason stays in the log: health is for everybody.
    state = "failing" if status.error is not None else "waiting" if status.serial is None else "ok"
    return {"name": status.name, "status": state, "serial": status.serial, "failures": status.failures}


def _office(election: Election | None) -> dict[str, object] | None:
    if election is None:
        return None
    role = "leader" if election.is_leader else "follower"
    return {"name": election.name, "role": role, "status": "failing" if election.error else "ok"}


def create_app(
    helper: Helper,
    token: str | None = None,
    wall: Callable[[], float] = time.time,
    *,
    guarded: bool = False,
    most: int = MAX_WAITERS,
    first_wait: float = FIRST_WAIT,
) -> web.Application:
    """Return the application that publishes ``helper``; ``token`` is asked of those who read the snapshot.

    ``guarded`` when others are kept out by other means. ``most`` of them may wait at one time, ``first_wait``
    seconds for the first snapshot.
    """
    api = _Api(helper, token, wall, guarded=guarded, most=most, first_wait=first_wait)
    app = web.Application(middlewares=[watch_request, read_body], client_max_size=MAX_BODY)
    app.on_response_prepare.append(_store_nothing_else)
    app.router.add_get("/v1/snapshot", api.snapshot)
    app.router.add_get("/health", api.health)
    return app


def _wait_wanted(request: web.Request) -> tuple[int | None, float]:
    wait = request.query.get("wait")
    if wait is not None and not (wait.isascii() and wait.isdecimal() and len(wait) <= 19):
        raise ValueError("wait must be a serial: a whole number")
    text = request.query.get("timeout")
    try:
        seconds = DEFAULT_WAIT if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ValueError(f"timeout must be a number of seconds, 0 to {MAX_WAIT:g}")
    return None if wait is None else int(wait), min(seconds, MAX_WAIT)


def _document(request: web.Request, published: Published) -> web.Response:
    snapshot = published.snapshot
    tag = f"{snapshot.serial}-{snapshot.issued_at}"
    offered = request.if_none_match or ()
    if any(etag.value in {tag, "*"} for etag in offered):
        response = web.Response(status=304)
    else:
        response = web.Response(body=published.token.encode("ascii"), content_type="application/jose")
    response.etag = tag
    return response


async def _store_nothing_else(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in NO_STORE.items():
        response.headers.setdefault(name, value)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": message}, status=status, headers=headers)


async def serve_helper(
    settings: Settings,
    stop: asyncio.Event,
    on_listening: Callable[[Endpoint], None] | None = None,
    *,
    sock: socket.socket | None = None,
) -> None:
    """Run the helper until ``stop`` is set; ``sock`` listens already, in place of ``helper.listen``.

    ``on_listening`` is called with the address in use once the server accepts
    connections; its port is the real one when port 0 was asked for.

    Raises:
        StartError: a key, token, certificate or port cannot be had, or there is nothing to learn.
    """
    options = settings.helper
    resolvers = expand_resolvers(options.resolvers)
    token = None
    if options.token_file is not None:
        token = await asyncio.to_thread(read_token, options.token_file)
    tls = options.tls
    certificate = await asyncio.to_thread(
        http_certificate, "helper.tls", tls.cert_file, tls.key_file, tls.client_ca_file
    )
    key = await asyncio.to_thread(read_private_key, options.signing_key_file)
    if options.publish_file is not None:
        remove_leftovers(options.publish_file, time.time())
    outlets = Outlets(make_targets([target for target in options.publish if target != options.office]))
    peers = await asyncio.to_thread(group_keys, options)
    election = make_election(options, key, peers)
    helper = make_helper(settings, options.id, resolvers, key, options.publish_file, outlets, election, peers)
    if options.canary.proxies:
        helper.jury = await asyncio.to_thread(Jury, options.canary)
    if not helper.wanted and not settings.sought():
        raise StartError("the helper has no name to learn: list a registry, or names without addresses")
    room = min(MAX_WAITERS + _OTHER_CONNECTIONS, max(2, raise_file_limit() - spare_files(_SPARE_FILES)))
    runner = web.AppRunner(
        create_app(
            helper,
            token,
            guarded=options.tls.client_ca_file is not None,
            most=min(MAX_WAITERS, max(1, room * 9 // 10)),
        ),
        handle_signals=False,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN,
    )
    await runner.setup()
    listener: HttpListener | None = None
    try:
        limits = Limits(room, max(1, room // _CLIENT_PART), spare_files(_SPARE_FILES))
        listener = _listen(runner, options.listen, certificate, sock, limits)
        endpoint = Endpoint(options.listen.host, listener.address[1], "tcp")
        _warn_when_open(endpoint, guarded=token is not None or options.tls.client_ca_file is not None)
        if on_listening is not None:
            on_listening(endpoint)
        shown = [str(resolver) for resolver in resolvers]
        log.info("helper.started", id=options.id, names=len(helper.wanted), resolvers=shown)
        await _run_until(helper, stop)
    finally:
        helper.release()
        if listener is not None:
            await listener.stop()
        await runner.cleanup()
        if listener is not None:
            await listener.close()
    log.info("helper.stopped")


def _listen(
    runner: web.AppRunner,
    listen: Endpoint,
    certificate: Certificate | None,
    sock: socket.socket | None,
    limits: Limits,
) -> HttpListener:
    try:
        sock = sock or open_socket(listen.host, listen.port)
    except OSError as exc:
        reason = os_reason(exc)
        raise StartError(f"helper.listen: {listen.host} port {listen.port}: {reason}") from exc
    if runner.server is None:
        raise StartError("helper.listen: the HTTP server is not set up")
    listener = HttpListener("helper", sock, runner.server, limits, certificate)
    log.info("helper.listening", address=listen.host, port=listener.address[1], tls=certificate is not None)
    return listener


async def _run_until(helper: Helper, stop: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(supervise("helper", helper.run))
        await stop.wait()
        running.cancel()


def _warn_when_open(endpoint: Endpoint, *, guarded: bool) -> None:
    if not guarded and not ip_address(endpoint.host).is_loopback:
        log.warning(
            "helper.open",
            address=endpoint.host,
            port=endpoint.port,
            detail="names and addresses are open to all who reach the port; set token_file or client_ca_file",
        )
