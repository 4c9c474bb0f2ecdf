"""``dnsproxy check --memory``: how much memory a proxy with this configuration may take."""

from __future__ import annotations

from dnsproxy.core.memory import MIB, ProxyShape, proxy_limits, service_limit
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint


def proxy_shape(settings: Settings) -> ProxyShape:
    """Return what of ``settings`` decides how much memory a proxy may take."""
    from dnsproxy.admin.app import TOTAL  # noqa: PLC0415 - `check` and `--version` start faster without these
    from dnsproxy.net.channel import MAX_LINKS  # noqa: PLC0415
    from dnsproxy.workers.start import worker_count  # noqa: PLC0415

    serve, forward = settings.serve, settings.forward
    upstreams = {entry for hosts in (forward.upstreams, *forward.zones.values()) for entry in hosts}
    https = [entry for entry in upstreams if isinstance(entry, Endpoint) and entry.transport == "https"]
    # The resolvers of the system are three at most (resolv.conf(5)).
    count = sum(1 if isinstance(entry, Endpoint) else 3 for entry in upstreams)
    log = settings.log
    return ProxyShape(
        workers=worker_count(serve.workers),
        cache=settings.cache.max_bytes,
        max_in_flight=forward.max_in_flight,
        tcp_clients=serve.max_tcp_clients,
        serves_tls=bool(serve.tls.listen),
        has_rate_limit=bool(serve.rate_limit.per_client),
        has_cuts=settings.cache.nxdomain_cut,
        udp_listeners=len(serve.listen),
        upstream_connections=MAX_LINKS * count,
        https_connections=MAX_LINKS * len(https),
        sources=len(settings.learn.sources),
        names=len(settings.wanted()),
        admin_clients=TOTAL if settings.admin.listen is not None else 0,
        admin_has_tls=settings.admin.tls.cert_file is not None,
        query_queues=log.queries.enabled + bool(log.dnstap.socket or log.dnstap.file),
    )


def memory_table(settings: Settings) -> list[str]:
    """Return the lines that `dnsproxy check --memory` prints: every limit, their sum, and the service's."""
    limits = proxy_limits(proxy_shape(settings))
    rows = [(limit.name, limit.size) for limit in limits]
    rows += [
        ("sum", sum(limit.size for limit in limits)),
        ("limit of the service (MemoryMax)", service_limit(limits)),
    ]
    return [f"{name:<50}{size / MIB:>9.1f} MiB" for name, size in rows]
