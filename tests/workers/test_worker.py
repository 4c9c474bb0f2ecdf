"""A worker in the test's own process, with real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from dnsproxy.core import names
from dnsproxy.core.book import Book
from dnsproxy.core.explain import Explanation, Question
from dnsproxy.core.totals import Traffic
from dnsproxy.settings import Settings
from dnsproxy.workers.channel import Channel
from dnsproxy.workers.messages import (
    Ask,
    Explain,
    Flush,
    NotOpened,
    Opened,
    Reply,
    Stop,
    TakeBook,
    TellTraffic,
)
from dnsproxy.workers.start import shared_returns
from dnsproxy.workers.worker import Worker, run_worker
from tests.strategies import learned, snapshot
from tests.test_server import NAME, ask, free_port, settings


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """A worker tunes the collector of its process, which is the tests' own here."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Control:
    """The control process's end."""

    def __init__(self, given: Settings) -> None:
        ours, theirs = socket.socketpair()
        self.got: list[object] = []
        self.channel = Channel(ours, self.got.append, lambda: self.got.append("end"))
        self.running = asyncio.ensure_future(Worker(1, given, shared_returns(given)).run(theirs))

    async def next(self, count: int) -> object:
        await until(lambda: len(self.got) >= count)
        return self.got[count - 1]


@contextlib.asynccontextmanager
async def controlled(given: Settings) -> AsyncIterator[Control]:
    control = Control(given)
    try:
        yield control
    finally:
        control.channel.close()
        await asyncio.wait_for(control.running, 10)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def book(*addresses: str) -> TakeBook:
    return TakeBook(Book().merged(snapshot(learned(NAME, addresses))))


async def test_it_binds_once_it_has_a_book_and_follows_the_next() -> None:
    port = free_port()
    async with controlled(settings("127.0.0.1:9", port)) as control:
        await asyncio.sleep(0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", port))
        control.channel.send(book("10.0.0.1"))
        assert await control.next(1) == Opened(os.getpid())
        for tcp in (False, True):
            assert [str(rrset[0]) for rrset in (await ask(port, NAME, tcp=tcp)).answer] == ["10.0.0.1"]
        control.channel.send(book("10.0.0.2"))
        # The reply to what is said after a book comes after the book is in force.
        control.channel.send(Ask(1, TellTraffic()))
        await control.next(2)
        assert [str(rrset[0]) for rrset in (await ask(port, NAME)).answer] == ["10.0.0.2"]


async def test_two_share_a_port() -> None:
    port = free_port()
    async with (
        controlled(settings("127.0.0.1:9", port)) as one,
        controlled(settings("127.0.0.1:9", port)) as two,
    ):
        for control in (one, two):
            control.channel.send(book("10.0.0.1"))
            assert isinstance(await control.next(1), Opened)


async def test_what_it_is_asked() -> None:
    port = free_port()
    async with controlled(settings("127.0.0.1:9", port)) as control:
        # Before it has anything to tell, it tells nothing.
        control.channel.send(Ask(1, TellTraffic()))
        control.channel.send(book("10.0.0.1"))
        assert isinstance(await control.next(1), Opened)
        await ask(port, NAME)
        control.channel.send(Ask(2, TellTraffic()))
        told = await control.next(2)
        assert isinstance(told, Reply)
        assert isinstance(told.content, Traffic)
        assert (told.number, told.content.queries, list(told.content.upstreams)) == (2, 1, ["127.0.0.1:9"])
        control.channel.send(Ask(3, Flush(None)))
        assert await control.next(3) == Reply(3, 0)
        control.channel.send(Ask(4, Explain(Question(names.to_key(NAME), 1))))
        explained = await control.next(4)
        assert isinstance(explained, Reply)
        assert isinstance(explained.content, Explanation)
        assert explained.content.outcome == "stale"  # the snapshot of the tests is from 1970


async def test_told_to_stop() -> None:
    port = free_port()
    async with controlled(settings("127.0.0.1:9", port)) as control:
        control.channel.send(book("10.0.0.1"))
        await control.next(1)
        control.channel.send(Stop())
        assert await asyncio.wait_for(control.running, 10) == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", port))


@pytest.mark.parametrize("has_book", [False, True])
async def test_it_ends_when_nobody_is_there_to_tell(has_book: bool) -> None:
    async with controlled(settings("127.0.0.1:9")) as control:
        if has_book:
            control.channel.send(book("10.0.0.1"))
            await control.next(1)
        control.channel.close()
        assert await asyncio.wait_for(control.running, 10) == 0


async def test_why_it_cannot_answer() -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        async with controlled(settings("127.0.0.1:9", port)) as control:
            control.channel.send(book("10.0.0.1"))
            reason = f"cannot listen on udp 127.0.0.1 port {port}: Address already in use"
            assert await control.next(1) == NotOpened(reason)
            assert await asyncio.wait_for(control.running, 10) == 1


def test_its_end_of_the_pair_outlives_the_loop() -> None:
    """The control process takes the end of the pair for the end of the process, which is later."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.shutdown(socket.SHUT_WR)
        given = settings("127.0.0.1:9")
        assert run_worker(1, theirs, given, shared_returns(given)) == 0
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
