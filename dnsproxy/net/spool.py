"""Writes records behind the back of the event loop: a bounded buffer, a thread that writes batches of it.

The query path only appends to a list. The thread holds the interpreter for no longer than it
takes to join a batch; the waiting is done in system calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

# Octets that may wait, what is being written included: a second or two of 20,000 queries per second.
BUFFER = 4 << 20
# A batch is written when there are so many octets, or so many seconds after its first record.
BATCH = 64 * 1024
DELAY_SECONDS = 0.2
# Seconds that the last batch may take at the end: a reader that has stopped must not hold up the program.
CLOSE_SECONDS = 2.0


class Outlet(Protocol):
    """Where batches go. All but making one happens in the thread; nothing is raised."""

    def open(self) -> None:
        """Get ready to write."""

    def write(self, batch: list[bytes]) -> int:
        """Write whole records; return how many of ``batch`` were lost."""

    def close(self) -> None:
        """Finish."""


class Spool:
    """A buffer in front of ``outlet``. ``count`` is told, on the loop, how many were written and lost."""

    def __init__(self, outlet: Outlet, count: Callable[[int, int], None], *, buffer: int = BUFFER) -> None:
        self._outlet = outlet
        self._count = count
        self._buffer = buffer
        self._batch: list[bytes] = []
        self._waiting = 0
        self._under_way = 0
        self._records_under_way = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._batches: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._ended = asyncio.Event()
        self._closed = False
        # A daemon: when it is stuck in a write that never ends, the program ends all the same.
        self._thread = Thread(target=self._work, name="dnsproxy-spool", daemon=True)
        self._thread.start()

    def put(self, record: bytes) -> None:
        """Take a record, or count it as lost when the buffer is full."""
        size = len(record)
        if self._closed or self._waiting + self._under_way + size > self._buffer:
            self._count(0, 1)
            return
        self._batch.append(record)
        self._waiting += size
        if self._waiting >= BATCH:
            self._hand_over()
        elif self._timer is None:
            self._timer = self._loop.call_later(DELAY_SECONDS, self._hand_over)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._records_under_way:
            return  # `_written` comes back to what waits
        if self._batch:
            batch, self._batch = self._batch, []
            self._under_way, self._waiting = self._waiting, 0
            self._records_under_way = len(batch)
            self._batches.put(batch)
        elif self._closed:
            self._batches.put(None)

    def _written(self, lost: int) -> None:
        records, self._records_under_way = self._records_under_way, 0
        self._under_way = 0
        self._count(records - lost, lost)
        if self._closed or self._waiting >= BATCH:
            self._hand_over()

    async def close(self) -> None:
        """Write what waits, for `CLOSE_SECONDS` at the most; the rest is counted as lost."""
        if self._closed:
            return
        self._closed = True
        self._hand_over()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            self._count(0, self._records_under_way + len(self._batch))
            self._batch.clear()

    # -- in the thread -----------------------------------------------------------------------

    def _work(self) -> None:
        self._outlet.open()
        while (batch := self._batches.get()) is not None:
            self._tell(self._written, self._outlet.write(batch))
        self._outlet.close()
        self._tell(self._ended.set)

    def _tell(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *arguments)
