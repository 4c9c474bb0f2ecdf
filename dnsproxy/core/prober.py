"""Background probes: is an upstream alive, how fast is it, and does it lead back to ourselves?

A probe asks for the address of a name that nobody has, two labels of digits below the zone that
the upstream serves. Any reply shows that it lives. The same question among the
queries that we receive shows a loop; the upstream is then left out until a probe
is answered and has not come back, to this process or to another (`Returns`). Each name is used once, so
no cache on the way can hide a loop, and it ends at us: a probe that comes back is never forwarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dnsproxy.core import wire
from dnsproxy.core.chance import Chance
from dnsproxy.core.exchange import PROBE, Exchange, Failure, Limits
from dnsproxy.core.group import Group
from dnsproxy.core.names import MAX_NAME, ROOT
from dnsproxy.core.returns import KEY_SIZE, PREFIX, Returns
from dnsproxy.core.upstreams import Upstream

# Seconds between two looks at whether a probe is due.
LOOK_EVERY: Final = 1.0
# Below a zone whose name leaves no room nothing can be asked.
_LONGEST_ZONE: Final = MAX_NAME - PREFIX
_SILENT: Final = frozenset({Failure.TIMEOUT, Failure.NETWORK, Failure.LOCAL})


class Prober:
    """Decides when which upstream of ``groups`` is probed.

    ``interval`` is the seconds between probes of one that is well; if infinite, only those that are
    down are probed. ``wait`` is how long a probe may take. ``returns`` is what is shared with the other
    processes that have the same ``groups``, if there are any.
    """

    def __init__(
        self,
        groups: Mapping[bytes, Group],
        interval: float,
        wait: float,
        chance: Chance,
        returns: Returns | None = None,
    ) -> None:
        self._interval = interval
        self._limits = Limits(wait, wait)
        self._chance = chance
        # An upstream of several zones is probed below the first of them that is listed.
        self._zones: dict[Upstream, bytes] = {}
        for zone, group in groups.items():
            for upstream in group.members:
                self._zones.setdefault(upstream, zone if len(zone) <= _LONGEST_ZONE else ROOT)
        self._numbers = {upstream: number for number, upstream in enumerate(self._zones)}
        self._returns = returns or Returns(chance.octets(KEY_SIZE), [0.0] * len(self._zones))
        # What the others had found before us, our own first probes will tell.
        self._known = [self._returns.last[number] for number in self._numbers.values()]
        # Some may be known from an earlier configuration.
        self._told = {upstream: _state(upstream) for upstream in self._zones}
        for upstream in self._zones:
            upstream.probe_at = 0.0 if interval < float("inf") else interval

    def due(self, now: float) -> list[Exchange]:
        """Return the probes to send at ``now``; leave out the upstreams whose probes came back to others."""
        found = []
        for upstream, number in self._numbers.items():
            returned = self._returns.last[number]
            if returned > self._known[number]:
                self._known[number] = returned
                upstream.record_loop(now, looped=True)
            if upstream.probe_at <= now:
                upstream.probed(now, self._interval)
                found.append(self._probe(upstream, number, now))
        return found

    def _probe(self, upstream: Upstream, number: int, now: float) -> Exchange:
        zone = self._zones[upstream]
        name = self._returns.prefix(number, self._chance.octets(2), now) + zone
        question = wire.upstream_query(name + b"\0\1\0\1", wire.RD, edns=False, do=False)
        exchange = Exchange(name, wire.scan_query(b"\0\0" + question), (upstream,), self._limits, now, zone)
        exchange.purpose = PROBE
        exchange.send_once()
        return exchange

    def came_back(self, key: bytes, now: float) -> bool:
        """Tell whether the query name ``key`` is a probe's; if so its upstream is left out from now on."""
        number = self._returns.sender(key, now)
        if number is None:
            return False
        self._returns.record(number, now)
        self._known[number] = now
        for upstream, its_number in self._numbers.items():
            if its_number == number:
                upstream.stats.failures[Failure.LOOP] += 1
                upstream.record_loop(now, looped=True)
        return True

    def complete(self, exchange: Exchange, now: float) -> None:
        """Take the end of a probe: when it is answered and none has come back since, there is no loop."""
        upstream = exchange.upstream
        if upstream.looped and exchange.last_failure not in _SILENT:
            begun = exchange.deadline - self._limits.total
            if self._returns.last[self._numbers[upstream]] < begun:
                upstream.record_loop(now, looped=False)

    def news(self) -> list[tuple[str, str]]:
        """Return what has changed since the last time: (``up``, ``down`` or ``loop``, upstream's name)."""
        changed = []
        for upstream in self._zones:
            state = _state(upstream)
            if state != self._told[upstream]:
                self._told[upstream] = state
                changed.append((state, upstream.name))
        return changed


def _state(upstream: Upstream) -> str:
    return "loop" if upstream.looped else "up" if upstream.stats.up else "down"
