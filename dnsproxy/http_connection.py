"""One connection to an HTTP server of aiohttp: the time for headers, for a body, and between two requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast

from aiohttp import web

# Seconds for a handshake and the headers of a request, and for its body.
HEADER_SECONDS = 10.0
BODY_SECONDS = 10.0
# Seconds between two requests of a connection. Prometheus scrapes every 15 to 60 s.
IDLE_SECONDS = 75.0
# Bytes of a body.
MAX_BODY = 65_536
# Bytes of headers, beyond those of one read, and requests that a client may send ahead of their responses.
# aiohttp bounds neither in all of its versions, and keeps each request until its turn.
MAX_HEAD = 65_536
MAX_AHEAD = 16
# What a byte of a request costs, and a request that is not begun. Less than this is not counted.
_COST: Final = 2
_REQUEST: Final = 4096
_SMALL: Final = 4096
# Bytes of a response that may be unsent without being counted.
_UNSENT: Final = 8192
_END_OF_HEAD: Final = b"\r\n\r\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Keeper(Protocol):
    """What counts the connections: an `HttpListener`."""

    def note_waiting(self, connection: HttpConnection) -> None:
        """Note that it has no request."""

    def note_busy(self, connection: HttpConnection) -> None:
        """Note that a request of it is being answered."""

    def charge(self, connection: HttpConnection, size: int) -> None:
        """Note that it holds ``size`` bytes."""

    def forget(self, connection: HttpConnection) -> None:
        """Free its place."""


class HttpConnection(asyncio.Protocol):
    """One connection, from its accept to its end. Passes everything on to ``inner``, aiohttp's protocol."""

    def __init__(self, listener: Keeper, client: bytes, inner: asyncio.Protocol) -> None:
        self.client = client
        self.task: asyncio.Task[None] | None = None
        self._listener = listener
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_idle = False
        # Bytes of headers that have come, requests that are not begun, whether one is being answered, and
        # whether its body may still come.
        self._head = 0
        self._ahead = 0
        self._is_busy = False
        self._has_body = False
        # Bytes of requests that are not answered.
        self._received = 0
        self._tail = b""
        self._loop = asyncio.get_running_loop()
        self._expire_after(HEADER_SECONDS)

    # -- what asyncio calls --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_UNSENT)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._is_idle:
            # The headers of the next request begin.
            self._is_idle = False
            self._expire_after(HEADER_SECONDS)
        self._received += len(data)
        if not self._measure(data):
            self.abort()
            return
        self._inner.data_received(data)
        self._account()

    def _measure(self, data: bytes) -> bool:
        """Return whether the client may send ``data``, by what has not been answered."""
        window = self._tail + data
        self._tail = window[-len(_END_OF_HEAD) + 1 :]
        found = window.count(_END_OF_HEAD)
        is_head = not self._has_body if self._is_busy else not (found or self._ahead)
        self._head = self._head + len(data) if is_head else 0
        self._ahead += found
        return self._ahead <= MAX_AHEAD and self._head <= MAX_HEAD

    def eof_received(self) -> bool | None:
        """See `asyncio.Protocol`."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._account()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._account()
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        self.forget()
        self._inner.connection_lost(exc)

    def _account(self) -> None:
        transport = self._transport
        if transport is not None:
            size = _COST * self._received + _REQUEST * self._ahead + transport.get_write_buffer_size()
            self._listener.charge(self, size if size > _SMALL else 0)

    # -- what the middleware calls -----------------------------------------------------------

    def begin_request(self) -> None:
        """Note that the headers of a request are complete."""
        self._cancel()
        self._is_idle = False
        self._head = 0
        self._ahead = max(0, self._ahead - 1)
        self._is_busy = self._has_body = True
        self._listener.note_busy(self)

    def end_body(self) -> None:
        """Note that its body is complete."""
        self._has_body = False

    def end_request(self) -> None:
        """Note that its response is made; the client has `IDLE_SECONDS` to read it and to send the next."""
        self._is_busy = self._has_body = False
        if not self._ahead:
            self._received = 0
        self._account()
        if self._transport is not None:
            self._is_idle = True
            self._expire_after(IDLE_SECONDS)
            self._listener.note_waiting(self)

    # -- the end -----------------------------------------------------------------------------

    def abort(self) -> None:
        """Close it at once."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        elif self.task is not None:
            self.task.cancel()
        self.forget()

    def evict(self) -> None:
        """See `budget.Holder`."""
        self.abort()

    def forget(self) -> None:
        """Give back its place."""
        self._cancel()
        self._listener.forget(self)

    def _expire_after(self, seconds: float) -> None:
        self._cancel()
        self._timer = self._loop.call_later(seconds, self.abort)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@web.middleware
async def watch_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have the connection know its requests; the outermost middleware."""
    transport = request.transport
    connection = transport.get_protocol() if transport is not None else None
    if not isinstance(connection, HttpConnection):
        return await handler(request)
    connection.begin_request()
    try:
        return await handler(request)
    finally:
        connection.end_request()


@web.middleware
async def read_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Read the body within `BODY_SECONDS`; the innermost middleware."""
    if request.can_read_body:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                await request.read()
        except TimeoutError:
            response = web.json_response({"error": f"no body within {BODY_SECONDS:g} s"}, status=408)
            response.force_close()
            return response
    connection = None if request.transport is None else request.transport.get_protocol()
    if isinstance(connection, HttpConnection):
        connection.end_body()
    return await handler(request)
