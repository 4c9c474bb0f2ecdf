"""Health of upstreams: which ones answer, how fast, and when to probe them. Remembers; never sends."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from dnsproxy.core.stats import UpstreamStats

# After so many failures in a row an upstream is down, after so many replies in a row it is up again.
FALL: Final = 3
RISE: Final = 2
# Seconds until a dead one is probed; doubled each time, at most the second value.
PROBE_FIRST: Final = 1.0
PROBE_MOST: Final = 30.0
# Seconds for which an upstream that cannot do EDNS, or does not keep the case of names, gets other queries.
NO_EDNS_FOR: Final = 900.0
# One that has sent an OPT within so many seconds can do EDNS, whatever it says about one query.
EDNS_SEEN_FOR: Final = 900.0
CASE_LOST_FOR: Final = 900.0
# Weight of the newest round-trip time in the decaying mean (RFC 6298 §2 uses 1/8 too).
RTT_WEIGHT: Final = 0.125
# Weight of the newest deviation from it (RFC 6298 §2).
DEVIATION_WEIGHT: Final = 0.25
# What a failure counts for in that mean, in seconds: no less than most attempts may take.
FAILURE_RTT: Final = 1.0
# Seconds that an attempt takes at least: a resolver needs longer for names that are not in its cache.
SHORTEST_ATTEMPT: Final = 0.3
# While all replies take no longer, the mean and four times the deviation are no more than that.
_QUICK: Final = 0.05


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
    ``attempt_time`` is how many seconds to wait for a reply before a query is sent again, infinite while
    that is not known. ``failing`` counts its failures in a row. ``probe_at`` is when it should next be
    probed. ``edns_at`` is when it last sent an OPT, ``heard_at`` when it last sent anything.
    """

    __slots__ = (
        *("_delay", "_deviation", "_failed_at", "_fall", "_replies", "_rise", "address", "attempt_time"),
        *("case_lost_until", "edns_at", "failing", "heard_at", "looped", "name", "no_edns_until", "probe_at"),
        *("secure", "source", "stats", "tcp", "usable"),
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
        self.edns_at = -inf
        self.case_lost_until = 0.0
        self.heard_at = -inf
        self.failing = 0
        self.looped = False
        self.usable = True
        self.probe_at = 0.0
        self._rise = rise
        self._fall = fall
        self._replies = 0
        self._delay = PROBE_FIRST
        self._deviation = 0.0
        self.attempt_time = inf
        self._failed_at = -inf

    def __repr__(self) -> str:
        return f"<Upstream {self.name} {'up' if self.stats.up else 'down'}>"

    def is_like(self, other: Upstream) -> bool:
        """Tell whether ``other`` is asked in the same way, so that what is known of it holds here."""
        mine = (self.name, self.address, self.tcp, self.secure, self._rise, self._fall, self.source)
        return mine == (
            *(other.name, other.address, other.tcp, other.secure, other._rise, other._fall),
            other.source,
        )

    def record_response(self, rtt: float, now: float = 0.0) -> None:
        """Record that it responded ``rtt`` seconds after the send, whatever the RCODE."""
        stats = self.stats
        if rtt > _QUICK or self.attempt_time > SHORTEST_ATTEMPT:
            self._adapt(rtt)
        stats.rtt = rtt if stats.rtt is None else stats.rtt + RTT_WEIGHT * (rtt - stats.rtt)
        self.heard_at = now
        if self.failing:
            self._recover()

    def _adapt(self, rtt: float) -> None:
        """Set the time of an attempt: the mean round-trip time and four times its deviation (RFC 6298)."""
        mean = self.stats.rtt
        if mean is None:
            self._deviation = rtt / 2.0
            mean = rtt
        else:
            self._deviation += DEVIATION_WEIGHT * (abs(rtt - mean) - self._deviation)
            mean += RTT_WEIGHT * (rtt - mean)
        self.attempt_time = max(mean + 4.0 * self._deviation, SHORTEST_ATTEMPT)

    def _recover(self) -> None:
        self._replies += 1
        if not self.stats.up and self._replies < self._rise:
            # It may be back: make sure soon.
            self.probe_at = 0.0
            return
        self.failing = 0
        self.stats.up = True
        self.usable = not self.looped

    def record_timeout(self, now: float, sent_at: float, *, is_probe: bool = False) -> None:
        """Record that a query sent at ``sent_at`` is not answered.

        It says nothing about health if anything has come since it was sent. Of queries that waited at one
        time one counts, so that names without an answer do not mark an upstream as down before a probe shows
        that it is up.
        """
        if self.heard_at > sent_at or self._failed_at > sent_at:
            self.stats.failures["timeout"] += 1
            return
        self._failed_at = now
        if self.usable and not is_probe:
            self.probe_at = now
        self.record_failure("timeout", now)

    def record_failure(self, reason: str, now: float) -> None:
        """Record a failure to reach it; ``reason`` is the metric's label."""
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
