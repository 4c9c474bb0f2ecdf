from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Iterable
from itertools import groupby
from time import monotonic

import pytest

from dnsproxy.core.policy import Owned
from dnsproxy.core.upstreams import Upstream
from dnsproxy.net import connection as connection_module
from dnsproxy.net.connection import ENOUGH_UNREAD, IDLE_SECONDS, MAX_WAITING, Connection
from dnsproxy.net.loop import HotLoop
from tests.fakes.forwarding import respond
from tests.fakes.tcp import RESET, TcpWorld, connected, framed, tcp_world, unread
from tests.fakes.upstream import Asked, silence, until
from tests.messages import OSS, REGISTRY, addresses, query, read, reply_to

# Responses of 16 kB and of 1 kB.
LARGE = Owned("large.example.", addresses=tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(1000)))
MIDDLE = Owned("middle.example.", addresses=tuple(f"10.0.0.{n}" for n in range(60)))
# No socket to it can be made, so that queries to it are answered while they are being taken.
NOWHERE = Upstream("nowhere", ("255.255.255.255", 53))


def held(made: TcpWorld) -> int:
    """Octets of responses that the only connection keeps."""
    (connection,) = made.connections
    return len(connection._unsent) + sum(map(len, connection._output))


# --- messages in a stream


async def test_p17_messages_may_come_octet_by_octet() -> None:
    async with tcp_world() as made, connected(made) as client:
        for octet in framed(query(REGISTRY, ident=1), query(OSS, ident=2)):
            client.writer.write(bytes((octet,)))
            await client.writer.drain()
            await asyncio.sleep(0)
        assert await client.idents(2) == [1, 2]


@pytest.mark.parametrize("seed", range(4))
async def test_p17_the_stream_may_be_cut_anywhere(seed: int) -> None:
    randomness = random.Random(seed)  # noqa: S311 - no secret
    async with tcp_world(owned=[MIDDLE]) as made, connected(made) as client:
        names = [randomness.choice(["middle.example.", f"n{number}.example."]) for number in range(100)]
        stream = framed(*(query(name, ident=ident) for ident, name in enumerate(names)))
        while stream:
            size = randomness.choice([1, 2, 3, 40, 700, 5000])
            client.writer.write(stream[:size])
            stream = stream[size:]
            await asyncio.sleep(0)
        assert sorted(await client.idents(100)) == list(range(100))


async def test_p17_many_queries_in_one_segment() -> None:
    async with tcp_world() as made, connected(made) as client:
        # Twice what is taken per wake-up.
        count = 2 * 16_384 // len(framed(query(REGISTRY)))
        client.send(*(query(REGISTRY, ident=ident) for ident in range(count)))
        assert await client.idents(count) == list(range(count))


async def test_connections_that_send_much_take_turns() -> None:
    async with tcp_world() as made, connected(made) as first, connected(made) as second:
        asked: list[Connection] = []
        await until(lambda: len(made.connections) == 2)
        for connection in made.connections:
            take = connection._take

            def note(
                message: bytes,
                now: float,
                connection: Connection = connection,
                take: Callable[[bytes, float], bool] = take,
            ) -> bool:
                asked.append(connection)
                return take(message, now)

            connection._take = note  # type: ignore[method-assign]
        shortest = query(".", use_edns=False)
        for client in (first, second):
            client.send(*[shortest] * 1000)
        await first.idents(1000)
        await second.idents(1000)
        runs = [len(list(run)) for _, run in groupby(asked)]
        assert max(runs) <= 2048 // (2 + len(shortest)) + 1


async def test_p17_answers_go_out_of_order_as_they_come() -> None:
    async with tcp_world(silence) as made, connected(made) as client:
        client.send(
            query("slow.example.", ident=1), query("late.example.", ident=2), query(REGISTRY, ident=3)
        )
        assert await client.idents(1) == [3]
        await until(lambda: len(made.upstream.asked) == 2)
        made.respond_all()
        assert sorted(await client.idents(2)) == [1, 2]


async def test_p17_malformed_messages_get_formerr_and_the_connection_stays() -> None:
    async with tcp_world() as made, connected(made) as client:
        client.send(query(REGISTRY) + b"garbage", query(REGISTRY))
        assert read(await client.receive()).rcode() == 1
        assert addresses(await client.receive()) == ["10.94.205.198"]


async def test_p15_large_responses_go_out_whole() -> None:
    many = Owned("many.example.", addresses=tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(3000)))
    async with tcp_world(owned=[many]) as made, connected(made) as client:
        client.send(query("many.example."))
        response = await client.receive()
        assert (len(addresses(response)), len(response) > 48_000) == (3000, True)


async def test_the_longest_message_is_taken() -> None:
    async with tcp_world() as made, connected(made) as client:
        client.send(
            query(REGISTRY, ident=1) + b"\0" * (65_535 - len(query(REGISTRY))), query(REGISTRY, ident=2)
        )
        assert await client.idents(2) == [1, 2]


# --- what is not DNS


@pytest.mark.parametrize("length", [0, 1, 11])
async def test_p17_a_length_under_a_header_closes(length: int) -> None:
    async with tcp_world() as made, connected(made) as client:
        client.writer.write(struct.pack(">H", length) + b"x" * length)
        assert await client.closed()
        assert made.engine.stats_now().requests == {}


async def test_p17_what_was_asked_before_a_bad_length_is_answered() -> None:
    async with tcp_world(silence) as made, connected(made) as client:
        good = query(REGISTRY, ident=1), query("www.example.", ident=2)
        client.writer.write(framed(*good) + b"\0\0" + framed(query(REGISTRY, ident=3)))
        assert await client.idents(1) == [1]
        await until(lambda: made.upstream.asked)
        assert await made.rests()
        made.respond_all()
        assert await client.idents(1) == [2]
        assert await client.closed()
        assert made.engine.stats_now().requests == {("tcp", "A"): 2}


async def test_what_comes_after_a_bad_length_is_not_read() -> None:
    async with tcp_world(silence) as made, connected(made) as client:
        client.writer.write(framed(query("www.example.")) + b"\0\0")
        await until(lambda: made.upstream.asked)
        client.writer.write(framed(query(REGISTRY)) * 10_000)
        assert await made.rests()
        made.respond_all()
        await made.all_gone()
        assert made.engine.stats_now().requests == {("tcp", "A"): 1}


# --- the client's end


def cuts() -> list[int]:
    """Every place within a learned query and one that is forwarded."""
    return list(range(len(framed(query(REGISTRY), query("www.example."))) + 1))


async def test_a_reset_at_any_point_leaves_nothing_behind() -> None:
    stream = framed(query(REGISTRY), query("www.example."))
    async with tcp_world() as made:
        for cut in cuts():
            async with connected(made) as client:
                client.writer.write(stream[:cut])
                for _ in range(cut % 4):
                    await asyncio.sleep(0)
                client.reset()
            await made.all_gone()
        await until(lambda: not made.engine.in_flight)
        assert await made.rests()


async def test_a_half_close_at_any_point_gets_what_was_asked_and_the_end() -> None:
    first, second = framed(query(REGISTRY, ident=1)), framed(query("www.example.", ident=2))
    async with tcp_world() as made:
        for cut in cuts():
            async with connected(made) as client:
                client.writer.write((first + second)[:cut])
                client.writer.write_eof()
                whole = (cut >= len(first)) + (cut == len(first + second))
                assert await client.idents(whole) == [1, 2][:whole]
                assert await client.closed()
        await made.all_gone()


async def test_p17_a_client_that_left_is_not_missed() -> None:
    async with tcp_world(silence) as made:
        async with connected(made) as client:
            client.send(query("www.example."))
            await until(lambda: made.upstream.asked)
            client.reset()
        await made.all_gone()
        made.respond_all()
        await until(lambda: not made.engine.in_flight)
        async with connected(made) as client:
            client.send(query("www.example."))
            assert addresses(await client.receive()) == ["192.0.2.1"]


async def test_a_late_answer_does_not_go_to_who_has_the_number_now() -> None:
    async with tcp_world(silence) as made, connected(made) as client:
        client.send(query("www.example.", ident=1))
        await until(lambda: made.upstream.asked)
        number = made.connections[0]._fd
        client.reset()
        await made.all_gone()
        # The numbers that are free are given again, the lowest first.
        async with unread(made) as other:
            assert made.connections[0]._fd == number
            made.respond_all()
            await until(lambda: not made.engine.in_flight)
            await asyncio.get_running_loop().sock_sendall(other, framed(query(REGISTRY, ident=2)))
            received = await asyncio.get_running_loop().sock_recv(other, 65_535)
            assert received[2:4] == b"\0\2"


async def test_p17_a_client_that_has_said_all_still_gets_its_answers() -> None:
    async with tcp_world(silence) as made, connected(made) as client:
        client.send(query(REGISTRY, ident=1), query("www.example.", ident=2))
        client.writer.write_eof()
        assert await client.idents(1) == [1]
        await until(lambda: made.upstream.asked)
        # Its end stays readable for as long as it is not closed.
        assert await made.rests()
        made.respond_all()
        assert addresses(await client.receive()) == ["192.0.2.1"]
        assert await client.closed()
        await made.all_gone()


async def test_a_client_that_has_said_all_and_then_goes_is_let_go_at_once() -> None:
    async with tcp_world(silence) as made, connected(made) as client:
        client.send(query("www.example."))
        client.writer.write_eof()
        await until(lambda: made.upstream.asked and made.connections[0]._ended)
        client.reset()
        if not isinstance(asyncio.get_running_loop(), HotLoop):
            # Not told of by asyncio, which knows of nothing but reading and writing.
            made.respond_all()
        await made.all_gone()
        assert made.engine.in_flight == isinstance(asyncio.get_running_loop(), HotLoop)


async def test_a_client_that_goes_while_its_queries_are_taken() -> None:
    async with tcp_world(owned=[LARGE]) as made, unread(made) as client:
        sent = framed(*(query("large.example.") for _ in range(200)))
        client.send(sent)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        await made.all_gone()
        # The rest of what it asked is not looked at.
        assert made.engine.stats_now().requests[("tcp", "A")] < 20


# --- idle


async def test_p17_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "IDLE_SECONDS", 0.05)
    async with tcp_world() as made, connected(made) as client:
        assert await client.closed()
        await made.all_gone()


async def test_p17_each_message_starts_the_idle_time_anew() -> None:
    async with tcp_world() as made, connected(made) as client:
        ends = []
        for _ in range(3):
            client.send(query(REGISTRY))
            await client.receive()
            (connection,) = made.connections
            ends.append(connection.active)
        assert ends == sorted(set(ends))


async def test_p17_octets_that_make_no_message_do_not_keep_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "IDLE_SECONDS", 0.2)
    async with tcp_world() as made, connected(made) as client:

        async def trickle() -> None:
            while True:
                client.writer.write(b"\xff")
                await asyncio.sleep(0.02)

        task = asyncio.create_task(trickle())
        assert await client.closed()
        task.cancel()
        assert made.engine.stats_now().requests == {}


async def test_p17_who_waits_for_an_answer_is_not_idle() -> None:
    async with tcp_world(silence) as made, connected(made) as client:
        client.send(query("www.example."))
        await until(lambda: made.upstream.asked)
        (connection,) = made.connections
        much_later = monotonic() + 10 * IDLE_SECONDS
        connection.close_if_idle(much_later)
        made.respond_all()
        assert addresses(await client.receive()) == ["192.0.2.1"]
        connection.close_if_idle(much_later)
        assert await client.closed()


@pytest.mark.parametrize("ended", [False, True])
async def test_p17_a_client_that_does_not_read_is_cut(ended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "IDLE_SECONDS", 1.0)
    async with tcp_world(owned=[LARGE], send_buffer=4096) as made, unread(made) as client:
        await asyncio.get_running_loop().sock_sendall(
            client, framed(*(query("large.example.") for _ in range(1000)))
        )
        if ended:
            client.shutdown(socket.SHUT_WR)
        await until(lambda: held(made) >= ENOUGH_UNREAD)
        # Much of what it has sent is still in the kernel.
        assert len(made.connections[0]._input) <= 16_384
        await made.all_gone()


# --- bounds


async def test_p17_queries_that_wait_are_bounded_per_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MAX_WAITING", 5)
    async with tcp_world(silence) as made, connected(made) as client, connected(made) as other:
        client.send(*(query(f"n{number}.example.", ident=number) for number in range(60)))
        await until(lambda: len(made.upstream.asked) >= 5)
        other.send(query(REGISTRY))
        await other.receive()
        # There is more to read, and nothing is read.
        client.send(*(query(f"n{number}.example.", ident=number) for number in range(60, 600)))
        assert await made.rests()
        assert len(made.upstream.asked) == 5
        made.upstream.hook = respond
        made.respond_all()
        assert sorted(await client.idents(600)) == list(range(600))


async def test_p17_what_was_left_over_is_taken_up_again_after_the_end_too() -> None:
    async with tcp_world(silence) as made, connected(made) as client:
        count = 2 * MAX_WAITING + 10
        client.send(*(query(f"n{number}.example.", ident=number) for number in range(count)))
        client.writer.write_eof()
        await until(lambda: len(made.upstream.asked) == MAX_WAITING)
        made.upstream.hook = respond
        made.respond_all()
        assert sorted(await client.idents(count)) == list(range(count))
        assert await client.closed()


@pytest.mark.parametrize("waiting", [1, 5, MAX_WAITING])
async def test_queries_that_fail_at_once_are_answered_at_once(
    waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MAX_WAITING", waiting)
    async with tcp_world(upstreams=[NOWHERE]) as made, connected(made) as client:
        client.send(*(query(f"n{number}.example.", ident=number) for number in range(400)))
        client.writer.write_eof()
        responses = [read(await client.receive()) for _ in range(400)]
        assert sorted(response.id for response in responses) == list(range(400))
        assert {response.rcode() for response in responses} == {2}
        assert await client.closed()


async def test_p17_a_slow_reader_gets_all_in_the_end() -> None:
    async with tcp_world(owned=[LARGE], send_buffer=4096) as made, unread(made) as client:
        # Small buffers in the kernel, so that most of the responses must wait in ours.
        loop = asyncio.get_running_loop()
        count = 16
        await loop.sock_sendall(
            client, framed(*(query("large.example.", ident=ident) for ident in range(count)))
        )
        client.shutdown(socket.SHUT_WR)
        await until(lambda: held(made) >= ENOUGH_UNREAD)
        # The rest of the input waits, and so do we.
        assert await made.rests()
        assert held(made) < ENOUGH_UNREAD + 20_000
        received = bytearray()
        async with asyncio.timeout(20):
            while data := await loop.sock_recv(client, 65_536):
                received += data
                assert not made.connections or held(made) < ENOUGH_UNREAD + 20_000
    assert idents_of(received) == list(range(count))


def idents_of(stream: bytearray) -> list[int]:
    idents = []
    while stream:
        (length,) = struct.unpack_from(">H", stream)
        idents.append(read(bytes(stream[2 : 2 + length])).id)
        del stream[: 2 + length]
    return idents


@pytest.mark.parametrize(("send_buffer", "count"), [(32_768, 3000), (4 << 20, 300)])
async def test_a_client_that_asks_faster_than_it_reads_is_not_cut(send_buffer: int, count: int) -> None:
    async with tcp_world(owned=[MIDDLE], send_buffer=send_buffer) as made, connected(made) as client:
        client.send(*(query("middle.example.", ident=ident) for ident in range(count)))
        assert await client.idents(count) == list(range(count))


async def test_a_client_that_is_owed_too_much_and_does_not_read_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "MAX_UNREAD", 20_000)

    def long_reply(asked: Asked) -> Iterable[bytes]:
        name = read(asked.data).question[0].name
        return [reply_to(asked.data, [f"{name} 60 IN A 192.0.2.{last}" for last in range(60)])]

    async with tcp_world(silence, send_buffer=4096) as made, unread(made) as client:
        await asyncio.get_running_loop().sock_sendall(
            client, framed(*(query(f"n{number}.example.", ident=number) for number in range(MAX_WAITING)))
        )
        await until(lambda: len(made.upstream.asked) == MAX_WAITING)
        for asked in made.upstream.asked:
            made.upstream.send(long_reply(asked), asked.peer)
        await made.all_gone()


# --- mistakes of ours


async def test_an_error_of_ours_cuts_the_connection_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_family: int, _kind: int) -> socket.SocketType:
        raise RuntimeError("an error of ours")

    async with tcp_world() as made, connected(made) as client, connected(made) as other:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "SocketType", refuse)
            client.send(query(REGISTRY), query("www.example."))
            assert await client.closed()
        assert [str(context["exception"]) for context in made.failures] == ["an error of ours"]
        made.failures.clear()
        other.send(query(REGISTRY))
        assert addresses(await other.receive()) == ["10.94.205.198"]
