"""Background probes: is an upstream alive, how fast is it, and does it lead back to ourselves?

A probe asks for the address of a name that nobody has, two random labels below the zone that
the upstream serves. Any reply shows that it lives. The same question among the
queries that we receive shows a loop; the upstream is then left out until a probe
is answered and has not come back. Each name is used once, so no cache on the way can hide a loop,
and it ends at us: a probe that comes back is never forwarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dnsproxy.core import wire
from dnsproxy.core.chance import Chance
from dnsproxy.core.exchange import PROBE, Exchange, Failure, Limits
from dnsproxy.core.group import Group
from dnsproxy.core.names import MAX_NAME, ROOT
from dnsproxy.core.upstreams import Upstream

# Seconds between two looks at whether a probe is due.
LOOK_EVERY: Final = 1.0
# Seconds for which a probe that comes back is recognised: longer than any server on the way would wait.
AWAITED_FOR: Final = 15.0
# Two labels of 16 hexadecimal digits go in front. Below a zone that leaves no room nothing can be asked.
_LONGEST_ZONE: Final = MAX_NAME - 34
_SILENT: Final = frozenset({Failure.TIMEOUT, Failure.NETWORK})


class _Awaited:
    __slots__ = ("returned", "until", "upstream")

    def __init__(self, upstream: Upstream, until: float) -> None:
        self.upstream = upstream
        self.until = until
        self.returned = False


class Prober:
    """Decides when which upstream of ``groups`` is probed.

    ``interval`` is the seconds between probes of one that is well; if infinite, only those that are
    down are probed. ``wait`` is how long a probe may take. ``awaited`` is empty most of the time.
    """

    def __init__(self, groups: Mapping[bytes, Group], interval: float, wait: float, chance: Chance) -> None:
        self.awaited: dict[bytes, _Awaited] = {}
        self._interval = interval
        self._limits = Limits(wait, wait)
        self._chance = chance
        # An upstream of several zones is probed below the first of them that is listed.
        self._zones: dict[Upstream, bytes] = {}
        for zone, group in groups.items():
            for upstream in group.members:
                self._zones.setdefault(upstream, zone if len(zone) <= _LONGEST_ZONE else ROOT)
        self._told: dict[Upstream, str] = dict.fromkeys(self._zones, "up")
        for upstream in self._zones:
            upstream.probe_at = 0.0 if interval < float("inf") else interval

    def due(self, now: float) -> list[Exchange]:
        """Return the probes to send at ``now``."""
        for key in [key for key, awaited in self.awaited.items() if awaited.until <= now]:
            del self.awaited[key]
        found = []
        for upstream, zone in self._zones.items():
            if upstream.probe_at <= now:
                upstream.probed(now, self._interval)
                found.append(self._probe(upstream, zone, now))
        return found

    def _probe(self, upstream: Upstream, zone: bytes, now: float) -> Exchange:
        name = b"".join([b"\x10" + self._chance.octets(8).hex().encode() for _ in range(2)]) + zone
        self.awaited[name] = _Awaited(upstream, now + AWAITED_FOR)
        question = wire.upstream_query(name + b"\0\1\0\1", wire.RD, edns=False, do=False)
        exchange = Exchange(name, wire.scan_query(b"\0\0" + question), (upstream,), self._limits, now, zone)
        exchange.purpose = PROBE
        exchange.send_once()
        return exchange

    def came_back(self, key: bytes, now: float) -> bool:
        """Tell whether the query name ``key`` is a probe's; if so its upstream is left out from now on."""
        found = self.awaited.get(key)
        if found is None:
            return False
        found.returned = True
        found.upstream.stats.failures[Failure.LOOP] += 1
        found.upstream.record_loop(now, looped=True)
        return True

    def complete(self, exchange: Exchange, now: float) -> None:
        """Take the end of a probe: an answer to one that did not come back shows that there is no loop."""
        upstream = exchange.upstream
        if upstream.looped and exchange.last_failure not in _SILENT:
            found = self.awaited.get(exchange.key)
            if found is not None and not found.returned:
                upstream.record_loop(now, looped=False)

    def news(self) -> list[tuple[str, str]]:
        """Return what has changed since the last time: (``up``, ``down`` or ``loop``, upstream's name)."""
        changed = []
        for upstream in self._zones:
            state = "loop" if upstream.looped else "up" if upstream.stats.up else "down"
            if state != self._told[upstream]:
                self._told[upstream] = state
                changed.append((state, upstream.name))
        return changed
