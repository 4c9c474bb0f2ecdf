"""What the helper's HTTP endpoint answers; `server` opens it.

GET /v1/snapshot[?wait=SERIAL[&timeout=SECONDS]]   the signed snapshot
GET /health                                        what it holds, as JSON; asks for no token
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

from dnsproxy.helper.caching import NO_STORE, cache_headers
from dnsproxy.helper.issue import Published
from dnsproxy.helper.outlets import TargetStatus
from dnsproxy.helper.service import Helper
from dnsproxy.http_connection import MAX_BODY, read_body, watch_request
from dnsproxy.tokens import is_bearer

if TYPE_CHECKING:
    from dnsproxy.helper.election import Election

# Seconds that a blocking query waits.
DEFAULT_WAIT = 30.0
MAX_WAIT = 120.0
# Blocking queries at one time; each holds a connection and some 10 kB. The next ones are answered at once, so
# their proxies pull once in a refresh: an error would make them back off and count their helper as failing.
MAX_WAITERS = 10_000
# Seconds that a request waits for the first snapshot; proxies give up after 10.
FIRST_WAIT = 5.0
# Seconds after which a proxy that came too early should ask again: the first round takes about as long.
RETRY_AFTER = "2"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HelperApi:
    """The handlers. Nothing here changes what the helper holds; `use` puts another one in its place."""

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
        self.use(helper, token, guarded=guarded)
        self._wall = wall
        self._waiters = 0
        self._most = most
        self._first_wait = first_wait

    def use(self, helper: Helper, token: str | None, *, guarded: bool) -> None:
        """Answer for ``helper`` from now on; ``token`` and ``guarded`` as in `create_app`."""
        self._helper = helper
        self._token = token
        self._guarded = guarded or token is not None

    async def snapshot(self, request: web.Request) -> web.Response:
        """Answer with the current snapshot, or the next one where a serial is waited for."""
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
        """Answer with what the helper has, and the status of its targets and election."""
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
    return app_of(HelperApi(helper, token, wall, guarded=guarded, most=most, first_wait=first_wait))


def app_of(api: HelperApi) -> web.Application:
    """Return the application that answers by ``api``."""
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
