"""What probes show about one address: whether it is alive, and when to probe again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

# Failures in a row after which an alive address is dead: one may be a lost packet or a restart.
FALL = 2
# Seconds from the first failure to the next probe; doubled with each further one, up to the interval.
RETRY = 1.0
# 1 s * 2**20 is above every interval; a larger exponent could only overflow.
_MAX_EXPONENT = 20
# Represents any one name below a wildcard: a certificate that is valid for all of them is valid for this one.
_BELOW_WILDCARD = "dnsproxy-probe"


class Outcome(StrEnum):
    """How a probe ended.

    ``FAILED``: the address refused, did not answer, or showed a wrong certificate. ``NO_ROUTE``: this host
    has no route, which proves something only when another address answers. ``HOST``: this host lacks
    something that a connection needs, which proves nothing about the address.
    """

    ANSWERED = "answered"
    FAILED = "failed"
    NO_ROUTE = "no_route"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Probe:
    """Connect to each of ``ports``; with ``server_name`` by TLS (not on port 80), otherwise by TCP."""

    name: str
    address: str
    ports: tuple[int, ...]
    server_name: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a probe; ``ports`` has ``ok`` or the failure of each port."""

    outcome: Outcome
    ports: Mapping[int, str]

    @property
    def has_answered(self) -> bool:
        """Whether every port answered."""
        return self.outcome is Outcome.ANSWERED

    @property
    def problem(self) -> str:
        """What is wrong, for people; empty when nothing is."""
        wrong = [f"port {port}: {text}" for port, text in sorted(self.ports.items()) if text != "ok"]
        return "; ".join(wrong)


# Of an address that is not probed: it counts as one that answers.
UNPROBED = Result(Outcome.ANSWERED, {})


@dataclass(slots=True)
class Health:
    """One address of one name. ``alive`` is None while no probe has shown anything.

    ``due`` is when the next probe starts, in monotonic seconds. ``checked_at`` and ``since`` are Unix
    seconds: the last probe, and the first of the unbroken row of equal results that it ends.
    """

    alive: bool | None
    due: float
    result: Result | None = None
    probe: Probe | None = None  # set while the probe runs
    checked_at: float | None = None
    since: float | None = None
    failures: int = 0  # in a row, without those that prove nothing about the address
    queued: float | None = None  # the due time that stands in the queue of probes
    _retries: int = 0
    _has_answered: bool = False  # a probe of this process
    _failing_since: float = 0.0

    @property
    def is_steady(self) -> bool:
        """Whether it is alive and answered the last probe."""
        return self.alive is True and not self.failures and (self._has_answered or self.result is UNPROBED)

    def record(
        self, result: Result, now: float, wall_now: float, *, answered_at: float, interval: float
    ) -> None:
        """Take the result of a probe. ``answered_at``: when any address last answered, in monotonic seconds.

        The next probe is due after ``interval`` seconds, after a failure sooner.
        """
        self.probe = None
        if self.result is None or result.has_answered is not self.result.has_answered:
            self.since = wall_now
        self.result, self.checked_at = result, wall_now
        if result.has_answered:
            self.alive, self._has_answered = True, True
            self.failures = self._retries = 0
            self.due = now + interval
            return
        self.due = now + min(RETRY * 2.0 ** min(self._retries, _MAX_EXPONENT), interval)
        self._retries += 1
        if result.outcome is not Outcome.HOST:
            self._record_failure(result.outcome, now, answered_at)

    def _record_failure(self, outcome: Outcome, now: float, answered_at: float) -> None:
        if not self.failures:
            self._failing_since = now
        self.failures += 1
        # While no address answers, this host may be disconnected, which proves nothing about the address.
        proves = outcome is Outcome.FAILED or answered_at >= self._failing_since
        if proves and (not self.alive or self.failures >= FALL):
            self.alive = False

    def restart(self, now: float, *, is_probed: bool) -> None:
        """Forget how it was probed, and probe at once; it stays alive or dead, and is alive if not probed."""
        self.result = None if is_probed else UNPROBED
        self.probe, self.due, self.queued = None, now, None
        self.failures = self._retries = 0
        self._has_answered = False
        self.alive = self.alive if is_probed else True


def server_name(name: str) -> str:
    """Return the name that a certificate must be valid for, without the last dot."""
    plain = name.removesuffix(".")
    return f"{_BELOW_WILDCARD}{plain[1:]}" if plain.startswith("*.") else plain
