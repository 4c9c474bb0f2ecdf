"""An engine with its forwarder, and upstreams to forward to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.exchange import Limits
from dnsproxy.core.upstreams import Upstream
from dnsproxy.core.wire import Query
from dnsproxy.net.channel import Channel
from dnsproxy.net.dial import Dialer
from dnsproxy.net.link import Link
from dnsproxy.net.upstream import Forwarder
from tests.fakes.upstream import Asked, FakeUpstream, until
from tests.messages import CLIENT, engine, query, read, reply_to

TC = 0x0200
# An attempt that is not given up while a test runs.
LONG = Limits(30, 60)


@dataclass
class World:
    """An engine, its forwarder, and the responses that came, in order."""

    engine: Engine
    forwarder: Forwarder
    responses: list[bytes] = field(default_factory=list)

    @property
    def channel(self) -> Channel:
        """The only channel there is."""
        (channel,) = self.forwarder._channels.values()
        return channel

    @property
    def links(self) -> list[Link]:
        """The connections of the only channel; none before it is used."""
        return self.channel._links if self.forwarder._channels else []

    def submit(self, *queries: bytes) -> None:
        for data in queries:
            step = self.engine.receive(data, CLIENT, monotonic())
            assert type(step) is Forward, step
            self.forwarder.submit(step, self._respond, None, monotonic())
        self.forwarder.flush()

    def _respond(self, _token: object, response: bytes, _query: Query) -> None:
        self.responses.append(response)

    async def ask(self, *queries: bytes) -> list[bytes]:
        """Submit ``queries`` and wait until each has its response."""
        expected = len(self.responses) + len(queries)
        self.submit(*queries)
        await until(lambda: len(self.responses) == expected)
        return self.responses[-len(queries) :]


@asynccontextmanager
async def world(
    *upstreams: Upstream, limits: Limits = LONG, dialer: Dialer | None = None, max_in_flight: int = 5000
) -> AsyncIterator[World]:
    made = engine(upstreams=upstreams, limits=limits, max_in_flight=max_in_flight)
    forwarder = Forwarder(made, dialer)
    try:
        yield World(made, forwarder)
    finally:
        forwarder.close()
        assert not forwarder._sockets
        assert not any(channel._links for channel in forwarder._channels.values())


def at(fake: FakeUpstream, *, tcp: bool = False) -> Upstream:
    return Upstream("up", fake.address, tcp=tcp)


def respond(asked: Asked) -> Iterable[bytes]:
    name = read(asked.data).question[0].name
    return [reply_to(asked.data, [f"{name} 60 IN A 192.0.2.1"])]


def truncate(asked: Asked) -> Iterable[bytes]:
    return respond(asked) if asked.tcp else [reply_to(asked.data, flags=TC)]


def numbered(count: int, prefix: str = "n") -> list[bytes]:
    return [query(f"{prefix}{number}.example.", ident=number) for number in range(count)]
