from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.stats import Stats
from dnsproxy.core.totals import Traffic
from dnsproxy.workers.channel import Channel
from dnsproxy.workers.messages import (
    Ask,
    Begin,
    Content,
    Flush,
    NotOpened,
    Opened,
    Reply,
    Stop,
    TakeNames,
    TellTraffic,
    ToWorker,
)
from dnsproxy.workers.seat import Seat
from dnsproxy.workers.table_feed import SharedTable, TableFeed

FIRST = TakeNames((), is_complete=True)
BEGIN = Begin(b"{}", ())
TRAFFIC = Traffic(Stats(), {}, 0, 0)


class Table:
    """A seat with what it called, and the worker's end of the socket pair."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.heard: list[Content] = []
        self.got: list[object] = []
        self.seat = Seat(
            3, lambda _: self.calls.append("open"), lambda _: self.calls.append("gone"), self._hear
        )
        self.begin()

    def _hear(self, _: Seat, content: Content) -> None:
        self.heard.append(content)

    def begin(self) -> None:
        ours, theirs = socket.socketpair()
        self.got.clear()
        self.worker = Channel(theirs, ToWorker, self.got.append, lambda: None)
        self.seat.begin(7, ours, BEGIN, (), TableFeed(SharedTable(ServedTable())))

    async def opened(self) -> None:
        self.worker.send(Opened(4711))
        await until(lambda: self.seat.is_open)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_it_has_the_book_first_and_can_be_asked_once_open() -> None:
    table = Table()
    assert (table.seat.is_there, table.seat.is_open, table.seat.is_well) == (True, False, False)
    assert table.seat.ask(Flush(None)) is None
    await table.opened()
    assert table.calls == ["open"]
    view = table.seat.view(12)
    assert (view.number, view.pid, view.queries, view.restarts, view.answers) == (3, 4711, 12, 0, True)
    asked = table.seat.ask(Flush(None))
    assert asked is not None
    await until(lambda: len(table.got) == 3)
    assert table.got == [BEGIN, FIRST, Ask(1, Flush(None))]
    table.worker.send(Reply(1, 5))
    assert await asked == 5
    assert table.heard == [5]
    table.seat.end()
    table.worker.close()


async def test_replies_find_their_questions_and_others_nothing() -> None:
    table = Table()
    await table.opened()
    one, two = table.seat.ask(Flush(None)), table.seat.ask(Flush(None))
    assert one is not None
    assert two is not None
    one.cancel()
    await asyncio.sleep(0)
    for number, content in ((1, 10), (9, 90), (2, 20)):
        table.worker.send(Reply(number, content))
    assert await two == 20
    # A late reply is still heard: what a worker has counted is true whenever it comes.
    assert table.heard == [10, 90, 20]
    table.seat.end()
    table.worker.close()


async def test_its_end_is_told_once_and_leaves_no_question_open() -> None:
    table = Table()
    await table.opened()
    asked = table.seat.ask(Flush(None))
    assert asked is not None
    table.worker.close()
    await until(lambda: table.calls == ["open", "gone"])
    assert table.seat.end() >= 0.0
    assert asked.cancelled()
    assert (table.seat.is_there, table.seat.is_well, table.seat.ask(Flush(None))) == (False, False, None)
    assert table.seat.view(0).pid is None
    table.seat.offer(["a.example."])
    table.seat.stop()


async def test_the_next_process_starts_with_nothing_of_the_last() -> None:
    table = Table()
    table.worker.send(NotOpened("the port is taken"))
    await until(lambda: table.seat.reason is not None)
    assert table.seat.reason == "the port is taken"
    table.worker.close()
    table.seat.end()
    table.begin()
    forgotten: str | None = table.seat.reason
    assert forgotten is None
    await table.opened()
    asked = table.seat.ask(Flush(None))
    assert asked is not None
    await until(lambda: table.got[2:] == [Ask(1, Flush(None))])
    table.seat.stop()
    await until(lambda: table.got[3:] == [Stop()])
    table.seat.end()
    table.worker.close()


async def test_each_beat_asks_once_and_waits_for_the_reply() -> None:
    table = Table()
    assert not table.seat.beat()
    await table.opened()
    for _ in range(3):
        assert not table.seat.beat()
    await until(lambda: table.got[2:] == [Ask(1, TellTraffic())])
    table.worker.send(Reply(1, TRAFFIC))
    await until(lambda: table.heard == [TRAFFIC])
    assert not table.seat.beat()
    await until(lambda: table.got[3:] == [Ask(2, TellTraffic())])
    table.seat.end()
    table.worker.close()
