from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from dnsproxy.workers import messages
from dnsproxy.workers.channel import Channel
from dnsproxy.workers.messages import Ask, NotOpened, Opened, Stop, TellTraffic, frame


class End:
    """One end with what it got."""

    def __init__(self, sock: socket.socket) -> None:
        self.got: list[object] = []
        self.ends = 0
        self.channel = Channel(sock, self.got.append, self._ended)

    def _ended(self) -> None:
        self.ends += 1


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def large(number: int) -> NotOpened:
    """More than the buffers of a socket pair take."""
    return NotOpened(str(number) * 2_000_000)


async def test_both_ways(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = End(pair[0]), End(pair[1])
    assert left.channel.send(Ask(1, TellTraffic()))
    assert left.channel.send(Stop())
    assert right.channel.send(Opened(7))
    await until(lambda: len(right.got) == 2 and len(left.got) == 1)
    assert right.got == [Ask(1, TellTraffic()), Stop()]
    assert left.got == [Opened(7)]
    left.channel.close()
    right.channel.close()


async def test_what_was_said_before_the_end_arrives_before_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    left, right = End(pair[0]), End(pair[1])
    right.channel.send(NotOpened("the port is taken"))
    right.channel.close()
    await until(lambda: left.ends == 1)
    assert left.got == [NotOpened("the port is taken")]
    assert not left.channel.send(Stop())
    left.channel.offer(frame(Stop()))
    await asyncio.sleep(0)
    assert left.ends == 1


async def test_closing_oneself_is_no_end(pair: tuple[socket.socket, socket.socket]) -> None:
    left = End(pair[0])
    left.channel.close()
    left.channel.close()
    assert pair[1].recv(10) == b""
    assert left.ends == 0


async def test_an_end_that_does_not_read_is_not_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    left = End(pair[0])
    offered = [large(number) for number in (1, 2, 3, 4)]
    for message in offered:
        left.channel.offer(frame(message))
    # Nothing that wants a reply is put behind what nobody reads.
    assert not left.channel.send(Ask(1, TellTraffic()))
    right = End(pair[1])
    await until(lambda: len(right.got) == 2)
    # The one that was on its way, and the newest; those between are of no use any more.
    assert right.got == [offered[0], offered[3]]
    assert left.channel.send(Ask(2, TellTraffic()))
    await until(lambda: len(right.got) == 3)
    left.channel.close()
    right.channel.close()


async def test_an_end_that_goes_while_something_is_on_its_way(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    left = End(pair[0])
    left.channel.offer(frame(large(1)))
    left.channel.offer(frame(large(2)))
    pair[1].close()
    await until(lambda: left.ends == 1)


async def test_what_is_no_message_ends_it(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE", 1000)
    left = End(pair[0])
    pair[1].send(b"\xff\xff\xff\xff")
    await until(lambda: left.ends == 1)
    assert pair[1].recv(10) == b""


async def test_nothing_is_taken_once_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    got: list[object] = []

    def take(message: object) -> None:
        got.append(message)
        channel.close()

    channel = Channel(pair[0], take, lambda: None)
    pair[1].send(frame(Stop()) + frame(Stop()))
    await until(lambda: got == [Stop()])
    await asyncio.sleep(0.01)
    assert got == [Stop()]


async def test_sockets_go_along(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = End(pair[0]), End(pair[1])
    inner, outer = socket.socketpair()
    kept = inner.dup()
    with kept, outer:
        assert left.channel.send(Ask(1, TellTraffic()), [inner])
        assert inner.fileno() == -1, "it is the other end's now"
        assert left.channel.send(Stop())
        await until(lambda: len(right.got) == 2)
        (taken,) = right.channel.take_sockets(1)
        assert right.channel.take_sockets(1) == []
        with taken:
            taken.send(b"x")
            assert outer.recv(1) == b"x"
    left.channel.close()
    right.channel.close()


async def test_sockets_that_cannot_be_sent_are_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    left = End(pair[0])
    left.channel.send(large(1))
    one, other = socket.socketpair()
    with other:
        assert not left.channel.send(Stop(), [one])
        assert one.fileno() == -1
    left.channel.close()


async def test_a_message_that_is_no_pickle_ends_the_channel(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    end = End(pair[0])
    with capture_logs() as logs:
        pair[1].sendall(b"\0\0\0\x04oops")
        await until(lambda: end.ends == 1)
    assert [entry["event"] for entry in logs] == ["worker.bad_message"]


async def test_messages_after_one_that_fails_are_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    got: list[object] = []

    def take(message: object) -> None:
        if isinstance(message, Stop):
            raise ZeroDivisionError
        got.append(message)

    channel = Channel(pair[0], take, lambda: None)
    with capture_logs() as logs:
        pair[1].sendall(frame(Stop()) + frame(Opened(7)))
        await until(lambda: bool(got))
    assert got == [Opened(7)]
    assert [(entry["event"], entry["task"], entry["detail"]) for entry in logs] == [
        ("task.failed", "worker channel", "Stop")
    ]
    channel.close()
