"""A DNS over HTTPS upstream on loopback that does with each stream what its hook says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

MEDIA_TYPE = "application/dns-message"


@dataclass
class Request:
    """A whole request; ``headers`` with those that start with a colon."""

    connection: Connection
    stream: int
    headers: dict[str, str]
    body: bytes = b""

    def respond(self, body: bytes, status: int = 200, content_type: str = MEDIA_TYPE, **headers: str) -> None:
        """Send a reply; a long one in several frames, as far as the window allows."""
        http = self.connection.http
        fields = [(":status", str(status)), ("content-type", content_type), *headers.items()]
        http.send_headers(self.stream, fields)
        for start in range(0, len(body), 16_000):
            http.send_data(self.stream, body[start : start + 16_000])
        http.end_stream(self.stream)
        self.connection.flush()

    def reset(self, code: h2.errors.ErrorCodes) -> None:
        self.connection.http.reset_stream(self.stream, code)
        self.connection.flush()


Hook = Callable[[Request], None]


@dataclass(eq=False)
class Connection(asyncio.Protocol):
    """One client's connection."""

    server: FakeHttps
    requests: dict[int, Request] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.append(self)
        self.http.local_settings = h2.settings.Settings(client=False, initial_values=self.server.settings)
        self.http.initiate_connection()
        self.flush()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.transport = None

    def flush(self) -> None:
        if self.transport is not None:
            self.transport.write(self.http.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.http.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = {str(name): str(value) for name, value in event.headers}
                self.requests[event.stream_id] = Request(self, event.stream_id, headers)
            elif isinstance(event, h2.events.DataReceived):
                self.requests[event.stream_id].body += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.server.asked.append(self.requests[event.stream_id])
                self.server.hook(self.requests[event.stream_id])
        self.flush()

    def go_away(self, *, error_code: int = 0) -> None:
        """Say that no more streams are served, and leave."""
        self.http.close_connection(error_code=error_code)
        self.flush()
        if self.transport is not None:
            self.transport.close()


class FakeHttps:
    """Listens while its context lasts; ``asked`` are all requests, ``connections`` all connections."""

    def __init__(
        self,
        hook: Hook,
        context: ssl.SSLContext,
        settings: Mapping[h2.settings.SettingCodes, int] | None = None,
    ) -> None:
        self.hook = hook
        self.settings = dict(settings or {})
        self.asked: list[Request] = []
        self.connections: list[Connection] = []
        self.address = ("127.0.0.1", 0)
        self._context = context
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, ssl=self._context)
        self.address = ("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.abort()
