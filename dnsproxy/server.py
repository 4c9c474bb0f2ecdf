"""The data plane: one engine with its listeners and its forwarder."""

from __future__ import annotations

from time import monotonic, time
from typing import Literal

from dnsproxy.core import names
from dnsproxy.core.access import AccessList
from dnsproxy.core.book import Book
from dnsproxy.core.cache import Cache, CachePolicy
from dnsproxy.core.engine import Engine
from dnsproxy.core.exchange import Limits
from dnsproxy.core.policy import DEFAULT_ZONE, build_rules
from dnsproxy.core.upstreams import Upstream
from dnsproxy.errors import StartError
from dnsproxy.net.tcp import TcpListener
from dnsproxy.net.udp import UdpListener
from dnsproxy.net.upstream import Forwarder
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint
from dnsproxy.system import expand_resolvers, is_own


def build_engine(settings: Settings) -> Engine:
    """Return an engine for ``settings`` that knows no learned name yet.

    Raises:
        StartError: an upstream is this proxy itself, or the system's resolvers cannot be read.
    """
    groups = {names.to_key(zone): _group(settings, hosts) for zone, hosts in settings.forward.zones.items()}
    groups[DEFAULT_ZONE] = _group(settings, settings.forward.upstreams)
    return Engine(
        AccessList(settings.serve.allow),
        groups,
        limits=Limits(settings.forward.timeout.attempt, settings.forward.timeout.total),
        max_in_flight=settings.forward.max_in_flight,
        cache=Cache(
            settings.cache.size,
            CachePolicy(settings.cache.min_ttl, settings.cache.max_ttl, settings.cache.negative_ttl),
        ),
    )


def _group(settings: Settings, resolvers: list[Endpoint | Literal["system"]]) -> tuple[Upstream, ...]:
    endpoints = expand_resolvers(resolvers)
    for endpoint in endpoints:
        if is_own(endpoint, settings.serve.listen):
            raise StartError(f"upstream {endpoint} is this proxy's own listening address")
    return tuple(
        Upstream(str(endpoint), (endpoint.host, endpoint.port), tcp=endpoint.transport == "tcp")
        for endpoint in endpoints
    )


class Server:
    """Listeners on every configured address, and the engine behind them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wanted = settings.wanted()
        self._zones = [names.to_key(zone) for zone in settings.forward.zones]
        self.engine = build_engine(settings)
        self._forwarder: Forwarder | None = None
        self._udp: list[UdpListener] = []
        self._tcp: list[TcpListener] = []
        self.swap_book(Book())

    def swap_book(self, book: Book) -> None:
        """Answer with the addresses of ``book`` from now on."""
        now = monotonic()
        rules = build_rules(
            self._wanted,
            book,
            self._zones,
            ttl=self._settings.learn.ttl,
            max_stale=self._settings.learn.max_stale,
            now=now,
            wall_now=time(),
            earlier=self.engine.rules,
        )
        self.engine.swap_rules(rules)

    async def open(self, *, reuse_port: bool = False) -> None:
        """Bind every address, UDP and TCP, and start to answer.

        Raises:
            StartError: one of them cannot be bound; those already open are closed again.
        """
        self._forwarder = forwarder = Forwarder(self.engine)
        serve = self._settings.serve
        try:
            for listen in serve.listen:
                self._udp.append(
                    UdpListener(self.engine, forwarder, listen.host, listen.port, reuse_port=reuse_port)
                )
                tcp = TcpListener(self.engine, forwarder, serve.max_tcp_clients)
                await tcp.open(listen.host, listen.port, reuse_port=reuse_port)
                self._tcp.append(tcp)
        except StartError:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop answering."""
        for udp in self._udp:
            udp.close()
        for tcp in self._tcp:
            await tcp.close()
        if self._forwarder is not None:
            self._forwarder.close()
