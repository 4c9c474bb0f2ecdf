"""When a worker that has ended is started again, and when one that runs counts as stuck."""

from __future__ import annotations

# Seconds after which a worker's end is news again: what happens once an hour is no loop.
HEALTHY_AFTER = 60.0
# Seconds before the second start in a row, doubled for each further one, and the most.
DELAY_FIRST = 1.0
DELAY_MOST = 30.0
# Questions in a row, one a second, that a worker may leave unanswered. Questions and not seconds: after the
# whole machine stood still there is but one. The largest book keeps a worker busy for a few.
MAX_MISSED = 10
# So many may be late, on a busy machine, before a worker is said not to answer.
MAX_LATE = 2


class Restarts:
    """The starts of one worker after its first; ``count`` of them."""

    def __init__(self) -> None:
        self.count = 0
        self._in_a_row = 0

    def delay(self, lived: float) -> float:
        """Return the seconds to wait before the next start, after ``lived`` seconds from start to end."""
        self.count += 1
        if lived >= HEALTHY_AFTER:
            self._in_a_row = 0
        self._in_a_row += 1
        if self._in_a_row == 1:
            return 0.0
        return min(DELAY_FIRST * 2.0 ** min(self._in_a_row - 2, 16), DELAY_MOST)


class Pulse:
    """Whether one worker still answers questions."""

    def __init__(self) -> None:
        self._missed = 0

    def beat(self, *, answered: bool) -> bool:
        """Note whether the last question is answered when the next is due; return whether it is stuck."""
        self._missed = 0 if answered else self._missed + 1
        return self._missed >= MAX_MISSED

    @property
    def is_well(self) -> bool:
        """Whether it has answered lately."""
        return self._missed <= MAX_LATE
