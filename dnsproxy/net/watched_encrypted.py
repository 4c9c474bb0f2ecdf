"""Clients over TLS when queries are written down: a subclass of each kind (see `watched`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Hashable
from time import monotonic, time
from typing import cast

from dnsproxy.core.engine import Forward
from dnsproxy.core.seen import receive_counted
from dnsproxy.core.wire import Query
from dnsproxy.net.doh_http1 import Http1Client
from dnsproxy.net.doh_http2 import Http2Client
from dnsproxy.net.dot import DotClient
from dnsproxy.net.encrypted import EncryptedClient, House
from dnsproxy.net.watch import Awaited, Watch
from dnsproxy.net.watched import port_of, server_of


class _Watched(EncryptedClient):
    """Tells ``watch`` of each query that is asked; in front of a kind of client."""

    watch: Watch
    _client_port = 0
    _server: tuple[bytes, int] = (b"", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._client_port = self._client_port or port_of(cast("socket.socket", sock))
            self._server = server_of(cast("socket.socket", sock))
        super().connection_made(transport)

    def come_by(self, peer: bytes, port: int) -> None:
        """See `EncryptedClient.come_by`."""
        super().come_by(peer, port)
        self._client_port = port

    def ask(self, query: bytes, token: Hashable) -> None:
        """See `EncryptedClient.ask`."""
        house = self.house
        now = self.active = monotonic()
        house.engine.stats.encrypted[self.proto] += 1
        step, number = receive_counted(house.engine, query, self.source, now, tcp=True)
        seen = self.watch.begin(self.proto, self.source, self._client_port, query, now, time())
        if seen is not None:
            seen.server, seen.server_port = self._server
        if isinstance(step, bytes):
            self.answer(token, query, step)
            done = monotonic()
            house.engine.stats.record_duration(done - now)
            if seen is not None:
                self.watch.end(seen, step, number, done)
        elif isinstance(step, Forward):
            self.waiting += 1
            if seen is None:
                house.forwarder.submit(step, self._respond, token, now)
            else:
                house.forwarder.submit(step, self._respond_watched, Awaited(token, seen, step), now)
        else:
            self.decline(token, step)
            if seen is not None:
                self.watch.drop(seen, step, now)

    def _respond_watched(self, awaited: Awaited, response: bytes, query: Query) -> None:
        self._respond(awaited.token, response, query)
        self.watch.end_forwarded(awaited, response, monotonic())


class _WatchedDot(_Watched, DotClient):
    """DNS over TLS."""


class _WatchedHttp1(_Watched, Http1Client):
    """DNS over HTTPS by HTTP/1.1."""


class _WatchedHttp2(_Watched, Http2Client):
    """DNS over HTTPS by HTTP/2."""


_SPOKEN: dict[str | None, type[_Watched]] = {"h2": _WatchedHttp2, "http/1.1": _WatchedHttp1}


def watched_client(spoken: str | None, house: House, source: bytes, watch: Watch) -> EncryptedClient:
    """Return a client that speaks what ``spoken`` says (an ALPN, or None for DNS over TLS)."""
    client = _SPOKEN.get(spoken, _WatchedDot)(house, source)
    client.watch = watch
    return client
