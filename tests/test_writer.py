from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from time import monotonic

import pytest

from dnsproxy import writer
from dnsproxy.writer import OVERHEAD, BackgroundWriter, flush_all

SECONDS = 30.0


class Slow:
    """A sink that writes when it is allowed to, and loses the batches while ``loses``."""

    def __init__(self, *, writes: bool = True, loses: bool = False, ready: bool = True) -> None:
        self.batches: list[list[bytes]] = []
        self.calls: list[str] = []
        self.threads: set[int] = set()
        self.begun = threading.Event()
        self.may_write = threading.Event()
        self.loses = loses
        self.ready = ready
        if writes:
            self.may_write.set()

    def open(self) -> None:
        self.calls.append("open")

    def write(self, batch: list[bytes]) -> int:
        self.threads.add(threading.get_ident())
        self.begun.set()
        self.may_write.wait(SECONDS)
        if self.loses:
            return len(batch)
        self.batches.append(batch)
        return 0

    def close(self) -> None:
        self.calls.append("close")

    def is_ready(self) -> bool:
        return self.ready

    @property
    def records(self) -> list[bytes]:
        return [record for batch in self.batches for record in batch]


def both(made: BackgroundWriter) -> tuple[int, int]:
    return made.written, made.lost


def closed(made: BackgroundWriter) -> None:
    ended = threading.Event()
    made.close(ended.set)
    assert ended.wait(SECONDS)


def test_records_are_written_in_order_by_another_thread() -> None:
    sink = Slow()
    made = BackgroundWriter(sink)
    for number in range(10):
        made.put(b"%d" % number)
    assert made.flush(SECONDS)
    assert b"".join(sink.records) == b"0123456789"
    assert threading.get_ident() not in sink.threads
    assert both(made) == (10, 0)


def test_without_a_record_there_is_no_thread_and_after_a_flush_none_any_more() -> None:
    before = threading.active_count()
    made = BackgroundWriter(Slow())
    assert threading.active_count() == before
    made.put(b"x")
    assert made.flush(SECONDS)
    assert threading.active_count() == before
    made.put(b"y")
    assert made.flush(SECONDS)
    assert both(made) == (2, 0)


def test_with_a_delay_few_records_wait_for_more_and_many_do_not() -> None:
    sink = Slow()
    made = BackgroundWriter(sink, delay=SECONDS * 2)
    started = monotonic()
    for _ in range(5):
        made.put(b"x" * (writer.BATCH // 5 + 1))
    assert sink.begun.wait(SECONDS)
    assert monotonic() - started < SECONDS
    assert made.flush(SECONDS)
    assert [len(batch) for batch in sink.batches] == [5]


def test_a_full_queue_loses_the_newest_and_counts_them() -> None:
    sink, counted = Slow(writes=False), [0, 0]

    def count(written: int, lost: int) -> None:
        counted[0] += written
        counted[1] += lost

    made = BackgroundWriter(sink, buffer=10 * (10 + OVERHEAD), count=count)
    for number in range(30):
        made.put(b"%010d" % number)
    assert both(made) == (0, 20)
    sink.may_write.set()
    assert made.flush(SECONDS)
    assert both(made) == (10, 20) == tuple(counted)
    assert sink.records == [b"%010d" % number for number in range(10)]
    made.put(b"x")
    assert made.flush(SECONDS)
    assert both(made) == (11, 20)


def test_a_put_returns_at_once_while_the_sink_is_stuck() -> None:
    sink = Slow(writes=False)
    made = BackgroundWriter(sink)
    made.put(b"x")
    assert sink.begun.wait(SECONDS)
    for _ in range(1000):
        made.put(b"y" * 10_000)
    assert made.lost > 0
    assert not made.flush(0.01)
    sink.may_write.set()
    assert made.flush(SECONDS)


def test_losses_are_reported_once_when_writing_succeeds_again() -> None:
    sink, reports = Slow(loses=True), list[int]()
    reported = threading.Event()

    def report(count: int) -> None:
        reports.append(count)
        reported.set()

    made = BackgroundWriter(sink, recovered=report)
    for _ in range(3):
        made.put(b"lost")
        assert made.flush(SECONDS)
    assert reports == []
    sink.loses = False
    made.put(b"kept")
    assert reported.wait(SECONDS)
    made.put(b"kept")
    assert made.flush(SECONDS)
    assert (reports, both(made)) == ([3], (2, 3))


def test_a_report_may_be_a_record_of_the_same_writer() -> None:
    sink = Slow(writes=False)
    made = BackgroundWriter(sink, buffer=500, recovered=lambda count: made.put(b"%d lost" % count))
    made.put(b"first")
    assert sink.begun.wait(SECONDS)
    for _ in range(10):
        made.put(b"x" * 300)
    sink.may_write.set()
    assert made.flush(SECONDS)
    assert sink.records[-1] == b"%d lost" % made.lost
    assert made.lost == 9


def test_a_second_report_comes_by_itself_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "REPORT_SECONDS", 0.05)
    reports: queue.Queue[int] = queue.Queue()
    made = BackgroundWriter(Slow(), buffer=100, recovered=reports.put)
    for lost in (1, 2):
        for _ in range(lost):
            made.put(bytes(200))
        made.put(b"x")
        assert reports.get(timeout=SECONDS) == lost
    assert made.flush(SECONDS)
    assert reports.empty()


def test_closing_writes_what_waits_and_takes_no_more() -> None:
    sink = Slow()
    made = BackgroundWriter(sink)
    made.put(b"x")
    closed(made)
    assert (sink.records, sink.calls) == ([b"x"], ["open", "close"])
    made.put(b"late")
    assert both(made) == (1, 1)


def test_what_is_abandoned_is_counted_once() -> None:
    sink, ended = Slow(writes=False), threading.Event()
    made = BackgroundWriter(sink)
    made.put(b"x")
    assert sink.begun.wait(SECONDS)
    made.put(b"y")
    made.close(ended.set)
    made.abandon()
    assert both(made) == (0, 2)
    sink.may_write.set()
    assert ended.wait(SECONDS)
    assert both(made) == (0, 2)


def test_an_internal_error_of_a_sink_loses_its_batch_only() -> None:
    class Broken(Slow):
        def write(self, batch: list[bytes]) -> int:
            if batch == [b"bad"]:
                raise ZeroDivisionError
            return super().write(batch)

    made = BackgroundWriter(Broken())
    for record in (b"bad", b"good"):
        made.put(record)
        assert made.flush(SECONDS)
    assert both(made) == (1, 1)


def test_a_sink_that_fails_to_open_or_close_is_written_and_ended_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(Slow):
        def open(self) -> None:
            raise OSError("Too many open files")

        def close(self) -> None:
            super().close()
            raise OSError("No space left on device")

    made = BackgroundWriter(sink := Broken())
    made.put(b"one")
    closed(made)
    assert (sink.records, both(made)) == ([b"one"], (1, 0))
    monkeypatch.setattr(BackgroundWriter, "_start", lambda _: False)
    closed(BackgroundWriter(sink))
    assert sink.calls == ["close"] * 2


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """No thread can be started until the returned function is called."""
    really = threading.Thread.start
    allowed = threading.Event()

    def start(thread: threading.Thread) -> None:
        if not allowed.is_set():
            raise RuntimeError("can't start new thread")
        really(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    return allowed.set


def test_at_the_limit_of_tasks_records_wait(
    no_threads: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "START_SECONDS", 0.0)
    sink = Slow(ready=False)
    made = BackgroundWriter(sink)
    made.put(b"x")
    assert both(made) == (0, 0)
    no_threads()
    made.put(b"y")
    assert made.flush(SECONDS)
    assert sink.records == [b"x", b"y"]


@pytest.mark.usefixtures("no_threads")
def test_at_the_limit_of_tasks_they_are_written_at_once_where_that_need_not_wait() -> None:
    sink = Slow()
    made = BackgroundWriter(sink)
    made.put(b"a")
    sink.ready = False
    made.put(b"b")
    assert sink.records == [b"a"]
    sink.ready = True
    made.put(b"c")
    assert sink.records == [b"a", b"b", b"c"]
    assert both(made) == (3, 0)


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("close", [True, False])
@pytest.mark.usefixtures("no_threads")
def test_at_the_end_they_are_written_without_a_thread_where_that_need_not_wait(
    ready: bool, close: bool
) -> None:
    sink = Slow(ready=ready)
    made = BackgroundWriter(sink)
    made.put(b"x")
    if close:
        closed(made)
        assert both(made) == ((1, 0) if ready else (0, 1))
    else:
        assert made.flush(SECONDS) == ready
        assert both(made) == ((1, 0) if ready else (0, 0))


def test_a_forked_process_has_a_queue_and_a_thread_of_its_own() -> None:
    """What waits at the fork is written once, by the parent."""
    sink = Slow(writes=False)
    reading, writing = os.pipe()

    class Both(Slow):
        def write(self, batch: list[bytes]) -> int:
            if os.getpid() == parent:
                return sink.write(batch)
            os.write(writing, b"".join(batch))
            return 0

    parent = os.getpid()
    made = BackgroundWriter(Both())
    made.put(b"parent")
    assert sink.begun.wait(SECONDS)
    made.put(b"waits")
    child = os.fork()
    if child == 0:
        made.put(b"child")
        done = made.flush(SECONDS)
        os._exit(0 if done and both(made) == (1, 0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.read(reading, 100) == b"child"
    sink.may_write.set()
    assert made.flush(SECONDS)
    assert sink.records == [b"parent", b"waits"]
    os.close(reading)
    os.close(writing)


def test_all_writers_are_flushed() -> None:
    sinks = [Slow(), Slow()]
    made = [BackgroundWriter(sink, delay=SECONDS * 2) for sink in sinks]
    for one in made:
        one.put(b"x")
    flush_all(SECONDS)
    assert [sink.records for sink in sinks] == [[b"x"], [b"x"]]
