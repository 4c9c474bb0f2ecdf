"""Write records off the event loop: a queue bounded in bytes, and one thread that writes batches of it.

The log, the query log, dnstap and the messages to the service manager go through such a queue, so a full
disk, a reader that has gone and a reader that has stopped cost records, never answers. `BackgroundWriter.put`
appends to a list; it never waits and never raises. The thread starts with the first record, so a process that
has written nothing has no thread. After a fork the child has an empty queue and no thread; what waited is the
parent's.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from threading import Condition, RLock, Thread
from time import monotonic
from typing import Protocol
from weakref import WeakSet

# Bytes that may wait, what is being written included: a second or two of 20,000 queries per second.
BUFFER = 4 << 20
# What a record costs in memory beyond its bytes: the header of a bytes object, and its place in a list.
OVERHEAD = 48
# With a delay, a batch is written when it has so many bytes, or that long after its first record.
BATCH = 64 * 1024
# Seconds between two reports of records that were lost, and between two attempts to start the thread.
REPORT_SECONDS = 60.0
START_SECONDS = 1.0


class Sink(Protocol):
    """Where batches go. All but making one happens in the writer's thread.

    What it raises is not seen by anybody; of `write` it counts as a loss of the whole batch.
    """

    def open(self) -> None:
        """Get ready to write."""

    def write(self, batch: list[bytes]) -> int:
        """Write whole records; return how many of ``batch`` were lost."""

    def close(self) -> None:
        """Finish."""

    def is_ready(self) -> bool:
        """Whether a write is unlikely to wait; asked where no thread can be started for it."""


class BackgroundWriter:
    """A queue of at most ``buffer`` bytes in front of ``sink``. All methods may be called in any thread.

    ``count`` is called with how many records were written and lost, under the lock. ``recovered`` is called
    in the thread with the number of records lost, once writing succeeds again, at most once in
    `REPORT_SECONDS`.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        buffer: int = BUFFER,
        delay: float = 0.0,
        count: Callable[[int, int], None] | None = None,
        recovered: Callable[[int], None] | None = None,
    ) -> None:
        self.written = 0
        self.lost = 0
        self._sink = sink
        self._buffer = buffer
        self._delay = delay
        self._count = count
        self._recovered = recovered
        # Reentrant: a finaliser that runs inside `put` may log.
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._batch: list[bytes] = []
        self._waiting = 0
        self._under_way = 0
        self._records_under_way = 0
        self._thread: Thread | None = None
        self._start_at = 0.0
        self._stopping = False
        self._closed = False
        self._failing = False
        self._unreported = 0
        self._report_at = 0.0
        self._then: Callable[[], object] = _nothing
        _writers.add(self)

    def put(self, record: bytes) -> None:
        """Take a record; count it as lost when the queue is full or closed."""
        size = len(record) + OVERHEAD
        with self._lock:
            if self._closed or self._waiting + self._under_way + size > self._buffer:
                self._add(0, 1)
                return
            self._batch.append(record)
            before = self._waiting
            self._waiting = before + size
            if not before or before < BATCH <= self._waiting:
                self._changed.notify_all()
            if self._thread is None:
                self._start()

    def flush(self, seconds: float) -> bool:
        """Wait until all is written and the thread has ended, at most ``seconds``; return whether it is so.

        The next record starts a thread again.
        """
        with self._lock:
            self._start_at = 0.0
            if self._thread is None and not (self._batch and self._start()):
                return not self._batch
            self._stopping = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._thread is None, seconds)
            self._stopping = self._closed
            return done

    def close(self, then: Callable[[], object]) -> None:
        """Take no more records, write what waits and close the sink; ``then`` is called after that.

        In the thread, or at once where there is none and none can be started.
        """
        with self._lock:
            self._closed = self._stopping = True
            self._then = then
            self._start_at = 0.0
            if self._thread is not None or self._start():
                self._changed.notify_all()
                return
            self.abandon()
        self._finish_sink()
        then()

    def abandon(self) -> None:
        """Count what is not written yet as lost."""
        with self._lock:
            self._add(0, self._records_under_way + len(self._batch))
            self._batch, self._waiting, self._records_under_way = [], 0, 0

    def _add(self, written: int, lost: int) -> None:
        self.written += written
        self.lost += lost
        self._unreported += lost
        if self._count is not None:
            self._count(written, lost)

    def _start(self) -> bool:
        """Start the thread; return whether it runs.

        Where that fails it is retried with a later record, and what waits is written here if it can be.
        """
        now = monotonic()
        if now < self._start_at or sys.is_finalizing():  # a thread would not run any more
            self._write_here()
            return False
        self._start_at = now + START_SECONDS
        # A daemon: one that is stuck in a write does not keep the process from ending.
        thread = Thread(target=self._work, name="dnsproxy-writer", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # the limit of tasks is reached, or the interpreter is ending
            self._thread = None
            self._write_here()
            return False
        self._start_at = 0.0
        return True

    def _write_here(self) -> None:
        """Write what waits in the calling thread, as far as the sink takes it without waiting."""
        while self._batch and self._sink.is_ready():
            record = self._batch.pop(0)
            self._waiting -= len(record) + OVERHEAD
            lost = self._write([record])
            self._add(1 - lost, lost)

    # -- in the thread -----------------------------------------------------------------------

    def _work(self) -> None:
        # What cannot be opened now fails, and is tried again, with the first batch.
        with contextlib.suppress(Exception):
            self._sink.open()
        while self._step():
            pass
        if self._closed:
            self._finish_sink()
            with self._lock:
                self._end()

    def _finish_sink(self) -> None:
        with contextlib.suppress(Exception):  # as of a file on a disk that is full (close(2))
            self._sink.close()

    def _step(self) -> bool:
        """Write the next batch, or report what was lost; return False when the thread is to end."""
        with self._lock:
            while not self._batch and not self._stopping and (wait := self._until_report()) != 0.0:
                self._changed.wait(wait)
            if self._batch and self._delay and not self._stopping:
                self._changed.wait_for(lambda: self._waiting >= BATCH or self._stopping, self._delay)
            batch, self._batch = self._batch, []
            self._under_way, self._waiting = self._waiting, 0
            self._records_under_way = len(batch)
            if not batch and self._stopping and (self._failing or not self._unreported):
                if not self._closed:
                    self._end()
                return False
        lost = self._write(batch) if batch else 0
        with self._lock:
            # None any more where `abandon` has counted them.
            lost = min(lost, self._records_under_way)
            self._failing = bool(lost) if batch else self._failing
            self._add(self._records_under_way - lost, lost)
            self._under_way = self._records_under_way = 0
            report = 0
            if self._unreported and not self._failing and (self._stopping or self._until_report() == 0.0):
                report, self._unreported = self._unreported, 0
                self._report_at = monotonic() + REPORT_SECONDS
        if report and self._recovered is not None:
            with contextlib.suppress(Exception):
                self._recovered(report)
        return True

    def _write(self, batch: list[bytes]) -> int:
        try:
            return self._sink.write(batch)
        except Exception:  # noqa: BLE001 - an internal error of a sink; a thread that ends would lose all that follows
            return len(batch)

    def _until_report(self) -> float | None:
        """Return the seconds until losses are to be reported; None when there is nothing to report."""
        if not self._unreported or self._failing:
            return None
        return max(0.0, self._report_at - monotonic())

    def _end(self) -> None:
        """Note the end of the thread, under the lock: a record that comes after this starts another one."""
        self._thread = None
        then, self._then = self._then, _nothing
        self._changed.notify_all()
        then()

    # -- fork --------------------------------------------------------------------------------

    def hold(self) -> None:
        """Keep the state whole while another thread forks."""
        self._lock.acquire()

    def release(self) -> None:
        """Undo `hold`."""
        self._lock.release()

    def forget(self) -> None:
        """Start over in a forked process: what waits is written by the parent, whose thread is not here."""
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._batch, self._waiting, self._under_way, self._records_under_way = [], 0, 0, 0
        self._thread, self._start_at, self._stopping = None, 0.0, False
        self.written = self.lost = self._unreported = 0


def _nothing() -> None:
    pass


_writers: WeakSet[BackgroundWriter] = WeakSet()
_held: list[BackgroundWriter] = []


def _before_fork() -> None:
    _held[:] = _writers
    for writer in _held:
        writer.hold()


def _after_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_in_child() -> None:
    while _held:
        _held.pop().forget()


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def flush_all(seconds: float) -> None:
    """Flush every writer of this process; one that is stuck takes ``seconds``."""
    for writer in list(_writers):
        writer.flush(seconds)
