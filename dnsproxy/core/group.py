"""The upstreams of one zone, and the policy by which each query gets an order to try them in."""

from __future__ import annotations

from typing import Final

from dnsproxy.core.chance import Chance
from dnsproxy.core.upstreams import Upstream

SEQUENTIAL: Final = "sequential"
FASTEST: Final = "fastest"
RANDOM: Final = "random"
RACE: Final = "race"

# One query in so many goes first to an upstream that is not the fastest known: a mean that nobody
# renews would hold for ever. Background probes renew it too, at nobody's expense, so it can be few.
EXPLORE_EVERY: Final = 50


class Group:
    """Upstreams in their configured order.

    Those that are down come last, and are still tried; those that a loop was found
    through are left out. Of the others, by policy: as configured (sequential), by the decaying
    mean of their round-trip times (fastest), from one drawn at random on (random),
    or as fastest with the first two asked at the same time (race).
    """

    __slots__ = ("_chance", "_left", "_ranked", "_shuffled", "_sorted", "members", "policy", "races")

    def __init__(self, members: tuple[Upstream, ...], policy: str, chance: Chance) -> None:
        self.members = members
        self.policy = policy
        self.races = policy == RACE and len(members) > 1
        self._chance = chance
        self._sorted = policy in {FASTEST, RACE} and len(members) > 1
        self._shuffled = policy == RANDOM and len(members) > 1
        self._ranked = members
        self._left = 0

    def order(self) -> tuple[Upstream, ...]:
        """Return the order to try for a query; empty when a loop was found through every upstream."""
        for upstream in self.members:
            if not upstream.usable:
                break
        else:
            if self._sorted:
                return self._fastest_first()
            return self._from_any(self.members) if self._shuffled else self.members
        return self._around_the_unusable(draw=True)

    def expected_order(self) -> tuple[Upstream, ...]:
        """Return `order` as it is most of the time, without a draw; nothing is changed."""
        if self._sorted and all(upstream.usable for upstream in self.members):
            return _ranked(self.members)
        return self._around_the_unusable(draw=False)

    def _fastest_first(self) -> tuple[Upstream, ...]:
        self._left -= 1
        if self._left >= 0 and not self._ranked[0].failing:
            return self._ranked
        self._ranked = ranked = _ranked(self.members)
        self._left = EXPLORE_EVERY - 1
        other = 1 + self._chance.below(len(ranked) - 1)
        return (ranked[other], *ranked[:other], *ranked[other + 1 :])

    def _from_any(self, upstreams: tuple[Upstream, ...]) -> tuple[Upstream, ...]:
        first = self._chance.below(len(upstreams))
        return upstreams[first:] + upstreams[:first]

    def _around_the_unusable(self, *, draw: bool) -> tuple[Upstream, ...]:
        usable, down = _split(self.members)
        if self._sorted:
            usable = _ranked(usable)
        elif self._shuffled and draw and usable:
            usable = self._from_any(usable)
        return (*usable, *down)


def by_health(upstreams: tuple[Upstream, ...]) -> tuple[Upstream, ...]:
    """Return those that are well, as configured, and then those that are down; none that leads to a loop."""
    usable, down = _split(upstreams)
    return usable + down


def _split(upstreams: tuple[Upstream, ...]) -> tuple[tuple[Upstream, ...], tuple[Upstream, ...]]:
    usable = tuple([upstream for upstream in upstreams if upstream.usable])
    down = [upstream for upstream in upstreams if not upstream.usable and not upstream.looped]
    # One that has just answered comes before those that have not.
    down.sort(key=_failures)
    return usable, tuple(down)


def _ranked(upstreams: tuple[Upstream, ...]) -> tuple[Upstream, ...]:
    """Return the fastest first; those never asked before all, to learn how fast they are."""
    return tuple(sorted(upstreams, key=_rtt))


def _rtt(upstream: Upstream) -> float:
    return upstream.stats.rtt or 0.0


def _failures(upstream: Upstream) -> int:
    return upstream.failing
