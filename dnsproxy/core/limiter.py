"""The per-client rate limit: a token bucket per address or prefix, off by default."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from dnsproxy.core.access import AccessList
from dnsproxy.core.clients import Clients
from dnsproxy.core.memory import CLIENT_RATE, CLIENT_RATES
from dnsproxy.core.recent import Recent

# A client that is evicted and returns starts with a full bucket.
MAX_BUCKETS: Final = 65_536
# Of the queries over the limit, one in so many gets TC instead of nothing: a real client then comes back
# over TCP, which no forged address can do (as BIND's and NSD's "slip").
SLIP: Final = 2

PASS: Final = 0
SLIPS: Final = 1
DROP: Final = 2


class _Bucket:
    __slots__ = ("at", "over", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.over = 0


class RateLimiter:
    """``per_second`` queries a second for each client, as many at once after a second of silence.

    Those of ``exempt`` are not limited. Only queries over UDP are given to `verdict`: the
    address of a TCP client is its own, and connections are limited otherwise.
    """

    __slots__ = ("_buckets", "_clients", "_exempt", "_per_second")

    def __init__(
        self,
        per_second: float,
        exempt: Iterable[IPv4Network | IPv6Network] = (),
        clients: Clients | None = None,
    ) -> None:
        self._per_second = per_second
        self._exempt = AccessList(exempt)
        self._clients = clients or Clients()
        self._buckets: Recent[_Bucket] = Recent(MAX_BUCKETS, CLIENT_RATES, CLIENT_RATE)

    def __len__(self) -> int:
        return len(self._buckets)

    def verdict(self, source: bytes, now: float) -> int:
        """Count a query from the packed address ``source``; return `PASS`, `SLIPS` or `DROP`."""
        if self._exempt.allows(source):
            return PASS
        client = self._clients.of(source)
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = _Bucket(self._per_second, now)
            self._buckets.put(client, bucket)
        else:
            gained = (now - bucket.at) * self._per_second
            bucket.tokens = min(bucket.tokens + gained, self._per_second)
            bucket.at = now
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return PASS
        bucket.over += 1
        return SLIPS if bucket.over % SLIP == 0 else DROP

    def left(self, source: bytes, now: float) -> float | None:
        """Return how many queries the client may send at once, None for any number; nothing is changed."""
        if self._exempt.allows(source):
            return None
        bucket = self._buckets.peek(self._clients.of(source))
        if bucket is None:
            return self._per_second
        return min(bucket.tokens + (now - bucket.at) * self._per_second, self._per_second)
