from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic

import dns.edns
import pytest

from dnsproxy.core import options
from dnsproxy.core.places import Places
from dnsproxy.errors import DropReason, StartError
from dnsproxy.net.hot import Serve
from dnsproxy.net.tcp import TcpListener
from dnsproxy.net.udp import UdpListener
from tests.fakes.tcp import connected, framed, has_ended, idle, tcp_world
from tests.fakes.upstream import Client, silence, until
from tests.messages import REGISTRY, addresses, engine, hangzhou, query, read

IN_PROGRESS = (0, errno.EINPROGRESS)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_p17_learned_and_forwarded_names_are_answered(host: str) -> None:
    async with tcp_world(host=host) as made, connected(made) as client:
        client.send(query(REGISTRY))
        assert addresses(await client.receive()) == ["10.94.205.198"]
        client.send(query("www.example."))
        assert addresses(await client.receive()) == ["192.0.2.1"]
        assert made.engine.stats_now().requests == {("tcp", "A"): 2}
        assert sum(made.engine.stats_now().durations) == 2


async def test_p43_a_client_outside_the_access_list_is_closed_before_it_takes_a_place() -> None:
    async with tcp_world(allow=["10.0.0.0/8"]) as made, connected(made) as client:
        assert await client.closed()
        assert made.ready.served == 1  # by the listening socket alone
        assert made.engine.stats.drops == {DropReason.REFUSED_CLIENT: 1}


async def test_p43_idle_connections_from_outside_the_access_list_keep_no_client_out() -> None:
    async with tcp_world(allow=["127.0.0.1/32"], max_clients=4) as made:
        with ExitStack() as stack:
            for number in range(64):
                stack.enter_context(idle(made.listener.address, f"127.0.0.{2 + number % 8}"))
            async with connected(made) as client:
                client.send(query(REGISTRY))
                assert addresses(await client.receive()) == ["10.94.205.198"]
        assert made.engine.stats.drops == {DropReason.REFUSED_CLIENT: 64}


async def test_p43_the_client_with_the_most_connections_makes_room_for_another() -> None:
    async with tcp_world(max_clients=4) as made, connected(made) as used:
        with ExitStack() as stack:
            # 127.0.0.1 has the first, which is not the longest idle one after its query.
            many = [stack.enter_context(idle(made.listener.address, "127.0.0.1")) for _ in range(3)]
            await until(lambda: len(made.connections) == 4)
            used.send(query(REGISTRY))
            await used.receive()
            other = stack.enter_context(idle(made.listener.address, "127.0.0.2"))
            await until(lambda: made.engine.stats.drops == {DropReason.TCP_DISPLACED: 1})
            assert has_ended(many[0])
            # 127.0.0.2 gets a second one, so that both have two, and no third.
            second = stack.enter_context(idle(made.listener.address, "127.0.0.2"))
            await until(lambda: has_ended(many[1]))
            stack.enter_context(idle(made.listener.address, "127.0.0.2"))
            await until(lambda: made.engine.stats.drops[DropReason.TCP_CLIENTS] == 1)
            assert [has_ended(sock) for sock in (many[2], other, second)] == [False] * 3
            used.send(query(REGISTRY))
            assert addresses(await used.receive()) == ["10.94.205.198"]


async def test_p43_a_reload_closes_connections_that_are_no_longer_allowed() -> None:
    async with tcp_world() as made, connected(made) as client:
        client.send(query(REGISTRY))
        await client.receive()
        made.listener.refit(engine(allow=["10.0.0.0/8"]), made.forwarder)
        assert await client.closed()
        await made.all_gone()


async def test_p17_a_full_house_refuses_and_udp_still_works() -> None:
    async with tcp_world(max_clients=1) as made, connected(made) as first:
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
    async with tcp_world(max_clients=1) as made:
        for _ in range(3):
            async with connected(made) as client:
                client.send(query(REGISTRY))
                await client.receive()
            await made.all_gone()
        assert made.engine.stats.drops == {}


async def test_more_clients_at_once_than_are_taken_at_a_time() -> None:
    async with tcp_world(max_clients=200) as made:
        clients = [socket.create_connection(made.listener.address) for _ in range(100)]
        for ident, client in enumerate(clients):
            client.setblocking(True)
            client.sendall(framed(query(REGISTRY, ident=ident)))
        await until(lambda: made.engine.stats_now().requests == {("tcp", "A"): 100})
        for ident, client in enumerate(clients):
            assert read(client.recv(65_535)[2:]).id == ident
            client.close()
        await made.all_gone()


async def test_clients_that_have_gone_before_they_are_taken_are_let_go() -> None:
    async with tcp_world() as made:
        for _ in range(10):
            client = socket.create_connection(made.listener.address)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        async with connected(made) as last:
            last.send(query(REGISTRY))
            assert addresses(await last.receive()) == ["10.94.205.198"]
        await made.all_gone()


async def test_a_client_that_cannot_be_watched_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tcp_world(max_clients=1) as made:

        def refuse(_fd: int, _serve: Serve) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(made.ready, "add", refuse)
            async with connected(made) as client:
                assert await client.closed()
        assert [type(context["exception"]) for context in made.failures] == [OSError]
        made.failures.clear()
        async with connected(made) as client:
            client.send(query(REGISTRY))
            assert addresses(await client.receive()) == ["10.94.205.198"]


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Have the kernel refuse this process every new descriptor."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_without_descriptors_it_neither_spins_nor_stops_for_good() -> None:
    async with tcp_world() as made, connected(made) as before:
        before.send(query(REGISTRY))
        await before.receive()
        with socket.socket() as client, socket.socket() as other:
            client.setblocking(False)
            other.setblocking(False)
            with no_descriptor_left():
                assert client.connect_ex(made.listener.address) in IN_PROGRESS
                await until(lambda: made.listener._pause is not None)
                # Who is connected is served meanwhile.
                before.send(query(REGISTRY))
                assert addresses(await before.receive()) == ["10.94.205.198"]
                # Nobody is taken, and nobody looks; the second one waits in the kernel too.
                assert other.connect_ex(made.listener.address) in IN_PROGRESS
                served = made.ready.served
                before.send(query(REGISTRY))
                await before.receive()
                assert made.ready.served == served + 1
            await until(lambda: len(made.connections) == 3)
            assert made.listener._pause is None


async def test_closing_while_there_are_no_descriptors() -> None:
    async with tcp_world() as made:
        with socket.socket() as client:
            client.setblocking(False)
            with no_descriptor_left():
                client.connect_ex(made.listener.address)
                await until(lambda: made.listener._pause is not None)
            await made.listener.close()
            await made.listener.close()


async def test_idle_clients_are_looked_for_only_while_there_are_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dnsproxy.net.connection.IDLE_SECONDS", 0.05)
    async with tcp_world() as made:
        for _ in range(2):
            assert made.listener._sweep is None
            async with connected(made) as client:
                await until(lambda: made.listener._sweep is not None)
                assert await client.closed()
            await until(lambda: made.listener._sweep is None)


async def test_closing_cuts_connections_and_frees_the_port() -> None:
    async with tcp_world() as made, connected(made) as client:
        client.send(query(REGISTRY))
        await client.receive()
        host, port = made.listener.address
        await made.listener.close()
        assert await client.closed()
        again = TcpListener(made.engine, made.forwarder, Places(1, 1))
        await again.open(host, port)
        await again.close()


async def test_closing_while_answers_are_awaited() -> None:
    async with tcp_world(silence) as made, connected(made) as client:
        client.send(query("www.example."))
        await until(lambda: made.upstream.asked)
        await made.listener.close()
        with pytest.raises(ConnectionResetError):
            await client.receive()
        made.respond_all()
        await until(lambda: not made.engine.in_flight)


async def test_an_address_that_cannot_be_bound_is_one_line() -> None:
    async with tcp_world() as made:
        port = made.listener.address[1]
        second = TcpListener(made.engine, made.forwarder, Places(1, 1))
        with pytest.raises(StartError, match=f"tcp 127.0.0.1 port {port}: Address already in use"):
            await second.open("127.0.0.1", port)
        with pytest.raises(StartError, match="not listening"):
            _ = second.address
        await second.close()


async def test_p17_one_client_does_not_take_all_places() -> None:
    async with tcp_world(max_per_client=2) as made, connected(made) as first, connected(made) as second:
        for client in (first, second):
            client.send(query(REGISTRY, ident=1))
            assert await client.idents(1) == [1]
        async with connected(made) as third:
            assert await third.closed()
        assert made.engine.stats.drops == {"tcp_per_client": 1}


@pytest.mark.parametrize("name", [REGISTRY, "www.example."])
async def test_p17_who_asks_is_told_how_long_a_connection_may_idle(name: str) -> None:
    asked = query(name, use_edns=0, options=[dns.edns.GenericOption(dns.edns.OptionType.make(11), b"")])
    async with tcp_world() as made, connected(made) as client:
        client.send(asked)
        assert options.keepalive_told(await client.receive()) == 10.0
        client.send(query(name, use_edns=0))
        assert options.keepalive_told(await client.receive()) is None


async def test_who_waits_to_be_accepted_is_served_after_the_end_of_listening() -> None:
    async with tcp_world() as made:
        with socket.create_connection(made.listener.address) as client:
            client.sendall(framed(query(REGISTRY)))
            host, port = made.listener.address
            made.listener.finish()
            made.listener.finish()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, port))
            await until(lambda: made.engine.stats_now().requests)
            client.settimeout(10)
            assert addresses(client.recv(4096)[2:]) == ["10.94.205.198"]


async def test_who_is_busy() -> None:
    async with tcp_world(silence) as made, connected(made) as client:
        client.send(query(REGISTRY))
        await client.receive()
        now = monotonic()
        assert not made.listener.is_busy(now + 1.0)
        assert made.listener.is_busy(now - 10.0), "it has asked since"
        client.send(query("www.example."))
        await until(lambda: made.upstream.asked)
        assert made.listener.is_busy(monotonic() + 1.0), "it waits"
        made.respond_all()
        await client.receive()
        assert not made.listener.is_busy(monotonic() + 1.0)


async def test_the_end_of_a_quiet_connection_is_no_reset() -> None:
    async with tcp_world() as made, connected(made) as client:
        client.send(query(REGISTRY))
        await client.receive()
        await made.listener.close()
        with pytest.raises(EOFError):
            await client.receive()


async def test_connections_follow_another_engine() -> None:
    async with tcp_world() as made, connected(made) as client:
        client.send(query(REGISTRY))
        await client.receive()
        other = engine(hangzhou(), upstreams=list(made.engine.upstreams()))
        made.listener.refit(other, made.forwarder)
        client.send(query(REGISTRY))
        await client.receive()
        assert other.stats_now().requests == {("tcp", "A"): 1}
