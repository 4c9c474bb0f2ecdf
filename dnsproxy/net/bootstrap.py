"""Find the addresses of upstreams whose host is a name, by asking resolvers that need no name themselves."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from time import monotonic

from dnsproxy.core import names, wire
from dnsproxy.core.attempt import Failure, Limits
from dnsproxy.core.engine import Forward
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.group import by_health
from dnsproxy.core.question import cache_key
from dnsproxy.core.records import addresses_in
from dnsproxy.core.upstreams import Upstream
from dnsproxy.core.wire import Query
from dnsproxy.errors import WireError
from dnsproxy.net.upstream import Forwarder

# Addresses are believed for as long as their TTL says, within these bounds in seconds. They are only
# needed for new connections, so asking is rare.
SHORTEST, LONGEST = 60, 3600
# First octet of the keys of these exchanges: no name starts with it, so no client's question has one.
_PRIVATE = b"\xff"


@dataclass(frozen=True, slots=True)
class _Known:
    addresses: tuple[str, ...]
    until: float


class Bootstrap:
    """Asks ``resolvers`` through ``forwarder``, as it asks for clients: in turn, with TCP when it must be."""

    def __init__(self, forwarder: Forwarder, resolvers: tuple[Upstream, ...], limits: Limits) -> None:
        self._forwarder = forwarder
        self._resolvers = resolvers
        self._limits = limits
        self._known: dict[str, _Known] = {}

    async def resolve(self, host: str) -> Sequence[str]:
        """Return the addresses of ``host``; the last ones known when nobody tells any now.

        Raises:
            OSError: none has ever been told; the text is one line for the operator.
        """
        try:
            return (str(ip_address(host)),)
        except ValueError:
            pass
        known = self._known.get(host)
        if known is not None and monotonic() < known.until:
            return known.addresses
        failures: list[Failure | None] = []
        for qtype in (wire.A, wire.AAAA):
            found, ttl, failure = await self._look(host, qtype)
            failures.append(failure)
            if found:
                until = monotonic() + min(max(ttl, SHORTEST), LONGEST)
                self._known[host] = _Known(tuple(found), until)
                return found
        if known is not None:
            return known.addresses
        text = f"forward.bootstrap has no address for {host}"
        # A failure of this host is none of the upstream, here as where a connection to it is made.
        raise OSError(errno.ENOBUFS, text) if Failure.LOCAL in failures else OSError(text)

    async def _look(self, host: str, qtype: int) -> tuple[list[str], int, Failure | None]:
        now = monotonic()
        question = names.to_key(host) + qtype.to_bytes(2, "big") + wire.IN.to_bytes(2, "big")
        query = wire.scan_query(b"\0\0" + wire.upstream_query(question, wire.RD, edns=False, do=False))
        query.limit = wire.TCP_LIMIT
        exchange = Exchange(_PRIVATE + cache_key(query), query, by_health(self._resolvers), self._limits, now)
        response: asyncio.Future[tuple[bytes, Failure | None]] = asyncio.get_running_loop().create_future()

        def take(_token: object, data: bytes, _query: Query) -> None:
            if not response.done():
                response.set_result((data, None if exchange.response is not None else exchange.last_failure))

        self._forwarder.submit(Forward(exchange, query, is_new=True), take, None, now)
        self._forwarder.flush()
        data, failure = await response
        try:
            return *addresses_in(data), failure
        except WireError:
            return [], 0, failure
