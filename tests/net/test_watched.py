from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from time import time

import pytest

from dnsproxy.core.upstreams import Upstream
from dnsproxy.net import datagrams
from dnsproxy.net.upstream import Forwarder
from dnsproxy.net.watch import Watch
from dnsproxy.net.watched import WatchedUdpListener, port_of, server_of
from tests.fakes.forwarding import respond
from tests.fakes.tcp import connected, framed, tcp_world
from tests.fakes.upstream import Client, FakeUpstream, silence, until
from tests.fakes.writers import Kept, watched
from tests.messages import REGISTRY, addresses, engine, hangzhou, query, read


@pytest.fixture(params=["batch", "plain"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(datagrams, "load_batch_calls", lambda: None)


@asynccontextmanager
async def udp(watch: Watch, bound: str = "127.0.0.1", asked: str = "127.0.0.1") -> AsyncIterator[Client]:
    async with FakeUpstream(respond) as upstream:
        made = engine(hangzhou(), upstreams=[Upstream("up", upstream.address)])
        forwarder = Forwarder(made)
        listener = WatchedUdpListener(made, forwarder, bound, 0, watch)
        try:
            with Client(asked, listener.address[1]) as client:
                yield client
        finally:
            listener.close()
            forwarder.close()


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("0.0.0.0", "127.0.0.2"), ("::", "::1")],
)
@pytest.mark.usefixtures("kind")
async def test_queries_over_udp(bound: str, asked: str) -> None:
    watch, kept = watched()
    async with udp(watch, bound, asked) as client:
        before = time()
        responses = [
            await client.ask(query(name))
            for name in (REGISTRY, "www.example.", "www.example.", "localhost.", REGISTRY)
        ]
        client.send(b"short")
        await until(lambda: len(kept.seen) == 6)
        host, port = client.sock.getsockname()[:2]
        server = client.sock.getpeername()
    assert addresses(responses[1]) == ["192.0.2.1"]
    assert kept.brief == [
        ("udp", "learned", ""),
        ("udp", "forward", "up"),
        ("udp", "cache", ""),
        ("udp", "local", ""),
        ("udp", "learned", ""),
        ("udp", "dropped", "short"),
    ]
    assert [seen.response for seen in kept.seen] == [*responses, b""]
    assert [seen.told is not None for seen in kept.seen] == [False, True, False, False, False, False]
    for seen in kept.seen:
        assert (seen.client, seen.client_port) == (ip_address(host).packed, port)
        assert seen.server_port == server[1]
        assert seen.server == (b"" if bound in {"0.0.0.0", "::"} else ip_address(asked).packed)
        assert before <= seen.wall <= time()
        assert 0 <= seen.duration < 60


@pytest.mark.usefixtures("kind")
async def test_queries_that_nobody_wants_are_answered_too() -> None:
    kept = Kept([False] * 4)
    async with udp(Watch([kept])) as client:
        assert addresses(await client.ask(query(REGISTRY))) == ["10.94.205.198"]
        assert addresses(await client.ask(query("www.example."))) == ["192.0.2.1"]
        client.send(b"short")
        assert read(await client.ask(query("localhost."))).answer
    assert kept.seen == []


async def test_of_those_that_wait_together_the_first_has_the_reply() -> None:
    watch, kept = watched()
    async with tcp_world(silence, watch=watch) as made, connected(made) as client:
        client.writer.write(framed(*(query("www.example.", ident=ident) for ident in range(3))))
        await until(lambda: bool(made.upstream.asked))
        made.respond_all()
        assert sorted(await client.idents(3)) == [0, 1, 2]
        await until(lambda: len(kept.seen) == 3)
    assert kept.brief == [("tcp", "forward", "up")] * 3
    assert [seen.told is not None for seen in kept.seen] == [True, False, False]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_queries_over_tcp(host: str) -> None:
    watch, kept = watched()
    async with tcp_world(host=host, watch=watch) as made, connected(made) as client:
        for ident, name in enumerate((REGISTRY, "www.example.", "www.example.")):
            client.writer.write(framed(query(name, ident=ident)))
            assert await client.idents(1) == [ident]
        client.writer.write(framed(b"\x00" * 2 + b"\x80" + b"\x00" * 9))
        await until(lambda: len(kept.seen) == 4)
        port = client.writer.get_extra_info("sockname")[1]
        server_port = made.listener.address[1]
    assert kept.brief == [
        ("tcp", "learned", ""),
        ("tcp", "forward", "up"),
        ("tcp", "cache", ""),
        ("tcp", "dropped", "not_a_query"),
    ]
    for seen in kept.seen:
        assert (seen.client, seen.client_port) == (ip_address(host).packed, port)
        assert (seen.server, seen.server_port) == (ip_address(host).packed, server_port)


async def test_queries_over_tcp_that_nobody_wants() -> None:
    kept = Kept([False] * 3)
    async with tcp_world(watch=Watch([kept])) as made, connected(made) as client:
        client.writer.write(framed(query(REGISTRY, ident=1), query("www.example.", ident=2)))
        assert sorted(await client.idents(2)) == [1, 2]
        client.writer.write(
            framed(
                b"\x00" * 2 + b"\x80" + b"\x00" * 9,
            )
        )
        client.writer.write(framed(query(REGISTRY, ident=3))[:5])
    assert kept.seen == []


def test_the_ports_of_a_socket_that_is_not_connected() -> None:
    with socket.socket() as sock:
        assert port_of(sock) == 0
        assert server_of(sock) == (b"", 0)
