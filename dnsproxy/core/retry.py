"""How long to wait before the next attempt at something that keeps failing."""

from __future__ import annotations

# Each failure may at most triple the delay: the factor of AWS's "decorrelated jitter".
_FACTOR = 3.0
# 3 ** 64 is far beyond every cap; a larger exponent could only overflow.
_MAX_EXPONENT = 64


def next_delay(failures: int, base: float, cap: float, draw: float) -> float:
    """Return the seconds to wait after ``failures`` (1 or more) failures in a row.

    Somewhere from ``base`` to ``base * 3 ** failures``, never above ``cap``;
    ``draw`` (0 up to, not including, 1) picks the place, so that many clients
    of one dead server do not come back together. A ``cap`` below ``base`` wins.
    """
    upper = min(cap, base * _FACTOR ** min(failures, _MAX_EXPONENT))
    lower = min(base, upper)
    return lower + draw * (upper - lower)
