"""Health of upstreams: which ones answer, how fast, and when to probe them. Remembers; never sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dnsproxy.core.stats import UpstreamStats

# After so many failures in a row an upstream is down, after so many replies in a row it is up again.
FALL: Final = 3
RISE: Final = 2
# Seconds until a dead one is probed; doubled each time, at most the second value.
PROBE_FIRST: Final = 1.0
PROBE_MOST: Final = 30.0
# Seconds for which an upstream that cannot do EDNS, or does not keep the case of names, is asked otherwise.
NO_EDNS_FOR: Final = 900.0
CASE_LOST_FOR: Final = 900.0
# Weight of the newest round-trip time in the decaying mean (RFC 6298 §2 uses 1/8 too).
RTT_WEIGHT: Final = 0.125
# What a failure counts for in that mean, in seconds: no less than most attempts may take.
FAILURE_RTT: Final = 1.0


@dataclass(frozen=True, slots=True)
class Secure:
    """How an upstream is asked over TLS.

    ``server_name`` is the name or address that its certificate must be for. With a ``path`` it is
    asked over HTTPS there (RFC 8484), by GET when ``get``; without one, RFC 7858.
    """

    server_name: str
    path: str | None = None
    get: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """What queries are sent from: an address of each family, an interface; empty: as the routes have it."""

    ipv4: str = ""
    ipv6: str = ""
    interface: str = ""

    def __str__(self) -> str:
        return ", ".join([word for word in (self.ipv4, self.ipv6, self.interface) if word])


class Upstream:
    """One resolver that queries can be forwarded to; times are monotonic seconds.

    ``name`` identifies it in logs and metrics, ``address`` is (host, port), ``tcp``
    tells that it is only asked over TCP, which is so for every ``secure`` one. Only a
    ``secure`` one may have a host that is a name. Queries leave from ``source``.

    ``usable`` is False while it is down or ``looped``: a probe sent to it has come back to us.
    ``failing`` counts its failures in a row. ``probe_at`` is when it should next be probed.
    """

    __slots__ = (
        *("_delay", "_fall", "_replies", "_rise", "address", "case_lost_until", "failing", "looped", "name"),
        *("no_edns_until", "probe_at", "secure", "source", "stats", "tcp", "usable"),
    )

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        *,
        tcp: bool = False,
        secure: Secure | None = None,
        rise: int = RISE,
        fall: int = FALL,
        source: Source | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.tcp = tcp or secure is not None
        self.secure = secure
        self.source = source
        self.stats = UpstreamStats()
        self.no_edns_until = 0.0
        self.case_lost_until = 0.0
        self.failing = 0
        self.looped = False
        self.usable = True
        self.probe_at = 0.0
        self._rise = rise
        self._fall = fall
        self._replies = 0
        self._delay = PROBE_FIRST

    def __repr__(self) -> str:
        return f"<Upstream {self.name} {'up' if self.stats.up else 'down'}>"

    def is_like(self, other: Upstream) -> bool:
        """Tell whether ``other`` is asked in the same way, so that what is known of it holds here."""
        mine = (self.name, self.address, self.tcp, self.secure, self._rise, self._fall, self.source)
        return mine == (
            *(other.name, other.address, other.tcp, other.secure, other._rise, other._fall),
            other.source,
        )

    def record_response(self, rtt: float) -> None:
        """Record that it responded ``rtt`` seconds after the send, whatever the RCODE."""
        stats = self.stats
        stats.rtt = rtt if stats.rtt is None else stats.rtt + RTT_WEIGHT * (rtt - stats.rtt)
        if self.failing:
            self._recover()

    def _recover(self) -> None:
        self._replies += 1
        if not self.stats.up and self._replies < self._rise:
            # It may be back: make sure soon.
            self.probe_at = 0.0
            return
        self.failing = 0
        self.stats.up = True
        self.usable = not self.looped

    def record_failure(self, reason: str, now: float) -> None:
        """Record a timeout or network error; ``reason`` is the metric's label."""
        stats = self.stats
        stats.failures[reason] += 1
        stats.rtt = FAILURE_RTT if stats.rtt is None else stats.rtt + RTT_WEIGHT * (FAILURE_RTT - stats.rtt)
        self.failing += 1
        self._replies = 0
        if self.failing >= self._fall and stats.up:
            stats.up = self.usable = False
            self._delay = PROBE_FIRST
            self.probe_at = now + PROBE_FIRST

    def record_loop(self, now: float, *, looped: bool) -> None:
        """Record whether a probe that was sent to it has come back to us."""
        if looped != self.looped:
            self.looped = self.stats.looped = looped
            self._delay = PROBE_FIRST
            self.probe_at = now + PROBE_FIRST
        self.usable = self.stats.up and not looped

    def probed(self, now: float, interval: float) -> None:
        """Record that a probe is sent; the next is due after ``interval``, or sooner if it is not usable."""
        if self.usable:
            self.probe_at = now + interval
        else:
            self.probe_at = now + self._delay
            self._delay = min(self._delay * 2, PROBE_MOST)
