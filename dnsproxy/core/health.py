"""What probes tell of one address: whether it lives, and when to ask again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

# Failures in a row after which an address that lived counts as dead: one may be a lost packet or a restart.
FALL = 2
# Seconds from the first failure to the next probe; doubled with each further one, up to the interval.
RETRY = 1.0
# 1 s * 2**20 is above every interval; a larger exponent could only overflow.
_MAX_EXPONENT = 20


class Outcome(StrEnum):
    """How a probe ended.

    ``FAILED`` is the address's own doing. ``NO_ROUTE`` may be this host's: it proves something only
    when another address answers. ``HOST`` says nothing about the address: this host was short of
    something that a connection needs.
    """

    ANSWERED = "answered"
    FAILED = "failed"
    NO_ROUTE = "no_route"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Probe:
    """Connect to each of ``ports``; with ``server_name``, by TLS on all but port 80, else by TCP alone."""

    name: str
    address: str
    ports: tuple[int, ...]
    server_name: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a probe; ``ports`` says ``ok`` or why not for each port."""

    outcome: Outcome
    ports: Mapping[int, str]

    @property
    def has_answered(self) -> bool:
        """Whether every port did."""
        return self.outcome is Outcome.ANSWERED

    @property
    def complaint(self) -> str:
        """What is wrong, for people; empty when nothing is."""
        wrong = [f"port {port}: {text}" for port, text in sorted(self.ports.items()) if text != "ok"]
        return "; ".join(wrong)


@dataclass(frozen=True, slots=True)
class Sign:
    """What a trial needs of an address: as `Health`, and how many probes in a row it has failed."""

    alive: bool | None
    failures: int

    @property
    def is_good(self) -> bool:
        """Whether it lives, and answered when it was last asked."""
        return self.alive is True and not self.failures


@dataclass(slots=True)
class Health:
    """One address. ``alive`` is None while nobody can tell.

    ``due`` is monotonic seconds, ``checked_at`` Unix time, as is ``since``: the first of the
    probes, without a break up to the last one, that all answered or all did not.
    """

    alive: bool | None
    due: float
    in_flight: bool = False
    result: Result | None = None
    checked_at: float | None = None
    since: float | None = None
    _failures: int = 0
    _tries: int = 0
    _failing_since: float = 0.0

    @property
    def sign(self) -> Sign:
        """What a trial needs to know."""
        return Sign(self.alive, self._failures)

    def record(
        self, result: Result, now: float, wall_now: float, *, answered_at: float, interval: float
    ) -> None:
        """Take the end of a probe. ``answered_at`` is when any address last answered one (monotonic seconds).

        The next is due after ``interval`` seconds, after failures sooner.
        """
        self.in_flight = False
        if self.result is None or result.has_answered is not self.result.has_answered:
            self.since = wall_now
        self.result, self.checked_at = result, wall_now
        if result.has_answered:
            self.alive, self._failures, self._tries = True, 0, 0
            self.due = now + interval
            return
        self.due = now + min(RETRY * 2.0 ** min(self._tries, _MAX_EXPONENT), interval)
        self._tries += 1
        if result.outcome is not Outcome.HOST:
            self._note_failure(result.outcome, now, answered_at)

    def _note_failure(self, outcome: Outcome, now: float, answered_at: float) -> None:
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        # Where nothing has answered since, this host may be cut off, which says nothing about the address.
        proves = outcome is Outcome.FAILED or answered_at >= self._failing_since
        if proves and (not self.alive or self._failures >= FALL):
            self.alive = False
