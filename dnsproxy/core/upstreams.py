"""Health and order of upstreams. Remembers; never sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dnsproxy.core.stats import UpstreamStats

# After this many failures in a row an upstream goes to the end of the order.
FAILURES_TO_DOWN: Final = 3
# Seconds until one query tries it again; doubled each time, at most the second value.
RETRY_FIRST: Final = 1.0
RETRY_MOST: Final = 30.0
# How long an upstream that cannot do EDNS is asked without it, in seconds.
NO_EDNS_FOR: Final = 900.0
# Weight of the newest round-trip time in the decaying mean (RFC 6298 §2 uses 1/8 too).
RTT_WEIGHT: Final = 0.125


@dataclass(frozen=True, slots=True)
class Secure:
    """How an upstream is asked over TLS.

    ``server_name`` is the name or address that its certificate must be for. With a ``path`` it is
    asked over HTTPS there (RFC 8484), by GET when ``get``; without one, RFC 7858.
    """

    server_name: str
    path: str | None = None
    get: bool = False


class Upstream:
    """One resolver that queries can be forwarded to; times are monotonic seconds.

    ``name`` identifies it in logs and metrics, ``address`` is (host, port), ``tcp``
    tells that it is only asked over TCP, which is so for every ``secure`` one. Only a
    ``secure`` one may have a host that is a name.
    """

    __slots__ = (
        *("_failures", "_retry_at", "_retry_delay", "address", "name", "no_edns_until"),
        *("secure", "stats", "tcp"),
    )

    def __init__(
        self, name: str, address: tuple[str, int], *, tcp: bool = False, secure: Secure | None = None
    ) -> None:
        self.name = name
        self.address = address
        self.tcp = tcp or secure is not None
        self.secure = secure
        self.stats = UpstreamStats()
        self.no_edns_until = 0.0
        self._failures = 0
        self._retry_at = 0.0
        self._retry_delay = RETRY_FIRST

    def __repr__(self) -> str:
        return f"<Upstream {self.name} {'up' if self.stats.up else 'down'}>"

    def record_response(self, rtt: float) -> None:
        """Record that it responded ``rtt`` seconds after the send, whatever the RCODE."""
        stats = self.stats
        stats.rtt = rtt if stats.rtt is None else stats.rtt + RTT_WEIGHT * (rtt - stats.rtt)
        if self._failures:
            self._failures = 0
            self._retry_delay = RETRY_FIRST
            stats.up = True

    def record_failure(self, reason: str, now: float) -> None:
        """Record a timeout or network error; ``reason`` is the metric's label."""
        self.stats.failures[reason] += 1
        self._failures += 1
        if self._failures >= FAILURES_TO_DOWN and self.stats.up:
            self.stats.up = False
            self._retry_at = now + self._retry_delay

    def may_lead(self, now: float) -> bool:
        """Tell whether a new query may go here first; at most one query per back-off tries a dead one."""
        if self.stats.up:
            return True
        if now < self._retry_at:
            return False
        self._retry_delay = min(self._retry_delay * 2, RETRY_MOST)
        self._retry_at = now + self._retry_delay
        return True


def order(group: tuple[Upstream, ...], now: float) -> tuple[Upstream, ...]:
    """Return ``group`` in the order to try: those that are up as configured, then the others.

    With every upstream down the configured order is kept: all are still tried.
    """
    for upstream in group:
        if not upstream.stats.up:
            break
    else:
        return group
    leading = [upstream for upstream in group if upstream.may_lead(now)]
    return (*leading, *(upstream for upstream in group if upstream not in leading))
