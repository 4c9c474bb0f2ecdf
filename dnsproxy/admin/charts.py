"""Bars of an hour, as the path of an SVG drawing and as a sentence for those who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dnsproxy.admin.wording import count
from dnsproxy.core.trend import MINUTES

# Of each minute's place, which is one unit wide, this much is bar.
_BAR = 0.7
# Units of height; the drawing is stretched to its place.
HEIGHT = 20
# What happened once must be seen beside what happened a thousand times.
_LEAST = 1.0


@dataclass(frozen=True, slots=True)
class Chart:
    """``path`` for a viewBox of `MINUTES` by `HEIGHT`, the last minute at its right end."""

    path: str
    total: int
    peak: int
    text: str

    @classmethod
    def of(cls, what: str, minutes: Sequence[int]) -> Chart:
        """Return the chart of ``minutes``, oldest first; ``what`` is counted."""
        shown = minutes[-MINUTES:]
        total, peak = sum(shown), max(shown, default=0)
        if not total:
            return cls("", 0, 0, f"no {what} in the last hour")
        text = f"{count(total)} {what} in the last hour, {count(peak)} in the busiest minute"
        return cls(_path(shown, peak), total, peak, f"{text}, {count(shown[-1])} in this one")


def _path(minutes: Sequence[int], peak: int) -> str:
    bars = []
    for place, number in enumerate(minutes, MINUTES - len(minutes)):
        if number:
            height = max(_LEAST, HEIGHT * number / peak)
            bars.append(f"M{place} {HEIGHT}v{-height:.4g}h{_BAR}v{height:.4g}z")
    return "".join(bars)
