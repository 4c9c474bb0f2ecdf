"""A proxy's vetting with a canary, a clock of its own, and hosts that answer probes or do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from dnsproxy import config, vetting
from dnsproxy.core.book import Book
from dnsproxy.core.health import Outcome, Result
from dnsproxy.settings import Settings
from dnsproxy.vetting import Vetting
from tests.strategies import learned, snapshot

NAME = "a.example."
GOOD = Result(Outcome.ANSWERED, {443: "ok"})
REFUSED = Result(Outcome.FAILED, {443: "Connection refused"})
NO_ROUTE = Result(Outcome.NO_ROUTE, {443: "Network is unreachable"})
WALL = 1_000_000.0
INTERVAL = 30.0


class Clock:
    """Seconds, the same for every proxy; `learned` is what helpers say of NAME."""

    def __init__(self) -> None:
        self.now = 0.0
        self.dead: set[str] = set()
        self.unrouted: set[str] = set()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Have `vetting` go by it."""
        fake = SimpleNamespace(monotonic=lambda: self.now, time=self.wall)
        with mock.patch.object(vetting, "time", fake):
            yield

    def wall(self) -> float:
        return WALL + self.now


class TriedProxy:
    """A proxy without sockets, files or a loop; ``canary`` is `learn.canary` as YAML, empty for none."""

    def __init__(self, clock: Clock, folder: Path, canary: str, identity: str = "proxy-1") -> None:
        self.clock = clock
        self.folder = folder
        self.canary = canary
        self.identity = identity
        self.books: list[Book] = []
        self.book = Book()
        self.serial = 0
        self.vetting = self._made()

    def settings(self) -> Settings:
        return config.parse(
            f"""
registries: [{{name: hz, provider: generic, names: [{{name: {NAME}}}]}}]
learn:
  state_file: {self.folder}/{self.identity}.jws
  verify: {{interval: {INTERVAL:g}s}}
  canary: {self.canary or "null"}
admin: {{identity: {self.identity}}}
"""
        )

    def _made(self) -> Vetting:
        return Vetting(self.settings(), self.books.append, wall=self.clock.wall)

    def take(self, *addresses: str, refused: tuple[tuple[str, ...], ...] = ()) -> None:
        """Have a helper say that NAME has ``addresses``, and which sets are ``refused``."""
        self.serial += 1
        wall = int(self.clock.wall())
        told = snapshot(
            learned(NAME, addresses, observed_at=wall, refused=refused), serial=self.serial, at=wall
        )
        self.book = self.book.merged(told)
        self.vetting.take(self.book)

    def elapse(self, seconds: float) -> None:
        """Let time pass: what is due is done at its time."""
        end = self.clock.now + seconds
        while True:
            due = self.vetting._verifier.next_time()
            hold = self._next_hold()
            step = min((at for at in (due, hold) if at is not None), default=None)
            if step is None or step > end:
                break
            self.clock.now = max(self.clock.now, step)
            if step == hold:
                self.vetting._update()
            self.probe()
        self.clock.now = end

    def _next_hold(self) -> float | None:
        policy = self.vetting._trials.policy
        trials = self.vetting.orders.trials.values()
        ends = [t.started_at + policy.hold - WALL for t in trials if t.is_running] if policy else []
        return min((end for end in ends if end > self.clock.now), default=None)

    def probe(self) -> None:
        """Carry out the probes that are due, as `net.probe` does."""
        verifier, now = self.vetting._verifier, self.clock.now
        for probe in verifier.next_probes(now):
            result = REFUSED if probe.address in self.clock.dead else GOOD
            result = NO_ROUTE if probe.address in self.clock.unrouted else result
            before = verifier.is_alive(probe.name, probe.address)
            changed = verifier.record(probe, result, now, self.clock.wall())
            after = verifier.is_alive(probe.name, probe.address)
            self.vetting._note_probe(probe, None if after is before else after, changed)

    def restart(self) -> None:
        """End it and start it again, from what it has kept on disk."""
        earlier = self.vetting.orders
        self.vetting = self._made()
        # Through the form on disk; the file itself is another test's.
        self.vetting.orders = type(earlier).from_payload(earlier.to_payload())
        self.vetting._verifier.restore(self.vetting.orders.in_service, self.vetting.orders.held_back)
        self.vetting._update()
        self.vetting.take(self.book)

    def served(self) -> tuple[str, ...]:
        """What clients are answered with."""
        entry = self.books[-1].entries.get(NAME)
        return entry.learned.addresses if entry else ()
