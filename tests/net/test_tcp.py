from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from dnsproxy.core.engine import Engine
from dnsproxy.core.policy import Owned
from dnsproxy.core.upstreams import Upstream
from dnsproxy.errors import DropReason, StartError
from dnsproxy.net import connection as connection_module
from dnsproxy.net.tcp import TcpListener
from dnsproxy.net.udp import UdpListener
from dnsproxy.net.upstream import Forwarder
from tests.fakes.upstream import Asked, Client, FakeUpstream, Hook, silence, until
from tests.messages import OSS, REGISTRY, addresses, engine, hangzhou, query, read, reply_to


@dataclass
class World:
    """A TCP listener, what stands behind it, and an upstream."""

    engine: Engine
    forwarder: Forwarder
    listener: TcpListener
    upstream: FakeUpstream


def respond(asked: Asked) -> Iterable[bytes]:
    name = read(asked.data).question[0].name
    return [reply_to(asked.data, [f"{name} 60 IN A 192.0.2.1"])]


@asynccontextmanager
async def world(
    hook: Hook = respond,
    *,
    host: str = "127.0.0.1",
    max_clients: int = 16,
    owned: Sequence[Owned] | None = None,
    allow: Sequence[str] = ("127.0.0.0/8", "::1/128"),
) -> AsyncIterator[World]:
    async with FakeUpstream(hook) as upstream:
        made = engine(
            hangzhou() if owned is None else owned,
            upstreams=[Upstream("up", upstream.address)],
            allow=allow,
            max_in_flight=1000,
        )
        forwarder = Forwarder(made)
        listener = TcpListener(made, forwarder, max_clients)
        await listener.open(host, 0)
        try:
            yield World(made, forwarder, listener, upstream)
        finally:
            await listener.close()
            forwarder.close()


class Connection:
    """A client's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, *messages: bytes) -> None:
        self.writer.write(b"".join(framed(message) for message in messages))

    async def receive(self) -> bytes:
        async with asyncio.timeout(10):
            (length,) = struct.unpack(">H", await self._reader.readexactly(2))
            return await self._reader.readexactly(length)

    def reset(self) -> None:
        """Cut the connection so that the other side hears of it at once."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def closed(self) -> bool:
        """Tell that the other side ended the connection and sent nothing more before."""
        async with asyncio.timeout(10):
            try:
                return await self._reader.read(1) == b""
            except ConnectionResetError:
                return True


def framed(message: bytes) -> bytes:
    return struct.pack(">H", len(message)) + message


@asynccontextmanager
async def connected(to: World) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection(*to.listener.address)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_p17_learned_and_forwarded_names_are_answered(host: str) -> None:
    async with world(host=host) as made, connected(made) as client:
        client.send(query(REGISTRY))
        assert addresses(await client.receive()) == ["10.94.205.198"]
        client.send(query("www.example."))
        assert addresses(await client.receive()) == ["192.0.2.1"]
        assert made.engine.stats_now().requests == {("tcp", "A"): 2}
        assert sum(made.engine.stats.durations) == 2


async def test_p17_messages_may_come_octet_by_octet() -> None:
    async with world() as made, connected(made) as client:
        for octet in framed(query(REGISTRY, ident=1)) + framed(query(OSS, ident=2)):
            client.writer.write(bytes((octet,)))
            await client.writer.drain()
            await asyncio.sleep(0)
        assert [read(await client.receive()).id for _ in range(2)] == [1, 2]


async def test_p17_many_queries_in_one_segment() -> None:
    async with world() as made, connected(made) as client:
        client.send(*(query(REGISTRY, ident=ident) for ident in range(300)))
        assert [read(await client.receive()).id for _ in range(300)] == list(range(300))


async def test_p17_answers_go_out_of_order_as_they_come() -> None:
    async with world(silence) as made, connected(made) as client:
        client.send(
            query("slow.example.", ident=1), query("late.example.", ident=2), query(REGISTRY, ident=3)
        )
        assert read(await client.receive()).id == 3
        await until(lambda: len(made.upstream.asked) == 2)
        for asked in reversed(made.upstream.asked):
            made.upstream.send(respond(asked), asked.peer)
        assert {read(await client.receive()).id for _ in range(2)} == {1, 2}


@pytest.mark.parametrize("length", [0, 1, 11])
async def test_p17_a_length_under_a_header_closes(length: int) -> None:
    async with world() as made, connected(made) as client:
        client.writer.write(struct.pack(">H", length) + b"x" * length)
        assert await client.closed()
        assert made.engine.stats_now().requests == {}


async def test_p17_what_came_before_a_bad_length_does_no_harm() -> None:
    async with world() as made, connected(made) as client:
        client.writer.write(framed(query(REGISTRY)) + b"\0\0" + framed(query(REGISTRY)))
        await until(lambda: not made.listener._connections)
        assert made.engine.stats_now().requests == {("tcp", "A"): 1}


async def test_p17_malformed_messages_get_formerr_and_the_connection_stays() -> None:
    async with world() as made, connected(made) as client:
        client.send(query(REGISTRY) + b"garbage", query(REGISTRY))
        assert read(await client.receive()).rcode() == 1
        assert addresses(await client.receive()) == ["10.94.205.198"]


async def test_p17_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "IDLE_SECONDS", 0.05)
    async with world() as made, connected(made) as client:
        assert await client.closed()
        await until(lambda: not made.listener._connections)


async def test_p17_each_message_starts_the_idle_time_anew() -> None:
    async with world() as made, connected(made) as client:
        ends = []
        for _ in range(3):
            client.send(query(REGISTRY))
            await client.receive()
            (connection,) = made.listener._connections
            ends.append(connection._active)
        assert ends == sorted(set(ends))


async def test_p17_octets_that_make_no_message_do_not_keep_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "IDLE_SECONDS", 0.2)
    async with world() as made, connected(made) as client:

        async def trickle() -> None:
            while True:
                client.writer.write(b"\xff")
                await asyncio.sleep(0.02)

        task = asyncio.create_task(trickle())
        assert await client.closed()
        task.cancel()
        assert made.engine.stats_now().requests == {}


async def test_p17_who_waits_for_an_answer_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "IDLE_SECONDS", 0.05)
    async with world(silence) as made, connected(made) as client:
        client.send(query("www.example."))
        await until(lambda: made.upstream.asked)
        asked = made.upstream.asked[0]
        asyncio.get_running_loop().call_later(0.2, made.upstream.send, respond(asked), asked.peer)
        assert addresses(await client.receive()) == ["192.0.2.1"]
        assert await client.closed()


async def test_p17_a_full_house_refuses_and_udp_still_works() -> None:
    async with world(max_clients=1) as made, connected(made) as first:
        first.send(query(REGISTRY))
        await first.receive()
        async with connected(made) as second:
            assert await second.closed()
        assert made.engine.stats.drops == {DropReason.TCP_CLIENTS: 1}
        udp = UdpListener(made.engine, made.forwarder, "127.0.0.1", 0)
        with Client(*udp.address) as client:
            assert addresses(await client.ask(query(REGISTRY))) == ["10.94.205.198"]
        udp.close()
        first.send(query(REGISTRY))
        assert addresses(await first.receive()) == ["10.94.205.198"]


async def test_p17_a_place_is_free_again_when_a_client_has_gone() -> None:
    async with world(max_clients=1) as made:
        for _ in range(3):
            async with connected(made) as client:
                client.send(query(REGISTRY))
                await client.receive()
            await until(lambda: not made.listener._connections)
        assert made.engine.stats.drops == {}


async def test_p17_a_client_that_does_not_read_is_cut() -> None:
    large = Owned("large.example.", addresses=tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(1000)))
    async with world(owned=[large]) as made, connected(made) as client:
        client.send(*(query("large.example.", ident=ident) for ident in range(2000)))
        await until(lambda: not made.listener._connections)


async def test_p17_queries_that_wait_are_bounded_per_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MAX_WAITING", 5)
    async with world(silence) as made, connected(made) as client, connected(made) as other:
        client.send(*(query(f"n{number}.example.", ident=number) for number in range(60)))
        await until(lambda: len(made.upstream.asked) >= 5)
        other.send(query(REGISTRY))
        await other.receive()
        assert len(made.upstream.asked) == 5
        made.upstream.hook = respond
        for asked in list(made.upstream.asked):
            made.upstream.send(respond(asked), asked.peer)
        assert sorted([read(await client.receive()).id for _ in range(60)]) == list(range(60))


async def test_p17_a_client_that_left_is_not_missed() -> None:
    async with world(silence) as made:
        async with connected(made) as client:
            client.send(query("www.example."))
            await until(lambda: made.upstream.asked)
            client.reset()
        await until(lambda: not made.listener._connections)
        asked = made.upstream.asked[0]
        made.upstream.send(respond(asked), asked.peer)
        await until(lambda: not made.engine.in_flight)
        async with connected(made) as client:
            client.send(query("www.example."))
            assert addresses(await client.receive()) == ["192.0.2.1"]


async def test_p17_a_client_that_has_said_all_still_gets_its_answers() -> None:
    async with world(silence) as made, connected(made) as client:
        client.send(query(REGISTRY, ident=1), query("www.example.", ident=2))
        client.writer.write_eof()
        assert read(await client.receive()).id == 1
        await until(lambda: made.upstream.asked)
        asked = made.upstream.asked[0]
        made.upstream.send(respond(asked), asked.peer)
        assert addresses(await client.receive()) == ["192.0.2.1"]
        assert await client.closed()
        await until(lambda: not made.listener._connections)


async def test_p17_a_slow_reader_gets_all_in_the_end() -> None:
    large = Owned("large.example.", addresses=tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(1000)))
    async with world(owned=[large]) as made:
        with socket.socket() as client:
            # Small buffers in the kernel, so that most of the responses must wait in ours.
            assert made.listener._sock is not None
            made.listener._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, made.listener.address)
            asked = b"".join(framed(query("large.example.", ident=ident)) for ident in range(12))
            await loop.sock_sendall(client, asked)
            await until(lambda: any(one._unsent for one in made.listener._connections))
            received = bytearray()
            async with asyncio.timeout(10):
                while len(received) < 12 * 16_000:
                    received += await loop.sock_recv(client, 65_536)
            await until(lambda: not any(one._unsent for one in made.listener._connections))
        ids = []
        while received:
            (length,) = struct.unpack_from(">H", received)
            ids.append(read(bytes(received[2 : 2 + length])).id)
            del received[: 2 + length]
        assert ids == list(range(12))


async def test_p26_strangers_are_refused() -> None:
    async with world(allow=["10.0.0.0/8"]) as made, connected(made) as client:
        client.send(query(REGISTRY))
        assert read(await client.receive()).rcode() == 5


async def test_p15_large_responses_go_out_whole() -> None:
    many = Owned("many.example.", addresses=tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(3000)))
    async with world(owned=[many]) as made, connected(made) as client:
        client.send(query("many.example."))
        response = await client.receive()
        assert (len(addresses(response)), len(response) > 48_000) == (3000, True)


async def test_closing_cuts_connections_and_frees_the_port() -> None:
    async with world() as made, connected(made) as client:
        client.send(query(REGISTRY))
        await client.receive()
        host, port = made.listener.address
        await made.listener.close()
        assert await client.closed()
        again = TcpListener(made.engine, made.forwarder, 1)
        await again.open(host, port)
        await again.close()


async def test_an_address_that_cannot_be_bound_is_one_line() -> None:
    async with world() as made:
        port = made.listener.address[1]
        second = TcpListener(made.engine, made.forwarder, 1)
        with pytest.raises(StartError, match=f"tcp 127.0.0.1 port {port}: Address already in use"):
            await second.open("127.0.0.1", port)
        with pytest.raises(StartError, match="not listening"):
            _ = second.address
        await second.close()
