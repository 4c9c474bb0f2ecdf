"""A TLS listener with an engine and an upstream behind it, and clients that share no code with it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from dnsproxy.certificate import Certificate
from dnsproxy.core.engine import Engine
from dnsproxy.core.features import Features
from dnsproxy.core.places import Places
from dnsproxy.core.policy import Owned
from dnsproxy.core.upstreams import Upstream
from dnsproxy.net.encrypted import EncryptedClient
from dnsproxy.net.tls import TlsListener
from dnsproxy.net.upstream import Forwarder
from dnsproxy.net.watch import Watch
from tests.fakes.forwarding import respond
from tests.fakes.tcp import TcpClient
from tests.fakes.upstream import FakeUpstream, Hook, until
from tests.messages import engine, hangzhou

NAME = "dns.example"
PATH = "/dns-query"
MEDIA_TYPE = "application/dns-message"


@dataclass
class TlsWorld:
    """A listener, what stands behind it, and the file of its certificate, which is its own authority."""

    engine: Engine
    listener: TlsListener
    places: Places
    upstream: FakeUpstream
    certificate: Path
    # What the loop was told of and nobody expected.
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def clients(self) -> list[EncryptedClient]:
        return list(self.listener._clients)

    async def all_gone(self) -> None:
        await until(lambda: not self.clients and not self.listener._handshakes)
        assert self.places.taken == 0

    def context(self, *protocols: str, authority: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=authority or self.certificate)
        context.set_alpn_protocols(list(protocols))
        return context

    async def connect(
        self, *protocols: str, authority: Path | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self.context(*protocols, authority=authority)
        return await asyncio.open_connection(*self.listener.address, ssl=context, server_hostname=NAME)


@asynccontextmanager
async def tls_world(
    certificate: Path,
    hook: Hook = respond,
    *,
    max_clients: int = 16,
    max_per_client: int = 16,
    owned: Sequence[Owned] | None = None,
    allow: Sequence[str] = ("127.0.0.0/8",),
    max_in_flight: int = 1000,
    watch: Watch | None = None,
    features: Features | None = None,
) -> AsyncIterator[TlsWorld]:
    async with FakeUpstream(hook) as upstream:
        made = engine(
            hangzhou() if owned is None else owned,
            upstreams=[Upstream("up", upstream.address)],
            allow=allow,
            max_in_flight=max_in_flight,
            features=features,
        )
        forwarder = Forwarder(made)
        places = Places(max_clients, max_per_client)
        listener = TlsListener(made, forwarder, places, Certificate(certificate, certificate), PATH, watch)
        await listener.open("127.0.0.1", 0)
        world = TlsWorld(made, listener, places, upstream, certificate)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: world.failures.append(context))
        try:
            yield world
        finally:
            await listener.close()
            forwarder.close()
            await until(lambda: not world.clients)
            loop.set_exception_handler(None)
        assert not world.failures, world.failures


class DotPeer(TcpClient):
    """A client of DNS over TLS."""

    async def closed(self) -> bool:
        """Wait for the end of the connection; False when something else comes."""
        async with asyncio.timeout(10):
            try:
                return await self._reader.read(1) == b""
            except ConnectionError:
                return True


@asynccontextmanager
async def dot(to: TlsWorld, *protocols: str) -> AsyncIterator[DotPeer]:
    reader, writer = await to.connect(*protocols)
    try:
        yield DotPeer(reader, writer)
    finally:
        writer.transport.abort()


@dataclass
class Answered:
    """A reply over HTTP/2."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers[":status"])


class Http2Peer:
    """A client of DNS over HTTP/2; replies are gathered by stream."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        settings: dict[h2.settings.SettingCodes, int] | None,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.http.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.http.initiate_connection()
        self.replies: dict[int, Answered] = {}
        self.gone_away: int | None = None
        self.acknowledges = True

    def request(
        self, body: bytes | None, path: str = PATH, *, method: str = "POST", content_type: str = MEDIA_TYPE
    ) -> int:
        stream = self.http.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "https"), (":authority", NAME), (":path", path)]
        if content_type and body is not None:
            fields.append(("content-type", content_type))
        self.http.send_headers(stream, fields, end_stream=body is None)
        if body is not None:
            self.http.send_data(stream, body, end_stream=True)
        self.replies[stream] = Answered()
        self.flush()
        return stream

    def flush(self) -> None:
        self.writer.write(self.http.data_to_send())

    async def run_once(self) -> bool:
        """Take in what comes; False at the end of the connection."""
        async with asyncio.timeout(10):
            try:
                data = await self.reader.read(65_536)
            except ConnectionError:
                return False
        for event in self.http.receive_data(data):
            self._take(event)
        self.flush()
        return bool(data)

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.replies[event.stream_id].headers = {str(name): str(text) for name, text in event.headers}
        elif isinstance(event, h2.events.DataReceived):
            self.replies[event.stream_id].body += event.data
            if self.acknowledges:
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.replies[event.stream_id].ended = True
        elif isinstance(event, h2.events.StreamReset):
            self.replies[event.stream_id].reset = event.error_code
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.gone_away = event.error_code

    async def reply(self, stream: int) -> Answered:
        """The whole reply on ``stream``."""
        while not self.replies[stream].ended:
            assert await self.run_once(), "the connection has ended"
        return self.replies[stream]

    async def ended(self) -> bool:
        """Wait for the end of the connection."""
        while await self.run_once():
            pass
        return True


@asynccontextmanager
async def http2(
    to: TlsWorld, settings: dict[h2.settings.SettingCodes, int] | None = None
) -> AsyncIterator[Http2Peer]:
    reader, writer = await to.connect("h2", "http/1.1")
    try:
        yield Http2Peer(reader, writer, settings)
    finally:
        writer.transport.abort()
