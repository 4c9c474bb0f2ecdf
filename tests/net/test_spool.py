from __future__ import annotations

import threading
from typing import Any

import pytest

from dnsproxy.net import spool
from dnsproxy.net.spool import Spool
from tests.fakes.upstream import until


class Slow:
    """An outlet that writes when it is let, and loses the batches of which ``loses`` says so."""

    def __init__(self, *, let: bool = True, loses: bool = False) -> None:
        self.batches: list[list[bytes]] = []
        self.calls: list[str] = []
        self.threads: set[int] = set()
        self.may_write = threading.Event()
        self.loses = loses
        if let:
            self.may_write.set()

    def open(self) -> None:
        self.calls.append("open")

    def write(self, batch: list[bytes]) -> int:
        self.threads.add(threading.get_ident())
        self.may_write.wait(60)
        self.batches.append(batch)
        return len(batch) if self.loses else 0

    def close(self) -> None:
        self.calls.append("close")


class Counts:
    def __init__(self) -> None:
        self.written = self.lost = 0

    def __call__(self, written: int, lost: int) -> None:
        self.written += written
        self.lost += lost

    @property
    def both(self) -> tuple[int, int]:
        return self.written, self.lost


async def test_what_is_put_is_written_in_order_by_another_thread() -> None:
    outlet, counts = Slow(), Counts()
    made = Spool(outlet, counts)
    for number in range(10):
        made.put(b"%d" % number)
    await until(lambda: counts.both == (10, 0))
    assert b"".join(record for batch in outlet.batches for record in batch) == b"0123456789"
    assert threading.get_ident() not in outlet.threads
    await made.close()
    assert outlet.calls == ["open", "close"]


async def test_little_waits_for_more_and_much_does_not() -> None:
    outlet, counts = Slow(), Counts()
    made = Spool(outlet, counts)
    for _ in range(5):
        made.put(b"x" * (spool.BATCH // 5 + 1))
    await until(lambda: counts.written == 5)
    assert [len(batch) for batch in outlet.batches] == [5]
    await made.close()


async def test_a_full_buffer_loses_the_newest_and_counts_them() -> None:
    outlet, counts = Slow(let=False), Counts()
    made = Spool(outlet, counts, buffer=100)
    for _ in range(30):
        made.put(b"x" * 10)
    assert counts.both == (0, 20)
    outlet.may_write.set()
    await until(lambda: counts.both == (10, 20))
    made.put(b"x" * 10)
    await made.close()
    assert counts.both == (11, 20)


async def test_what_is_being_written_counts_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "BATCH", 50)
    outlet, counts = Slow(let=False), Counts()
    made = Spool(outlet, counts, buffer=100)
    for _ in range(30):
        made.put(b"x" * 10)
    await until(lambda: bool(outlet.threads))
    assert counts.both == (0, 20)
    outlet.may_write.set()
    await until(lambda: counts.both == (10, 20))
    await made.close()


async def test_what_an_outlet_loses_is_counted() -> None:
    counts = Counts()
    made = Spool(Slow(loses=True), counts)
    made.put(b"x")
    made.put(b"y")
    await made.close()
    assert counts.both == (0, 2)


async def test_closing_writes_what_waits() -> None:
    outlet, counts = Slow(), Counts()
    made = Spool(outlet, counts)
    made.put(b"x")
    await made.close()
    await made.close()
    assert (outlet.batches, outlet.calls, counts.both) == ([[b"x"]], ["open", "close"], (1, 0))
    made.put(b"late")
    assert counts.both == (1, 1)


async def test_an_outlet_that_is_stuck_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(spool, "BATCH", 1)
    outlet, counts = Slow(let=False), Counts()
    made = Spool(outlet, counts)
    for _ in range(3):
        made.put(b"x")
    await made.close()
    assert counts.both == (0, 3)
    outlet.may_write.set()


async def test_the_first_batch_may_find_the_outlet_not_open_yet() -> None:
    """Opening may wait for a collector; putting does not."""
    gate = threading.Event()

    class Late(Slow):
        def open(self) -> None:
            gate.wait(60)
            super().open()

    outlet, counts = Late(), Counts()
    made = Spool(outlet, counts)
    made.put(b"x")
    assert outlet.calls == []
    gate.set()
    await made.close()
    assert counts.both == (1, 0)


def test_constants_fit_one_another() -> None:
    facts: dict[str, Any] = vars(spool)
    assert facts["BATCH"] * 4 < facts["BUFFER"]
