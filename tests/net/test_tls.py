from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dnsproxy import supervise
from dnsproxy.certificate import Certificate
from dnsproxy.errors import DropReason, StartError
from dnsproxy.net import encrypted, tls
from tests.certificates import make_certificate
from tests.fakes.encrypted import NAME, dot, http2, tls_world
from tests.fakes.tcp import framed, has_ended, idle
from tests.fakes.upstream import until
from tests.messages import REGISTRY, addresses, engine, hangzhou, query


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path, NAME)


async def test_p17_both_kinds_of_clients_on_one_port(certificate: Path) -> None:
    async with tls_world(certificate) as made, dot(made) as one, http2(made) as other:
        one.send(query(REGISTRY))
        assert addresses(await one.receive()) == ["10.94.205.198"]
        assert (await other.reply(other.request(query(REGISTRY)))).status == 200
        assert made.engine.stats.encrypted == {"tls": 1, "https": 1}
        assert made.engine.stats_now().requests == {("tcp", "A"): 2}
        assert sorted(type(client).__name__ for client in made.clients) == ["DotClient", "Http2Client"]


async def test_p17_a_new_certificate_is_presented_to_the_next_client(
    certificate: Path, tmp_path: Path
) -> None:
    async with tls_world(certificate) as made, dot(made) as first:
        folder = tmp_path / "new"
        folder.mkdir()
        successor = make_certificate(folder, NAME)
        shutil.copyfile(successor, certificate)
        made.certificate = successor
        async with dot(made) as second:
            for client in (first, second):
                client.send(query(REGISTRY))
                assert addresses(await client.receive()) == ["10.94.205.198"]


async def test_p17_a_full_house_is_cut_and_a_place_is_free_again(certificate: Path) -> None:
    async with tls_world(certificate, max_clients=1) as made:
        async with dot(made) as first:
            first.send(query(REGISTRY))
            await first.receive()
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await made.connect()
            assert made.engine.stats.drops == {"tcp_clients": 1}
        await made.all_gone()
        async with dot(made) as second:
            second.send(query(REGISTRY))
            await second.receive()


async def test_p43_idle_connections_from_outside_the_access_list_keep_no_client_out(
    certificate: Path,
) -> None:
    async with tls_world(certificate, allow=["127.0.0.1/32"], max_clients=4) as made:
        with contextlib.ExitStack() as stack:
            outside = [
                stack.enter_context(idle(made.listener.address, f"127.0.0.{2 + number % 8}"))
                for number in range(64)
            ]
            async with dot(made) as client:
                client.send(query(REGISTRY))
                assert addresses(await client.receive()) == ["10.94.205.198"]
            await until(lambda: all(map(has_ended, outside)))
        assert made.engine.stats.drops == {DropReason.REFUSED_CLIENT: 64}
        await made.all_gone()


async def test_p43_handshakes_that_hang_make_room_for_another_client(certificate: Path) -> None:
    async with tls_world(certificate, max_clients=4) as made:
        with contextlib.ExitStack() as stack:
            hanging = [stack.enter_context(idle(made.listener.address, "127.0.0.2")) for _ in range(4)]
            await until(lambda: made.places.taken == 4)
            async with dot(made) as client:
                client.send(query(REGISTRY))
                assert addresses(await client.receive()) == ["10.94.205.198"]
                assert has_ended(hanging[0])
                assert made.engine.stats.drops == {DropReason.TCP_DISPLACED: 1}
                assert made.places.taken == 4
        await made.all_gone()


async def test_p43_a_handshake_is_displaced_before_its_first_step(certificate: Path) -> None:
    async with tls_world(certificate, max_clients=2) as made:
        with contextlib.ExitStack() as stack:
            pairs = [socket.socketpair() for _ in range(3)]
            for (ours, theirs), host in zip(pairs, ("127.0.0.2", "127.0.0.2", "127.0.0.3"), strict=True):
                ours.setblocking(False)
                stack.enter_context(theirs).setblocking(False)
                made.listener._admit(ours, host)
            await until(lambda: has_ended(pairs[0][1]))
            assert pairs[0][0].fileno() == -1
        await made.all_gone()


async def test_p43_a_reload_closes_connections_that_are_no_longer_allowed(certificate: Path) -> None:
    async with tls_world(certificate) as made, dot(made) as client:
        client.send(query(REGISTRY))
        await client.receive()
        forwarder, pair = made.listener.forwarder, Certificate(certificate, certificate)
        made.listener.refit(engine(allow=["10.0.0.0/8"]), forwarder, pair, "/dns-query")
        assert await client.closed()


async def test_p17_one_client_does_not_take_all_places(certificate: Path) -> None:
    async with tls_world(certificate, max_per_client=1) as made, dot(made):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await made.connect()
        assert made.engine.stats.drops == {"tcp_per_client": 1}


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.0\r\n\r\n", b"\0\x1d" + query(REGISTRY), b""])
async def test_p17_what_is_no_handshake_is_counted_and_leaves_nothing(certificate: Path, junk: bytes) -> None:
    async with tls_world(certificate) as made:
        reader, writer = await asyncio.open_connection(*made.listener.address)
        writer.write(junk)
        if not junk:
            writer.write_eof()
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        await until(lambda: made.engine.stats.drops)
        await made.all_gone()
        assert made.engine.stats.drops == {"tls_handshake": 1}
        writer.close()


async def test_p17_a_handshake_that_hangs_is_given_up(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.1)
    async with tls_world(certificate) as made:
        _, writer = await asyncio.open_connection(*made.listener.address)
        await until(lambda: made.engine.stats.drops == {"tls_handshake": 1})
        await made.all_gone()
        writer.close()


async def test_p17_old_tls_is_not_spoken(certificate: Path) -> None:
    async with tls_world(certificate) as made:
        context = made.context()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await asyncio.open_connection(*made.listener.address, ssl=context, server_hostname=NAME)
        await made.all_gone()


async def test_p17_idle_connections_are_closed(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encrypted, "IDLE_SECONDS", 0.1)
    async with tls_world(certificate) as made, dot(made) as one, http2(made) as other:
        one.send(query(REGISTRY))
        await one.receive()
        assert await one.closed()
        assert await other.ended()
        await made.all_gone()
        await until(lambda: made.listener._sweep is None)


async def test_closing_ends_what_is_connected_and_what_shakes_hands(certificate: Path) -> None:
    async with tls_world(certificate) as made, dot(made) as client:
        _, writer = await asyncio.open_connection(*made.listener.address)
        await until(lambda: made.listener._handshakes)
        await made.listener.close()
        assert await client.closed()
        await made.all_gone()
        writer.close()


async def test_the_port_taken_is_told(certificate: Path) -> None:
    async with tls_world(certificate) as made:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            again = tls.TlsListener(
                made.engine, made.listener.forwarder, made.places, made.listener._certificate, "/q"
            )
            with pytest.raises(StartError, match=f"cannot listen on tls 127.0.0.1 port {port}"):
                await again.open("127.0.0.1", port)
            with pytest.raises(StartError, match="not listening"):
                _ = again.address


async def test_another_certificate_engine_and_path_without_listening_anew(
    certificate: Path, tmp_path: Path
) -> None:
    async with tls_world(certificate) as made, dot(made) as first:
        first.send(query(REGISTRY))
        await first.receive()
        folder = tmp_path / "new"
        folder.mkdir()
        made.certificate = make_certificate(folder, NAME)
        other = engine(hangzhou(), upstreams=list(made.engine.upstreams()))
        made.listener.refit(
            other, made.listener.forwarder, Certificate(made.certificate, made.certificate), "/other"
        )
        async with dot(made) as second, http2(made) as third:
            for client in (first, second):
                client.send(query(REGISTRY))
                await client.receive()
            assert (await third.reply(third.request(query(REGISTRY)))).status == 404
        assert other.stats_now().requests == {("tcp", "A"): 2}


async def test_who_waits_to_be_greeted_is_served_after_the_end_of_listening(certificate: Path) -> None:
    async with tls_world(certificate) as made, dot(made) as quiet:
        host, port = made.listener.address
        raw = socket.socket()
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (host, port))
        made.listener.finish()
        made.listener.finish()
        reader, writer = await asyncio.open_connection(sock=raw, ssl=made.context(), server_hostname=NAME)
        writer.write(framed(query(REGISTRY)))
        async with asyncio.timeout(10):
            await reader.readexactly(2)
        assert made.listener.is_busy(0.0)
        assert not made.listener.is_busy(float("inf"))
        writer.transport.abort()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))
        await made.listener.close()
        assert await quiet.closed()


async def test_accepting_continues_after_an_internal_error(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "FIRST_SECONDS", 0.001)
    async with tls_world(certificate) as made:
        with monkeypatch.context() as broken, capture_logs() as logs:
            broken.setattr(made.listener, "_admit", lambda *_: 1 / 0)
            _, writer = await asyncio.open_connection(*made.listener.address)
            await until(lambda: logs)
            writer.close()
        assert [(entry["event"], entry["task"]) for entry in logs] == [("task.failed", "TLS listener")]
        async with dot(made) as client:
            client.send(query(REGISTRY))
            assert addresses(await client.receive()) == ["10.94.205.198"]
