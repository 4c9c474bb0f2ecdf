"""A worker in the test's own process, with real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from dnsproxy.core import names
from dnsproxy.core.explain import Explanation, Question
from dnsproxy.core.totals import Traffic
from dnsproxy.net.doors import Door, Doorkeeper, dns_doors
from dnsproxy.settings import Settings
from dnsproxy.settings.plain import pack
from dnsproxy.workers.channel import Channel
from dnsproxy.workers.messages import (
    Ask,
    Begin,
    Explain,
    Flush,
    NotOpened,
    Opened,
    Refit,
    Reply,
    ServedEntry,
    Stop,
    TakeNames,
    TellTraffic,
    ToControl,
)
from dnsproxy.workers.start import shared_returns
from dnsproxy.workers.worker import Worker, run_worker
from tests.test_server import NAME, ask, free_port, settings

pytestmark = pytest.mark.usefixtures("collector")


class Control:
    """The control process's end."""

    def __init__(self, given: Settings, keeper: Doorkeeper | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.got: list[object] = []
        self.keeper = keeper or Doorkeeper()
        self.keeper.open(dns_doors(given))
        self.channel = Channel(ours, ToControl, self.got.append, lambda: self.got.append("end"))
        self.running = asyncio.ensure_future(Worker(1, shared_returns()).run(theirs))
        sockets = self.sockets(given)
        self.channel.send(Begin(pack(given), tuple(sockets)), sockets.values())

    def sockets(self, given: Settings) -> dict[Door, socket.socket]:
        return self.keeper.share(dns_doors(given))

    async def next(self, count: int) -> object:
        await until(lambda: len(self.got) >= count)
        return self.got[count - 1]


@contextlib.asynccontextmanager
async def controlled(given: Settings, keeper: Doorkeeper | None = None) -> AsyncIterator[Control]:
    control = Control(given, keeper)
    try:
        yield control
    finally:
        control.channel.close()
        await asyncio.wait_for(control.running, 10)
        control.keeper.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def table(*addresses: str) -> TakeNames:
    return TakeNames((ServedEntry(NAME, True, (), addresses, None, 1000, 2000),), is_complete=True)


async def test_it_serves_once_it_has_a_book_and_follows_the_next() -> None:
    port = free_port()
    async with controlled(settings("127.0.0.1:9", port)) as control:
        # It waits in the queue of a socket that nobody reads yet.
        waiting = asyncio.ensure_future(ask(port, NAME))
        control.channel.send(table("10.0.0.1"))
        assert await control.next(1) == Opened(os.getpid())
        assert [str(rrset[0]) for rrset in (await waiting).answer] == ["10.0.0.1"]
        for tcp in (False, True):
            assert [str(rrset[0]) for rrset in (await ask(port, NAME, tcp=tcp)).answer] == ["10.0.0.1"]
        control.channel.send(table("10.0.0.2"))
        # The reply to what is said after a table comes after the table is in force.
        control.channel.send(Ask(1, TellTraffic()))
        await control.next(2)
        assert [str(rrset[0]) for rrset in (await ask(port, NAME)).answer] == ["10.0.0.2"]


async def test_one_goes_and_its_successor_reads_on() -> None:
    port = free_port()
    given = settings("127.0.0.1:9", port)
    keeper = Doorkeeper()
    async with controlled(given, keeper) as one:
        one.channel.send(table("10.0.0.1"))
        assert isinstance(await one.next(1), Opened)
        two = Control(given, keeper)
        one.channel.send(Stop(gently=True))
        assert await asyncio.wait_for(one.running, 10) == 0
        # Nobody reads.
        waiting = asyncio.ensure_future(ask(port, NAME))
        await asyncio.sleep(0)
        two.channel.send(table("10.0.0.2"))
        assert [str(rrset[0]) for rrset in (await waiting).answer] == ["10.0.0.2"]
        two.channel.close()
        await asyncio.wait_for(two.running, 10)


async def test_another_configuration_and_other_sockets() -> None:
    before, after = free_port(), free_port()
    async with controlled(settings("127.0.0.1:9", before)) as control:
        control.channel.send(table("10.0.0.1"))
        assert isinstance(await control.next(1), Opened)
        given = settings("127.0.0.1:9", after, "learn: {ttl: 7}")
        control.keeper.open(dns_doors(given))
        sockets = control.sockets(given)
        control.channel.send(Ask(1, Refit(pack(given), tuple(sockets))), sockets.values())
        assert await control.next(2) == Reply(1, "")
        control.keeper.keep(dns_doors(given))
        assert [rrset.ttl for rrset in (await ask(after, NAME)).answer] == [7]
        with socket.socket() as free:
            free.bind(("127.0.0.1", before))


async def test_a_configuration_that_it_cannot_take_changes_nothing() -> None:
    port = free_port()
    async with controlled(settings("127.0.0.1:9", port)) as control:
        control.channel.send(table("10.0.0.1"))
        assert isinstance(await control.next(1), Opened)
        sockets = control.sockets(given := settings(f"127.0.0.1:{port}", port))
        control.channel.send(Ask(1, Refit(pack(given), tuple(sockets))), sockets.values())
        reason = f"upstream 127.0.0.1:{port} is this proxy's own listening address"
        assert await control.next(2) == Reply(1, reason)
        assert (await ask(port, NAME)).answer


async def test_sockets_for_which_it_has_no_descriptor() -> None:
    """The kernel drops them on their way (MSG_CTRUNC)."""
    port, other = free_port(), free_port()
    reason = "sockets: Too many open files"
    async with controlled(settings("127.0.0.1:9", port)) as control:
        control.channel.send(table("10.0.0.1"))
        assert isinstance(await control.next(1), Opened)
        given = settings("127.0.0.1:9", port, "learn: {ttl: 7}")
        # Those that it serves already are not needed.
        control.channel.send(Ask(1, Refit(pack(given), tuple(dns_doors(given)))))
        assert await control.next(2) == Reply(1, "")
        assert [rrset.ttl for rrset in (await ask(port, NAME)).answer] == [7]
        moved = settings("127.0.0.1:9", other)
        control.keeper.open(dns_doors(moved))
        sockets = control.sockets(moved)
        first, *others = sockets.values()
        for left in others:
            left.close()
        control.channel.send(Ask(2, Refit(pack(moved), tuple(sockets))), [first])
        assert await control.next(3) == Reply(2, reason)
        assert [rrset.ttl for rrset in (await ask(port, NAME)).answer] == [7]
        control.keeper.keep(dns_doors(given))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", other))


async def test_a_start_without_its_sockets_is_refused() -> None:
    ours, theirs = socket.socketpair()
    given = settings("127.0.0.1:9", free_port())
    got: list[object] = []
    channel = Channel(ours, ToControl, got.append, lambda: None)
    running = asyncio.ensure_future(Worker(1, shared_returns()).run(theirs))
    channel.send(Begin(pack(given), tuple(dns_doors(given))))
    channel.send(table("10.0.0.1"))
    assert await asyncio.wait_for(running, 10) == 1
    await until(lambda: got == [NotOpened("sockets: Too many open files")])
    channel.close()


async def test_what_it_is_asked() -> None:
    port = free_port()
    async with controlled(settings("127.0.0.1:9", port)) as control:
        # Before it has anything to tell, it tells nothing.
        control.channel.send(Ask(1, TellTraffic()))
        control.channel.send(table("10.0.0.1"))
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


async def test_it_waits_for_the_whole_table_and_takes_changes_of_names() -> None:
    port = free_port()
    async with controlled(settings("127.0.0.1:9", port)) as control:
        control.channel.send(TakeNames(table("10.0.0.1").entries, is_complete=False))
        control.channel.send(Ask(1, TellTraffic()))
        other = ServedEntry("b.example.", True, (), ("10.0.0.7",), None, 1000, 2000)
        control.channel.send(TakeNames((other,), is_complete=True))
        assert await control.next(1) == Opened(os.getpid())
        control.channel.send(TakeNames((ServedEntry("b.example.", False),), is_complete=True))
        control.channel.send(TakeNames((ServedEntry("c.example.", True, ("10.0.0.8",)),), is_complete=False))
        control.channel.send(Ask(2, Flush(None)))
        assert await control.next(2) == Reply(2, 0)
        for name, expected in ((NAME, ["10.0.0.1"]), ("b.example.", []), ("c.example.", ["10.0.0.8"])):
            assert [str(rrset[0]) for rrset in (await ask(port, name)).answer] == expected


async def test_settings_that_are_none_are_refused() -> None:
    port = free_port()
    async with controlled(settings("127.0.0.1:9", port)) as control:
        control.channel.send(table("10.0.0.1"))
        assert isinstance(await control.next(1), Opened)
        for number, wrong in enumerate((b"", b"[]", b"\x80\x04N.", b'{"serve": 1}', b"[" * 100_000), 1):
            control.channel.send(Ask(number, Refit(wrong, ())))
            reply = await control.next(number + 1)
            assert isinstance(reply, Reply)
            assert str(reply.content).startswith("settings: ")
        assert (await ask(port, NAME)).answer


async def test_told_to_stop() -> None:
    port = free_port()
    async with controlled(settings("127.0.0.1:9", port)) as control:
        control.channel.send(table("10.0.0.1"))
        await control.next(1)
        control.channel.send(Stop())
        assert await asyncio.wait_for(control.running, 10) == 0
        control.keeper.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", port))


@pytest.mark.parametrize("has_book", [False, True])
async def test_it_ends_when_nobody_is_there_to_tell(has_book: bool) -> None:
    async with controlled(settings("127.0.0.1:9")) as control:
        if has_book:
            control.channel.send(table("10.0.0.1"))
            await control.next(1)
        control.channel.close()
        assert await asyncio.wait_for(control.running, 10) == 0


async def test_why_it_cannot_answer() -> None:
    port = free_port()
    async with controlled(settings(f"127.0.0.1:{port}", port)) as control:
        control.channel.send(table("10.0.0.1"))
        reason = f"upstream 127.0.0.1:{port} is this proxy's own listening address"
        assert await control.next(1) == NotOpened(reason)
        assert await asyncio.wait_for(control.running, 10) == 1


def test_its_end_of_the_pair_outlives_the_loop() -> None:
    """The control process takes the end of the pair for the end of the process, which is later."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.shutdown(socket.SHUT_WR)
        assert run_worker(1, theirs, shared_returns()) == 0
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
