"""The time of the event loop that connections may take, before all else has its turn.

A client may send 16 KiB of requests on each of its connections at one moment. Each request is cheap, and all
of them take seconds, in which no query over UDP would be answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Final

# Seconds that connections have in one iteration of the loop.
SECONDS: Final = 0.002


class TimeSlice:
    """Counts the time of connections in each iteration of the running loop; those without wait, in order."""

    __slots__ = ("_loop", "_until", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # When the time of this iteration is over; inf before any connection has had some of it.
        self._until = inf
        self._waiting: deque[Callable[[], None]] = deque()

    def has_time(self) -> bool:
        """Return whether a connection may continue now; otherwise it is to `wait`."""
        if self._until == inf:
            self._begin()
            return True
        return not self._waiting and monotonic() < self._until

    def wait(self, work: Callable[[], None]) -> None:
        """Call ``work`` in its turn, in a later iteration."""
        if self._until == inf:
            self._begin()
        self._waiting.append(work)

    def _begin(self) -> None:
        self._until = monotonic() + SECONDS
        self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._until = inf
        if not self._waiting:
            return
        self._begin()
        # Those that are put off again are for the next iteration.
        for _ in range(len(self._waiting)):
            self._waiting.popleft()()
            if monotonic() >= self._until:
                break
