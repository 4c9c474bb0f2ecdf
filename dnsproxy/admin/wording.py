"""Numbers as people read them, on the status page and in what its charts say in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

# A no-break space: a number and its unit stay on one line.
NBSP = "\N{NO-BREAK SPACE}"
DASH = "\N{EN DASH}"
_STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"))
# Seconds after which a time of day does not say enough.
_DAY = 86_400


def span(seconds: float | None) -> str:
    """Return ``8 s``, ``3 min``, ``5 h`` or ``2 d``; a dash when it is not known."""
    if seconds is None:
        return DASH
    whole = max(int(seconds), 0)
    for length, unit in _STEPS:
        if whole >= length:
            return f"{whole // length}{NBSP}{unit}"
    return f"{whole}{NBSP}s"


def count(number: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,.0f}"


def rate(number: float | None) -> str:
    """Return a rate with as many digits as one can take in; a dash when it is not known."""
    if number is None:
        return DASH
    return f"{number:,.1f}" if number < 100 else count(number)


def share(part: float, whole: float) -> str:
    """Return a percentage; a dash where there is no whole."""
    if not whole:
        return DASH
    percent = 100 * part / whole
    # Neither none nor all, where that is not so.
    if 0 < percent < 0.1:
        return f"<{NBSP}0.1{NBSP}%"
    if 99.9 < percent < 100:
        return f">{NBSP}99.9{NBSP}%"
    return f"{percent:.0f}{NBSP}%" if percent in {0, 100} else f"{percent:.1f}{NBSP}%"


def milliseconds(seconds: float | None) -> str:
    """Return a round-trip time; a dash when it is not known."""
    if seconds is None:
        return DASH
    thousandths = seconds * 1000
    return f"{thousandths:.1f}{NBSP}ms" if thousandths < 10 else f"{thousandths:,.0f}{NBSP}ms"


def counts(numbers: Mapping[str, int]) -> str:
    """Return counts by reason, the largest first; a dash where there are none."""
    listed = sorted(((number, reason) for reason, number in numbers.items() if number), reverse=True)
    return ", ".join(f"{reason.replace('_', ' ')}{NBSP}{count(number)}" for number, reason in listed) or DASH


def clock(unix: float, now: float) -> str:
    """Return the time of day in UTC, with the date when it is more than a day away from ``now``."""
    form = "%H:%M:%S" if abs(now - unix) < _DAY else "%Y-%m-%d %H:%M"
    return moment(unix).strftime(form)


def iso(unix: float) -> str:
    """Return a time as HTML's ``datetime`` wants it (RFC 3339)."""
    return moment(unix).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(unix: float) -> datetime:
    """Return the time; what no calendar holds becomes the first or the last one that it does."""
    # A document signed by a helper says when it was made, and may say anything.
    return datetime.fromtimestamp(min(max(unix, 0.0), 253_402_300_799.0), UTC)


def plain(name: str) -> str:
    """Return a domain name without its last dot."""
    return name.removesuffix(".") or "."
