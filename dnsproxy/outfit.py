"""What one configuration makes before it answers: engine, trust, certificate. Opens nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from time import monotonic, time
from typing import Literal

from dnsproxy.certificate import Certificate, designated_name
from dnsproxy.core import names
from dnsproxy.core.access import AccessList
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.attempt import Limits
from dnsproxy.core.cache import Cache, CachePolicy
from dnsproxy.core.chance import Chance
from dnsproxy.core.clients import Clients
from dnsproxy.core.ddr import designations
from dnsproxy.core.engine import Engine
from dnsproxy.core.features import Features
from dnsproxy.core.group import Group
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.policy import Times, build_rules, owned_name
from dnsproxy.core.registry import reserved_patterns
from dnsproxy.core.returns import Returns
from dnsproxy.core.upstreams import Secure, Upstream
from dnsproxy.errors import StartError
from dnsproxy.net.dial import Dialer
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint
from dnsproxy.system import expand_resolvers, is_own


class Outfit:
    """All that `server.Server` answers with.

    ``earlier`` is what it answers with now: cache, counts and the health of upstreams go on from there.
    Workers share ``returns``.

    Raises:
        StartError: an upstream is this proxy itself, resolvers, an authority or the certificate
            cannot be had; with every reason.
    """

    def __init__(
        self,
        settings: Settings,
        earlier: Outfit | None = None,
        returns: Returns | None = None,
        table: ServedTable | None = None,
    ) -> None:
        self.settings = settings
        # Names that are new must not be forwarded; those that are gone leave with the next table.
        self.made_from = table
        self._sought = settings.sought()
        self._wanted = {entry.name: entry for entry in settings.wanted()}
        self.table = (table or ServedTable()).managing(self._wanted.values())
        self.zones = [names.to_key(zone) for zone in settings.forward.zones]
        self.limits = limits_of(settings)
        complaints: list[str] = []
        tls = settings.serve.tls
        self.certificate: Certificate | None = None
        try:
            if tls.cert_file and tls.key_file:
                self.certificate = Certificate(tls.cert_file, tls.key_file)
        except StartError as exc:
            complaints += exc.reasons
        try:
            self.engine: Engine = build_engine(settings, None if earlier is None else earlier.engine, returns)
            self.bootstrap = _upstreams(settings, list(settings.forward.bootstrap), _Known())
            self.dialer = Dialer(self.engine.upstreams(), settings.forward.ca_file)
        except StartError as exc:
            complaints += exc.reasons
        if complaints:
            raise StartError(*complaints)
        # With 10,000 names this takes a while: a reload makes it in a thread.
        self.swap_table(self.table, None if earlier is None else earlier.engine)

    def swap_table(self, table: ServedTable, earlier: Engine | None) -> None:
        """Answer with the addresses of ``table``; ``earlier`` is the engine that did so before."""
        # The table may be older than these settings, whose names must not be forwarded.
        table, learn = table.managing(self._wanted.values()), self.settings.learn
        now, wall_now = monotonic(), time()
        rules = build_rules(
            table,
            self.zones,
            ttl=learn.ttl,
            max_stale=learn.max_stale,
            now=now,
            wall_now=wall_now,
            earlier=None if earlier is None else earlier.rules,
            reserved=reserved_patterns(self._sought, table.discovered),
        )
        self.table = table
        self.engine.swap_rules(rules)

    def update(self, table: ServedTable, names: Iterable[str]) -> None:
        """Answer ``names`` by ``table`` from now on; all others are as before."""
        if table.discovered != self.table.discovered:
            self.engine.reserve(reserved_patterns(self._sought, table.discovered))
        self.table, learn = table, self.settings.learn
        times = Times(learn.ttl, learn.max_stale, monotonic(), time())
        # The same, in a worker: it may have these settings first.
        managed = {name: table.by_name.get(name) or self._wanted.get(name) for name in names}
        self.engine.update_rules(
            {
                name: None if entry is None else owned_name(entry, table.sets.get(name), times)
                for name, entry in managed.items()
            }
        )

    def outdated_zones(self, earlier: Outfit) -> frozenset[tuple[bytes, bytes]]:
        """Return (zone before, zone now) of the names whose cached answers came from elsewhere.

        The resolvers of one list are taken to tell the same: so do lists with one in common.
        """
        before, after = _resolvers(earlier.engine), _resolvers(self.engine)
        return frozenset(
            (old, new)
            for old in before
            for new in after
            if (old == new or old not in after or new not in before) and not before[old] & after[new]
        )


def _resolvers(engine: Engine) -> dict[bytes, set[str]]:
    return {zone: {upstream.name for upstream in group.members} for zone, group in engine.groups.items()}


class _Known:
    """Upstreams by what they are, so that each is one object with one health."""

    def __init__(self, earlier: Iterable[Upstream] = ()) -> None:
        self._earlier = {upstream.name: upstream for upstream in earlier}
        self._found: dict[str, Upstream] = {}

    def one(self, upstream: Upstream) -> Upstream:
        """Return ``upstream``, or the one like it that is known."""
        held = self._earlier.get(upstream.name)
        if held is not None and held.is_like(upstream):
            upstream = held
        return self._found.setdefault(upstream.name, upstream)


def build_engine(settings: Settings, earlier: Engine | None = None, returns: Returns | None = None) -> Engine:
    """Return an engine for ``settings`` that knows no learned name yet; workers share ``returns``.

    With an ``earlier`` one, which is not changed, it goes on counting where that one is, and with what is
    known of the upstreams that both have.

    Raises:
        StartError: an upstream is this proxy itself, or the system's resolvers cannot be read.
    """
    serve, forward, cache = settings.serve, settings.forward, settings.cache
    chance = Chance(os.urandom)
    known = _Known() if earlier is None else _Known(earlier.upstreams())
    groups = {
        names.to_key(zone): Group(_upstreams(settings, hosts, known), forward.policy, chance)
        for zone, hosts in ((".", forward.upstreams), *forward.zones.items())
    }
    limit = serve.rate_limit
    clients = Clients(limit.ipv4_prefix, limit.ipv6_prefix)
    return Engine(
        AccessList(serve.allow),
        groups,
        limits=limits_of(settings),
        max_in_flight=forward.max_in_flight,
        cache=Cache(
            cache.entries,
            CachePolicy(cache.min_ttl, cache.max_ttl, cache.negative_ttl, cache.stale),
            max_bytes=cache.max_bytes,
        ),
        chance=chance,
        features=Features(
            prefetch=cache.prefetch,
            nxdomain_cut=cache.nxdomain_cut,
            minimal_any=forward.minimal_any,
            mix_case=forward.case_randomization,
            version=serve.identity.version,
            identity=serve.identity.server,
            probe_interval=forward.probe.interval,
            designated=_designated(settings),
            returns=returns,
            proxies=AccessList(serve.proxy_protocol) if serve.proxy_protocol else None,
        ),
        limiter=RateLimiter(limit.per_client, limit.exempt, clients) if limit.per_client else None,
        clients=clients,
        stats=None if earlier is None else earlier.stats,
    )


def _designated(settings: Settings) -> tuple[bytes, ...]:
    """Return what designates the encrypted listeners; nothing without a name that clients can verify."""
    tls = settings.serve.tls
    name = designated_name(tls.cert_file) if tls.listen and tls.cert_file else None
    if name is None:
        return ()
    return designations(name, [(listen.host, listen.port) for listen in tls.listen], tls.path)


def limits_of(settings: Settings) -> Limits:
    """Return how long forwarded queries may take."""
    return Limits(settings.forward.timeout.attempt, settings.forward.timeout.total)


def _upstreams(
    settings: Settings, resolvers: list[Endpoint | Literal["system"]], known: _Known
) -> tuple[Upstream, ...]:
    """Return what to forward to; what several zones have in common is one upstream with one health."""
    found = []
    for endpoint in expand_resolvers(resolvers):
        if is_own(endpoint, (*settings.serve.listen, *settings.serve.tls.listen)):
            raise StartError(f"upstream {endpoint} is this proxy's own listening address")
        found.append(known.one(_upstream(settings, endpoint)))
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
        source=settings.forward.source,
    )
