"""Sockets that are served without asyncio in between.

At 20,000 queries per second most wake-ups are for one packet. asyncio's own way from
``select`` to a reader's callback (a list of events, a look-up, a handle, a context) costs
more than answering that packet: 10 of 20 us, measured with all else equal.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Final

from dnsproxy.host_calls import note_replaced
from dnsproxy.net.syscalls import MAX_EVENTS, Waiting, load_waiting

Serve = Callable[[], None]

_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT
# Seconds. A timer that rings without need does no harm.
_FAR: Final = 1e6


class HotSockets:
    """An epoll set with what to call for each descriptor; ``others`` is one that only ends the serving.

    ``report`` is told of every exception that a call raises.
    """

    def __init__(self, others: int, report: Callable[[Exception], None]) -> None:
        self._others = others
        self._report = report
        self._calls: dict[object, Serve] = {}
        self._after: list[Serve] = []
        self._released = False
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._fd: Any = self._epoll.fileno()  # only handed on: no number for the compiler
        self._epoll.register(others, _READ)
        # Only handed on, and None in a build that is not compiled: epoll then counts the time of each wait.
        self._ready: Any = None
        waiting = load_waiting()
        if waiting is not None:
            self._open_alarm(waiting)

    def _open_alarm(self, waiting: Waiting) -> None:
        """Count the time of waits by a descriptor; by epoll where this host refuses timers."""
        try:
            alarm = waiting.open_timer()
        except OSError as exc:
            note_replaced("timerfd_create", exc.errno or 0, "epoll_wait")
            return
        try:
            waiting.set_timer(alarm, monotonic() + _FAR)
        except OSError as exc:
            os.close(alarm)
            note_replaced("timerfd_settime", exc.errno or 0, "epoll_wait")
            return
        self._ready, self._set_timer = waiting.ready, waiting.set_timer
        self._alarm = alarm
        self._alarm_at = inf  # when it will ring; never, for what it is asked for
        self._epoll.register(alarm, _READ | select.EPOLLET)

    def add(self, fd: int, serve: Serve) -> None:
        """Call ``serve`` whenever ``fd`` is readable or has an error."""
        self._epoll.register(fd, _READ)
        self._calls[fd] = serve

    def watch(self, fd: int, *, read: bool, write: bool) -> None:
        """Call it when ``fd`` is readable, or writable, as said; always when it has an error."""
        self._epoll.modify(fd, (_READ if read else 0) | (_WRITE if write else 0))

    def remove(self, fd: int) -> None:
        """Stop serving ``fd``, which must still be open."""
        del self._calls[fd]
        self._epoll.unregister(fd)

    def after(self, work: Serve) -> None:
        """Call ``work`` once, when every socket that is ready now has been served."""
        self._after.append(work)

    def release(self) -> None:
        """Have `serve` return after the running round."""
        self._released = True

    def serve(self, timeout: float | None) -> bool:
        """Serve until ``others`` is ready (True), ``timeout`` seconds have passed, or `release`."""
        wait = -1.0 if timeout is None else max(timeout, 0.0)
        deadline = monotonic() + wait if wait > 0.0 else 0.0
        if self._after:
            wait = 0.0
        self._released = False
        others_ready = False
        while True:
            for fd in self._wait(wait, deadline):
                call = self._calls.get(fd)
                if call is not None:
                    self._run(call)
                elif fd == self._others:
                    others_ready = True
                else:
                    self._alarm_at = inf  # it has rung
            while self._after:
                self._run(self._after.pop())
            if others_ready or self._released or wait == 0.0:
                return others_ready
            # Where there is an alarm the clock need not be read after every wait.
            if deadline and (self._ready is None or self._alarm_at > deadline):
                wait = deadline - monotonic()
                if wait <= 0.0:
                    return False

    def _wait(self, seconds: float, deadline: float) -> list[object]:
        """Return what is ready within ``seconds`` (-1: however long), which end at ``deadline``."""
        if self._ready is None:
            return [pair[0] for pair in self._epoll.poll(seconds, MAX_EVENTS)]
        # One that rings too early does no harm: it is set anew when it has rung.
        if seconds > 0.0 and self._alarm_at > deadline:
            self._set_timer(self._alarm, deadline)
            self._alarm_at = deadline
        ready: list[object] = self._ready(self._fd, seconds != 0.0)
        return ready

    def _run(self, call: Serve) -> None:
        try:
            call()
        except Exception as exc:  # noqa: BLE001 - as asyncio does with its callbacks: told, and the loop goes on
            self._report(exc)

    def close(self) -> None:
        """Close the set."""
        if self._ready is not None:
            os.close(self._alarm)
            self._ready = None  # the numbers may be other descriptors' from now on
        self._epoll.close()
