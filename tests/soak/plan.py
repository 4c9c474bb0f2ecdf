"""What goes wrong in a soak, and when: made from a seed, so that a run can be had again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """One kind of trouble."""

    LOSS = "30 % loss at one upstream"
    SLOW = "2 s delay at one upstream"
    JUNK = "junk before one reply in five of one upstream"
    DISORDER = "replies doubled and out of order"
    UPSTREAM_DEAD = "one upstream killed"
    ALL_DEAD = "no upstream answers"
    HALF_OPEN = "one upstream takes TCP and says nothing"
    HELPER_DEAD = "helper killed"
    SOURCE_DEAD = "source region's resolver killed"
    MOVE = "an address moves at the source"
    IDLE_CLIENTS = "200 idle TCP clients"
    MALFORMED = "5,000 malformed messages"
    FLOOD = "5,000 unique names at once"
    RELOAD = "configuration read again (SIGHUP)"


# Those in which every upstream is out of order: forwarded queries may fail then, and in no other.
UPSTREAMS_OUT = frozenset({Kind.ALL_DEAD})
# Seconds of rest before each, and how long each lasts.
_REST = (5.0, 12.0)
_LENGTH = (8.0, 20.0)


@dataclass(frozen=True)
class Trouble:
    """One fault, from ``begin`` to ``end`` in seconds after the start; ``which`` of two parts it hits."""

    kind: Kind
    begin: float
    end: float
    which: int


def make_plan(
    seed: int, seconds: float, kinds: Sequence[Kind] = tuple(Kind), pace: float = 1.0
) -> list[Trouble]:
    """Return troubles one after another, all kinds in turn in a new order each time.

    The first and the last tenth of the run are left in peace. A ``pace`` below 1 shortens the troubles
    and the rest between them.
    """
    rng = random.Random(seed)  # noqa: S311 - the same plan in every run
    plan: list[Trouble] = []
    now, last = seconds / 10, seconds * 9 / 10
    bag: list[Kind] = []
    while True:
        begin = now + pace * rng.uniform(*_REST)
        now = begin + pace * rng.uniform(*_LENGTH)
        if now > last:
            return plan
        if not bag:
            bag = rng.sample(list(kinds), len(kinds))
        plan.append(Trouble(bag.pop(), begin, now, rng.randrange(2)))
