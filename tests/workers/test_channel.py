from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dnsproxy.workers import channel as channel_module
from dnsproxy.workers import messages
from dnsproxy.workers.channel import Channel
from dnsproxy.workers.messages import (
    Ask,
    Flush,
    NotOpened,
    Opened,
    Stop,
    TellTraffic,
    ToControl,
    ToWorker,
    frame,
)


class End:
    """One end with what it got, by default of messages to either."""

    def __init__(
        self,
        sock: socket.socket,
        kind: Any = ToWorker | ToControl,
        feed: Callable[[], bytes | None] | None = None,
    ) -> None:
        self.got: list[object] = []
        self.ends = 0
        self.channel = Channel(sock, kind, self.got.append, self._ended, feed)

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
    left.channel.offer()
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
    assert left.channel.send(large(1))
    # Nothing that wants a reply is put behind what the other end does not read.
    assert not left.channel.send(Ask(1, TellTraffic()))
    right = End(pair[1])
    await until(lambda: right.got == [large(1)])
    assert left.channel.send(Ask(2, TellTraffic()))
    await until(lambda: right.got[1:] == [Ask(2, TellTraffic())])
    left.channel.close()
    right.channel.close()


async def test_an_end_that_goes_while_something_is_on_its_way(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    left = End(pair[0])
    left.channel.send(large(1))
    pair[1].close()
    await until(lambda: left.ends == 1)


async def test_messages_go_before_the_next_slice(pair: tuple[socket.socket, socket.socket]) -> None:
    slices = [large(number) for number in (1, 2, 3)]
    waiting = [frame(message) for message in slices]
    left = End(pair[0], feed=lambda: waiting.pop(0) if waiting else None)
    left.channel.offer()
    left.channel.offer()
    assert len(waiting) == 2, "each is made when the one before has been read"
    inner, outer = socket.socketpair()
    with outer:
        asked = [Ask(number, Flush(None)) for number in range(channel_module.MAX_QUEUED)]
        assert left.channel.send(asked[0], [inner])
        assert [left.channel.send(ask) for ask in asked[1:]] == [True] * (len(asked) - 1)
        assert not left.channel.send(Stop()), "so many messages wait at most"
        right = End(pair[1])
        await until(lambda: len(right.got) == len(asked) + 3)
        assert right.got == [slices[0], *asked, *slices[1:]]
        assert inner.fileno() == -1
    left.channel.close()
    right.channel.close()


async def test_sockets_that_wait_are_closed_with_it(pair: tuple[socket.socket, socket.socket]) -> None:
    waiting = [frame(large(1))]
    left = End(pair[0], feed=lambda: waiting.pop() if waiting else None)
    left.channel.offer()
    one, other = socket.socketpair()
    with other:
        assert left.channel.send(Stop(), [one])
        left.channel.close()
        assert one.fileno() == -1


async def test_the_control_process_takes_no_sockets(pair: tuple[socket.socket, socket.socket]) -> None:
    """A worker that an attacker controls could fill the table of descriptors."""
    left = End(pair[0], kind=ToControl)
    sent, other = socket.socketpair()
    with other:
        with sent:
            socket.send_fds(pair[1], [frame(Opened(7))], [sent.fileno()])
        await until(lambda: left.got == [Opened(7)])
        other.setblocking(False)
        assert other.recv(1) == b"", "no process has it open"
    left.channel.close()


async def test_one_message_in_a_turn_of_the_loop(pair: tuple[socket.socket, socket.socket]) -> None:
    """Ten slices that have arrived together must not keep queries waiting for the time of all ten."""
    turns: list[int] = []
    turn = 0
    left = Channel(pair[0], ToWorker, lambda _: turns.append(turn), lambda: None)
    pair[1].sendall(frame(Stop()) * 10)
    async with asyncio.timeout(10):
        while len(turns) < 10:
            turn += 1
            await asyncio.sleep(0)
    assert len(set(turns)) == 10
    left.close()


@pytest.mark.parametrize("kind", [ToWorker, ToControl])
async def test_a_pickle_ends_the_channel_and_is_not_executed(
    pair: tuple[socket.socket, socket.socket], kind: Any, tmp_path: Path
) -> None:
    target = tmp_path / "executed"
    code = b"cos\nmkdir\n(V" + bytes(target) + b"\ntR."
    pickle.loads(code)  # noqa: S301 - this is how it would be executed
    target.rmdir()
    end = End(pair[0], kind)
    with capture_logs() as logs:
        pair[1].sendall(len(code).to_bytes(4, "big") + code)
        await until(lambda: end.ends == 1)
    assert [entry["event"] for entry in logs] == ["worker.bad_message"]
    assert (end.got, target.exists()) == ([], False)


async def test_a_message_for_the_other_end_ends_the_channel(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    end = End(pair[0], ToControl)
    with capture_logs() as logs:
        pair[1].sendall(frame(Stop()))
        await until(lambda: end.ends == 1)
    assert [entry["event"] for entry in logs] == ["worker.bad_message"]


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

    channel = Channel(pair[0], ToWorker | ToControl, take, lambda: None)
    pair[1].send(frame(Stop()) + frame(Stop()))
    await until(lambda: got == [Stop()])
    await asyncio.sleep(0.01)
    assert got == [Stop()]


async def test_sockets_go_along(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = End(pair[0]), End(pair[1], ToWorker)
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


async def test_messages_after_one_that_fails_are_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    got: list[object] = []

    def take(message: object) -> None:
        if isinstance(message, Stop):
            raise ZeroDivisionError
        got.append(message)

    channel = Channel(pair[0], ToWorker | ToControl, take, lambda: None)
    with capture_logs() as logs:
        pair[1].sendall(frame(Stop()) + frame(Opened(7)))
        await until(lambda: bool(got))
    assert got == [Opened(7)]
    assert [(entry["event"], entry["task"], entry["detail"]) for entry in logs] == [
        ("task.failed", "worker channel", "Stop")
    ]
    channel.close()
