"""The data plane: one engine with its listeners and its forwarder."""

from __future__ import annotations

import asyncio
import gc
import os
from time import monotonic, time
from typing import TYPE_CHECKING, Literal, Protocol

from dnsproxy.core import names
from dnsproxy.core.access import AccessList
from dnsproxy.core.book import Book
from dnsproxy.core.cache import Cache, CachePolicy
from dnsproxy.core.chance import Chance
from dnsproxy.core.engine import Engine
from dnsproxy.core.exchange import Limits
from dnsproxy.core.features import Features
from dnsproxy.core.group import Group
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.places import Places
from dnsproxy.core.policy import build_rules
from dnsproxy.core.returns import Returns
from dnsproxy.core.totals import Traffic
from dnsproxy.core.upstreams import Secure, Upstream
from dnsproxy.errors import StartError
from dnsproxy.net.bootstrap import Bootstrap
from dnsproxy.net.certificate import Certificate
from dnsproxy.net.dial import Dialer
from dnsproxy.net.tcp import TcpListener
from dnsproxy.net.udp import UdpListener
from dnsproxy.net.upstream import Forwarder
from dnsproxy.net.watch import Watch
from dnsproxy.net.watched import WatchedUdpListener
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint
from dnsproxy.system import expand_resolvers, is_own

if TYPE_CHECKING:
    from dnsproxy.core.explain import Explanation, Question
    from dnsproxy.net.tls import TlsListener

# The query path makes no reference cycles, so the collector has little to find: with Python's
# own thresholds (700, 10, 10) it costs 4 us per forwarded query, with these under 1 us.
GC_THRESHOLDS = (20_000, 50, 50)


def tune_collector() -> None:
    """Let what start-up made stay; the collector need not walk it again (saves 10 ms per full collection)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class Plane(Protocol):
    """What answers queries: `Server` in this process, or `workers.fleet.Fleet` in others."""

    def swap_book(self, book: Book) -> None:
        """Answer with the addresses of ``book`` from now on."""

    async def open(self) -> None:
        """Start to answer; raises `StartError`."""

    async def run(self) -> None:
        """Do what is to be done while it answers, until cancelled."""

    async def close(self) -> None:
        """Stop answering."""

    async def gather(self) -> None:
        """Have the figures of `traffic` brought up to date."""

    def traffic(self) -> Traffic:
        """Return what was asked and answered since the start."""

    async def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of a name, or all; return how many."""

    async def explain(self, question: Question) -> Explanation:
        """Return the path that a query would take, without taking it; raises `WorkerError`."""


def build_engine(settings: Settings, returns: Returns | None = None) -> Engine:
    """Return an engine for ``settings`` that knows no learned name yet; workers share ``returns``.

    Raises:
        StartError: an upstream is this proxy itself, or the system's resolvers cannot be read.
    """
    serve, forward, cache = settings.serve, settings.forward, settings.cache
    chance = Chance(os.urandom)
    known: dict[Endpoint, Upstream] = {}
    groups = {
        names.to_key(zone): Group(_upstreams(settings, hosts, known), forward.policy, chance)
        for zone, hosts in ((".", forward.upstreams), *forward.zones.items())
    }
    limit = serve.rate_limit
    return Engine(
        AccessList(serve.allow),
        groups,
        limits=limits_of(settings),
        max_in_flight=forward.max_in_flight,
        cache=Cache(cache.size, CachePolicy(cache.min_ttl, cache.max_ttl, cache.negative_ttl, cache.stale)),
        chance=chance,
        features=Features(
            prefetch=cache.prefetch,
            nxdomain_cut=cache.nxdomain_cut,
            minimal_any=forward.minimal_any,
            mix_case=forward.case_randomization,
            version=serve.identity.version,
            identity=serve.identity.server,
            probe_interval=forward.probe.interval,
            returns=returns,
        ),
        limiter=RateLimiter(
            limit.per_client, limit.exempt, ipv4_prefix=limit.ipv4_prefix, ipv6_prefix=limit.ipv6_prefix
        )
        if limit.per_client
        else None,
    )


def limits_of(settings: Settings) -> Limits:
    """Return how long forwarded queries may take."""
    return Limits(settings.forward.timeout.attempt, settings.forward.timeout.total)


def _upstreams(
    settings: Settings, resolvers: list[Endpoint | Literal["system"]], known: dict[Endpoint, Upstream]
) -> tuple[Upstream, ...]:
    """Return what to forward to; what several zones have in common is one upstream with one health."""
    found = []
    for endpoint in expand_resolvers(resolvers):
        if is_own(endpoint, (*settings.serve.listen, *settings.serve.tls.listen)):
            raise StartError(f"upstream {endpoint} is this proxy's own listening address")
        if endpoint not in known:
            known[endpoint] = _upstream(settings, endpoint)
        found.append(known[endpoint])
    return tuple(dict.fromkeys(found))


def _upstream(settings: Settings, endpoint: Endpoint) -> Upstream:
    secure = None
    if endpoint.transport in {"tls", "https"}:
        get = settings.forward.https_method == "get"
        secure = Secure(endpoint.server_name, endpoint.path or None, get=get)
    address = (endpoint.host, endpoint.port)
    probe = settings.forward.probe
    return Upstream(
        str(endpoint),
        address,
        tcp=endpoint.transport == "tcp",
        secure=secure,
        rise=probe.rise,
        fall=probe.fall,
    )


class Server:
    """Listeners on every configured address, and the engine behind them; ``watch`` is told of each query."""

    def __init__(
        self, settings: Settings, watch: Watch | None = None, returns: Returns | None = None
    ) -> None:
        self._settings = settings
        self._watch = watch
        self._wanted = settings.wanted()
        self._zones = [names.to_key(zone) for zone in settings.forward.zones]
        self.engine = build_engine(settings, returns)
        self._bootstrap = _upstreams(settings, list(settings.forward.bootstrap), {})
        self._dialer = Dialer(self.engine.upstreams(), settings.forward.ca_file)
        self._forwarder: Forwarder | None = None
        self._udp: list[UdpListener] = []
        self._tcp: list[TcpListener | TlsListener] = []
        tls = settings.serve.tls
        self._certificate = (
            Certificate(tls.cert_file, tls.key_file) if tls.cert_file and tls.key_file else None
        )
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
        if self._watch is not None:
            self._watch.open(self.engine.stats)
        self._forwarder = forwarder = Forwarder(self.engine, self._dialer)
        if self._bootstrap:
            self._dialer.resolve = Bootstrap(forwarder, self._bootstrap, limits_of(self._settings)).resolve
        serve = self._settings.serve
        places = Places(serve.max_tcp_clients, serve.max_tcp_per_client)
        try:
            for listen in serve.listen:
                self._udp.append(self._open_udp(forwarder, listen, reuse_port=reuse_port))
                tcp = TcpListener(self.engine, forwarder, places, self._watch)
                await tcp.open(listen.host, listen.port, reuse_port=reuse_port)
                self._tcp.append(tcp)
            if self._certificate is not None:
                await self._open_tls(forwarder, places, self._certificate, reuse_port=reuse_port)
        except StartError:
            await self.close()
            raise

    def _open_udp(self, forwarder: Forwarder, listen: Endpoint, *, reuse_port: bool) -> UdpListener:
        host, port = listen.host, listen.port
        if self._watch is None:
            return UdpListener(self.engine, forwarder, host, port, reuse_port=reuse_port)
        return WatchedUdpListener(self.engine, forwarder, host, port, self._watch, reuse_port=reuse_port)

    async def _open_tls(
        self, forwarder: Forwarder, places: Places, certificate: Certificate, *, reuse_port: bool
    ) -> None:
        # Most proxies have no such listener and do not need h2 and h11, which take 60 ms to import.
        from dnsproxy.net.tls import TlsListener  # noqa: PLC0415

        tls = self._settings.serve.tls
        for listen in tls.listen:
            listener = TlsListener(self.engine, forwarder, places, certificate, tls.path, self._watch)
            await listener.open(listen.host, listen.port, reuse_port=reuse_port)
            self._tcp.append(listener)

    async def close(self) -> None:
        """Stop answering."""
        for udp in self._udp:
            udp.close()
        for tcp in self._tcp:
            await tcp.close()
        if self._forwarder is not None:
            self._forwarder.close()
        if self._watch is not None:
            await self._watch.close()

    # -- Plane: what one process answers without asking others --------------------------

    async def run(self) -> None:
        """Nothing: the event loop serves the sockets."""
        await asyncio.get_running_loop().create_future()

    async def gather(self) -> None:
        """Nothing: the figures are always up to date."""

    def traffic(self) -> Traffic:
        """Return what was asked and answered since the start."""
        engine = self.engine
        upstreams = {upstream.name: upstream.stats for upstream in engine.upstreams()}
        return Traffic(engine.stats_now(), upstreams, len(engine.cache), engine.in_flight)

    async def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of a name, or all; return how many."""
        return self.engine.flush(name_key)

    async def explain(self, question: Question) -> Explanation:
        """Return the path that a query would take, without taking it."""
        from dnsproxy.core.explain import explain  # noqa: PLC0415 - not needed to answer queries

        return explain(self.engine, question, monotonic())
