"""A discrete-event model of how a change spreads from a helper to more proxies than can be run here.

Time 0 of a change is when the helper publishes it. Assumptions:

- Servers are queues: a helper answers one request at a time, each takes ``serve`` seconds.
  An etcd member sends one event at a time, ``serve_watch`` seconds each; watchers are spread over them.
- The way takes ``delay`` seconds each direction at the median, with a log-normal spread of ``delay_sigma``.
- A proxy needs ``take`` seconds to verify, judge, write down and answer. On its own host nothing else waits
  for that; with ``shared_cores`` (as where hundreds run on one machine to be measured) all proxies and the
  helper share that many.
- Proxies do as `net.puller` does: a blocking query for ``refresh`` seconds, then again after 0.2 s; a plain
  pull once in ``refresh``; after a failure the back-off of `core.retry`, within four refreshes, and then one
  plain pull. They were started at times spread over one ``refresh``.
- A request or an answer is lost with probability ``loss``; its proxy notices after ``notice`` seconds. With
  ``outage`` the server is gone for that many seconds before the change is published: it refuses connections.
- Nothing else happens: no proxy is overloaded, no route is down for some of them only, clocks are right.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import count

from dnsproxy.core.retry import next_delay
from dnsproxy.net.puller import MIN_PAUSE, QUICK_RETRIES, QUICK_RETRY, RECENT_LIMIT


class Transport(Enum):
    """How proxies hear of a change."""

    PULL = "plain pull"
    BLOCKING = "blocking query"
    WATCH = "watch"


@dataclass(frozen=True, slots=True)
class Params:
    """What the model assumes; times in seconds."""

    proxies: int
    transport: Transport
    refresh: float = 15.0
    serve: float = 0.0002
    serve_watch: float = 0.00005
    members: int = 3
    take: float = 0.005
    shared_cores: int = 0
    delay: float = 0.015
    delay_sigma: float = 0.5
    max_waiters: int = 10_000
    refuses: bool = False
    loss: float = 0.0
    notice: float = 5.0
    outage: float = 0.0
    changes: int = 5
    seed: int = 1


@dataclass(slots=True)
class Outcome:
    """Seconds from each change to each proxy's answer, and what it cost the server.

    ``busiest`` is the most requests in one second, ``rate`` their mean per second.
    """

    delays: list[float] = field(default_factory=list)
    requests: int = 0
    refused: int = 0
    rate: float = 0.0
    busiest: int = 0


@dataclass(slots=True)
class _Proxy:
    serial: int = 0
    failures: int = 0
    started: float = 0.0
    may_wait: bool = False


class Model:
    """One run with ``params``; `run` returns what happened."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._random = random.Random(params.seed)  # noqa: S311 - a model that can be repeated
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._now = 0.0
        self._serial = 0
        self._published: dict[int, float] = {}
        self._proxies = [_Proxy() for _ in range(params.proxies)]
        # Each waits under a number of its own, so that the end of an earlier wait ends no later one.
        self._waiting: dict[int, int] = {}
        self._waits = count()
        servers = params.members if params.transport is Transport.WATCH else 1
        self._free = [0.0] * servers
        self._cores = [0.0] * params.shared_cores
        self._down_until = -1.0
        self._seconds: dict[int, int] = {}
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Publish ``changes``, far enough apart for all to hear, and return when each proxy answered."""
        params = self._params
        for number in range(params.proxies):
            self._at(self._random.uniform(0, params.refresh), self._start, number)
        gap = 4 * params.outage + 6 * params.refresh
        when = 4 * params.refresh
        for _ in range(params.changes):
            # Any place in the proxies' rounds.
            moment = when + self._random.uniform(0, params.refresh)
            if params.outage:
                self._at(moment - params.outage, self._go_down)
            self._at(moment, self._publish)
            when += gap
        while self._events and self._events[0][0] <= when:
            self._now, _, act = heapq.heappop(self._events)
            act()
        self.outcome.rate = self.outcome.requests / when
        self.outcome.busiest = max(self._seconds.values(), default=0)
        return self.outcome

    def _at(self, when: float, act: Callable[..., None], *arguments: int) -> None:
        heapq.heappush(self._events, (when, next(self._order), lambda: act(*arguments)))

    def _delay(self) -> float:
        return self._params.delay * math.exp(self._random.gauss(0, self._params.delay_sigma))

    # -- the proxies ---------------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        proxy, params = self._proxies[number], self._params
        proxy.started = self._now
        if self._random.random() < params.loss:
            self._at(self._now + params.notice, self._fail, number)
        elif self._now < self._down_until:
            self._at(self._now + 2 * self._delay(), self._fail, number)
        else:
            self._at(self._now + self._delay(), self._arrive, number)

    def _fail(self, number: int) -> None:
        proxy, params = self._proxies[number], self._params
        proxy.failures += 1
        proxy.may_wait = False
        pause = next_delay(
            max(1, proxy.failures - QUICK_RETRIES + 1),
            min(params.refresh, QUICK_RETRY),
            RECENT_LIMIT * params.refresh,
            self._random.random(),
        )
        self._at(self._now + pause, self._start, number)

    def _receive(self, number: int, serial: int) -> None:
        """Work on an answer, on a core that may be shared."""
        done = self._worked(self._params.take)
        self._at(done, self._answer, number, serial)

    def _worked(self, seconds: float) -> float:
        if not self._cores:
            return self._now + seconds
        core = min(range(len(self._cores)), key=self._cores.__getitem__)
        self._cores[core] = max(self._now, self._cores[core]) + seconds
        return self._cores[core]

    def _answer(self, number: int, serial: int) -> None:
        proxy, params = self._proxies[number], self._params
        proxy.failures = 0
        changed = serial != proxy.serial
        if changed:
            # One that comes late answers with what is newest: it has skipped those between.
            for missed in range(proxy.serial + 1, serial + 1):
                self.outcome.delays.append(self._now - self._published[missed])
            proxy.serial = serial
        if params.transport is Transport.WATCH:
            return
        proxy.may_wait = params.transport is Transport.BLOCKING
        pause = MIN_PAUSE if changed else max(proxy.started + params.refresh - self._now, MIN_PAUSE)
        self._at(self._now + pause, self._start, number)

    # -- the server ----------------------------------------------------------------------------------

    def _arrive(self, number: int) -> None:
        """Take a request: answer it, let it wait, or refuse it."""
        proxy, params = self._proxies[number], self._params
        self.outcome.requests += 1
        self._seconds[int(self._now)] = self._seconds.get(int(self._now), 0) + 1
        if self._now < self._down_until:
            self._at(self._now + self._delay(), self._fail, number)
        elif params.transport is Transport.WATCH:
            # The watch begins with what is there, and stays open.
            self._waiting[number] = next(self._waits)
            if proxy.serial != self._serial:
                self._send(number)
        elif not proxy.may_wait or proxy.serial != self._serial:
            self._send(number)
        elif len(self._waiting) < params.max_waiters:
            wait = self._waiting[number] = next(self._waits)
            self._at(self._now + params.refresh, self._end_wait, number, wait)
        elif params.refuses:
            self.outcome.refused += 1
            self._at(self._served(number) + self._delay(), self._fail, number)
        else:
            self._send(number)

    def _end_wait(self, number: int, wait: int) -> None:
        if self._waiting.get(number) == wait:
            del self._waiting[number]
            self._send(number)

    def _served(self, number: int) -> float:
        """Return when the server has made an answer; it makes one after the other."""
        params = self._params
        is_watch = params.transport is Transport.WATCH
        seconds = params.serve_watch if is_watch else params.serve
        server = number % len(self._free)
        start = max(self._now, self._free[server])
        if self._cores:
            # The server's process is one of those that share the cores.
            start = max(start, self._worked(seconds) - seconds)
        self._free[server] = start + seconds
        return self._free[server]

    def _send(self, number: int) -> None:
        done = self._served(number)
        if self._random.random() < self._params.loss:
            self._waiting.pop(number, None)
            self._at(done + self._params.notice, self._fail, number)
        else:
            self._at(done + self._delay(), self._receive, number, self._serial)

    def _publish(self) -> None:
        self._serial += 1
        self._published[self._serial] = self._now
        waiting = list(self._waiting)
        if self._params.transport is not Transport.WATCH:
            self._waiting.clear()
        for number in waiting:
            self._send(number)

    def _go_down(self) -> None:
        self._down_until = self._now + self._params.outage
        waiting, self._waiting = list(self._waiting), {}
        for number in waiting:
            self._at(self._now + self._delay(), self._fail, number)
