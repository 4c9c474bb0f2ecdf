"""Load balancers name their clients by PROXY protocol, over UDP, TCP and TLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import dns.rcode
import pytest

from dnsproxy.core.access import AccessList
from dnsproxy.core.attempt import Limits
from dnsproxy.core.engine import Engine
from dnsproxy.core.features import Features
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.upstreams import Upstream
from dnsproxy.errors import DropReason
from dnsproxy.net import connection, datagrams, tls
from dnsproxy.net.msghdr import BATCH
from dnsproxy.net.udp import UdpListener
from dnsproxy.net.upstream import Forwarder
from dnsproxy.net.watch import Watch
from dnsproxy.net.watched import WatchedUdpListener
from tests.certificates import make_certificate
from tests.fakes.encrypted import NAME, DotPeer, Http2Peer, TlsWorld, dot, tls_world
from tests.fakes.forwarding import respond
from tests.fakes.proxy_header import (
    BALANCER,
    CLIENT,
    LOCAL,
    PORT,
    PROXY,
    SIGNATURE,
    STRANGER,
    header,
    raw_header,
)
from tests.fakes.tcp import TcpClient, TcpWorld, connected, framed, tcp_world
from tests.fakes.upstream import Client, FakeUpstream, Hook, silence, until
from tests.fakes.writers import watched
from tests.messages import REGISTRY, addresses, engine, hangzhou, query, read

ALLOW = ("127.0.0.0/8", "198.51.100.0/24", "2001:db8::/32")
PACKED = ip_address(CLIENT).packed
NO_HEADERS = [b"", b"x", query(REGISTRY), SIGNATURE, header(vectors=bytes(500)) + query(REGISTRY)]


def features(*ranges: str) -> Features:
    return Features(proxies=AccessList(map(ip_network, ranges)))


PROXIED = features(f"{BALANCER}/32")


@pytest.fixture(params=["batch", "plain"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(datagrams, "load_batch_calls", lambda: None)


# -- UDP


class UdpWorld:
    """A listener, what stands behind it, and sockets of a load balancer and of a client of its own."""

    def __init__(
        self, made: Engine, listener: UdpListener, upstream: FakeUpstream, balancer: Client, direct: Client
    ) -> None:
        self.engine = made
        self.listener = listener
        self.upstream = upstream
        self.balancer = balancer
        self.direct = direct

    @property
    def drops(self) -> dict[str, int]:
        return dict(self.engine.stats.drops)


@asynccontextmanager
async def udp_world(
    hook: Hook = respond,
    *,
    allow: Sequence[str] = ALLOW,
    used: Features = PROXIED,
    limiter: RateLimiter | None = None,
    watch: Watch | None = None,
) -> AsyncIterator[UdpWorld]:
    async with FakeUpstream(hook) as upstream:
        made = engine(
            hangzhou(),
            upstreams=[Upstream("up", upstream.address)],
            allow=allow,
            features=used,
            limiter=limiter,
            limits=Limits(30, 60),
        )
        forwarder = Forwarder(made)
        listener = (
            UdpListener(made, forwarder, "127.0.0.1", 0)
            if watch is None
            else WatchedUdpListener(made, forwarder, "127.0.0.1", 0, watch)
        )
        port = listener.address[1]
        try:
            with Client("127.0.0.1", port, BALANCER) as balancer, Client("127.0.0.1", port) as direct:
                yield UdpWorld(made, listener, upstream, balancer, direct)
        finally:
            listener.close()
            forwarder.close()


@pytest.mark.usefixtures("kind")
async def test_clients_with_and_without_a_load_balancer_are_answered_over_udp() -> None:
    async with udp_world() as made:
        for client in (CLIENT, "2001:db8::7", f"::ffff:{CLIENT}"):
            for name, address in ((REGISTRY, "10.94.205.198"), ("www.example.", "192.0.2.1")):
                response = await made.balancer.ask(header(client) + query(name))
                assert addresses(response) == [address]
                assert addresses(await made.direct.ask(query(name))) == [address]
        assert made.drops == {}


@pytest.mark.usefixtures("kind")
async def test_the_access_list_goes_by_the_client_that_is_named() -> None:
    async with udp_world() as made:
        response = await made.balancer.ask(header(STRANGER) + query(REGISTRY))
        assert read(response).rcode() == dns.rcode.REFUSED
        assert made.drops == {DropReason.REFUSED_CLIENT: 1}


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("data", [header() + query(REGISTRY), *NO_HEADERS])
async def test_p43_the_access_list_is_checked_for_the_load_balancer_before_its_header(data: bytes) -> None:
    async with udp_world(allow=["198.51.100.0/24", "127.0.0.1/32"]) as made:
        made.balancer.send(data)
        # Both wait in one queue.
        assert addresses(await made.direct.ask(query(REGISTRY)))
        await until(lambda: made.drops)
        assert made.drops == {DropReason.REFUSED_CLIENT: 1}


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("data", NO_HEADERS)
async def test_a_datagram_of_a_load_balancer_without_a_header_is_dropped(data: bytes) -> None:
    async with udp_world() as made:
        made.balancer.send(data)
        assert (await made.balancer.ask(header() + query(REGISTRY, ident=77)))[:2] == b"\0\x4d"
        assert made.drops == {DropReason.PROXY_HEADER: 1}


@pytest.mark.usefixtures("kind")
async def test_a_header_from_outside_the_ranges_is_no_header() -> None:
    async with udp_world() as made:
        # By its bytes it is a message with opcode 1.
        response = await made.direct.ask(header(CLIENT) + query(REGISTRY))
        assert read(response).rcode() == dns.rcode.NOTIMP
        assert response[:2] == SIGNATURE[:2]
        assert made.drops == {}


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("start", [raw_header(LOCAL, 0, b""), raw_header(PROXY, 0, b"abc")])
async def test_without_an_address_the_load_balancer_itself_is_the_client(start: bytes) -> None:
    async with udp_world(allow=[f"{BALANCER}/32"]) as made:
        assert addresses(await made.balancer.ask(start + query(REGISTRY)))
        assert made.drops == {}


@pytest.mark.usefixtures("kind")
async def test_every_response_of_a_mixed_batch_goes_where_its_query_came_from() -> None:
    async with udp_world() as made:
        for ident in range(150):
            name = REGISTRY if ident % 4 else f"n{ident}.example."
            made.balancer.send(header(CLIENT if ident % 2 else STRANGER) + query(name, ident=ident))
            made.balancer.send(query(name, ident=1000 + ident))  # no header
            if ident % 3 == 0:
                made.direct.send(query(name, ident=2000 + ident))
        responses = [await made.balancer.receive() for _ in range(150)]
        for response in responses:
            message = read(response)
            assert (message.rcode() == dns.rcode.REFUSED) == (message.id % 2 == 0)
        assert sorted(read(response).id for response in responses) == list(range(150))
        direct = sorted([read(await made.direct.receive()).id for _ in range(50)])
        assert direct == list(range(2000, 2150, 3))
        assert made.drops == {DropReason.PROXY_HEADER: 150, DropReason.REFUSED_CLIENT: 75}


@pytest.mark.usefixtures("kind")
async def test_what_waits_behind_batches_without_headers_is_answered_at_the_end() -> None:
    async with udp_world() as made:
        for _ in range(2 * BATCH):
            made.balancer.send(b"no header")
        made.balancer.send(header() + query(REGISTRY))
        made.listener.finish()
        assert addresses(await made.balancer.receive())


@pytest.mark.usefixtures("kind")
async def test_the_rate_limit_is_of_the_client_that_is_named() -> None:
    async with udp_world(limiter=RateLimiter(1)) as made:
        for _ in range(40):
            made.balancer.send(header() + query(REGISTRY))
        await until(lambda: made.drops.get(DropReason.RATE_LIMITED, 0) > 20)
        other = await made.balancer.ask(header("198.51.100.8") + query(REGISTRY, ident=999))
        while read(other).id != 999:  # answers of the first client
            other = await made.balancer.receive()
        assert addresses(other)


@pytest.mark.usefixtures("kind")
async def test_a_copy_of_a_query_is_one_of_the_same_client() -> None:
    async with udp_world(silence) as made:
        for client, port in ((CLIENT, 1), (CLIENT, 1), (CLIENT, 2), ("198.51.100.8", 1)):
            made.balancer.send(header(client, port) + query("www.example."))
        await until(lambda: made.drops == {DropReason.DUPLICATE: 1} and made.upstream.asked)
        (asked,) = made.upstream.asked
        made.upstream.send(respond(asked), asked.peer)
        for _ in range(3):
            assert addresses(await made.balancer.receive()) == ["192.0.2.1"]


@pytest.mark.usefixtures("kind")
async def test_the_log_has_the_client_that_is_named_over_udp() -> None:
    watch, kept = watched()
    async with udp_world(watch=watch) as made:
        for name in (REGISTRY, "www.example."):
            await made.balancer.ask(header() + query(name))
        await made.balancer.ask(raw_header(LOCAL, 0, b"") + query(REGISTRY))
        own = made.balancer.sock.getsockname()[1]
        await until(lambda: len(kept.seen) == 3)
    assert [(seen.client, seen.client_port) for seen in kept.seen] == [
        *[(PACKED, PORT)] * 2,
        (ip_address(BALANCER).packed, own),
    ]
    assert [seen.query for seen in kept.seen] == [query(REGISTRY), query("www.example."), query(REGISTRY)]


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("is_watched", [False, True])
async def test_a_reload_turns_headers_on_and_off_while_queries_wait(is_watched: bool) -> None:
    watch, kept = watched()
    async with udp_world(silence, used=Features(), watch=watch if is_watched else None) as made:
        plain, batch = made.listener._datagrams, made.listener._batch
        made.balancer.send(query("www.example.", ident=1))
        await until(lambda: len(made.upstream.asked) == 1)

        def refit(used: Features) -> tuple[Engine, Forwarder]:
            other = engine(
                hangzhou(), upstreams=[Upstream("up", made.upstream.address)], features=used, allow=ALLOW
            )
            forwarder = Forwarder(other)
            made.listener.refit(other, forwarder)
            return other, forwarder

        other, first = refit(PROXIED)
        made.balancer.send(header() + query("www.example.", ident=2))
        await until(lambda: len(made.upstream.asked) == 2)
        made.balancer.send(query("www.example.", ident=3))
        await until(lambda: other.stats.drops == {DropReason.PROXY_HEADER: 1})
        _, second = refit(Features())
        made.balancer.send(query("www.example.", ident=4))
        await until(lambda: len(made.upstream.asked) == 3)
        for asked in made.upstream.asked:
            made.upstream.send(respond(asked), asked.peer)
        assert sorted([read(await made.balancer.receive()).id for _ in range(3)]) == [1, 2, 4]
        # As if there had never been any.
        assert made.listener._datagrams is plain
        assert made.listener._batch is batch
        assert len(kept.seen) == (3 if is_watched else 0)
        first.close()
        second.close()


async def test_without_ranges_messages_are_read_as_they_were_before() -> None:
    async with udp_world(used=Features()) as made:
        assert type(made.listener._datagrams).__name__ == "BatchSocket"
        assert made.listener._batch is made.listener._datagrams


# -- TCP


@asynccontextmanager
async def balancer(to: TcpWorld | TlsWorld, *sent: bytes) -> AsyncIterator[TcpClient]:
    """A connection of the load balancer that begins with ``sent``, each in a segment of its own."""
    reader, writer = await asyncio.open_connection(*to.listener.address, local_addr=(BALANCER, 0))
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        for data in sent:
            writer.write(data)
            await asyncio.sleep(0)
        yield TcpClient(reader, writer)
    finally:
        writer.transport.abort()


async def test_clients_with_and_without_a_load_balancer_are_answered_over_tcp() -> None:
    async with tcp_world(features=PROXIED, allow=ALLOW) as made:
        whole = header(tcp=True, vectors=bytes(100)) + framed(query(REGISTRY), query("www.example."))
        for sent in ([whole], [bytes([byte]) for byte in whole]):
            async with balancer(made, *sent) as client, connected(made) as direct:
                direct.send(query(REGISTRY))
                assert addresses(await direct.receive()) == ["10.94.205.198"]
                found = [addresses(await client.receive()) for _ in range(2)]
                assert sorted(found) == [["10.94.205.198"], ["192.0.2.1"]]
                assert {made.source for made in made.connections} == {PACKED, b"\x7f\0\0\1"}
                client.send(query(REGISTRY))
                assert addresses(await client.receive())
        assert not made.engine.stats.drops
        await made.all_gone()
        assert made.listener._places.taken == 0


@pytest.mark.parametrize(
    "sent",
    [framed(query(REGISTRY)), b"\r\n\r\x0b", raw_header(0x11, 0x11, bytes(12)), header(vectors=bytes(500))],
)
async def test_a_connection_of_a_load_balancer_without_a_header_is_closed(sent: bytes) -> None:
    async with tcp_world(features=PROXIED, allow=ALLOW) as made, balancer(made, sent) as client:
        assert await client.closed()
        assert made.engine.stats.drops == {DropReason.PROXY_HEADER: 1}
        await until(lambda: made.listener._places.taken == 0)


async def test_a_header_that_ends_early_or_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with tcp_world(features=PROXIED, allow=ALLOW) as made:
        async with balancer(made, header()[:-1]) as client:
            client.writer.write_eof()
            assert await client.closed()
        assert made.engine.stats.drops == {DropReason.PROXY_HEADER: 1}
        async with balancer(made) as client:
            await until(lambda: made.listener._greetings)
            client.reset()
            await until(lambda: made.engine.stats.drops == {DropReason.PROXY_HEADER: 2})
        monkeypatch.setattr(connection, "IDLE_SECONDS", 0.05)
        async with balancer(made, header()[:-1]) as client:
            assert await client.closed()
        assert made.engine.stats.drops == {DropReason.PROXY_HEADER: 3}
        await until(lambda: made.listener._places.taken == 0)
        assert not made.listener.has_clients


async def test_p43_the_access_list_is_checked_for_load_balancer_and_client_over_tcp() -> None:
    async with tcp_world(features=PROXIED, allow=ALLOW) as made, balancer(made, header(STRANGER)) as client:
        assert await client.closed()
        assert made.engine.stats.drops == {DropReason.REFUSED_CLIENT: 1}
        await until(lambda: made.listener._places.taken == 0)
    async with tcp_world(features=PROXIED, allow=["198.51.100.0/24"]) as made, balancer(made) as client:
        assert await client.closed()
        assert made.engine.stats.drops == {DropReason.REFUSED_CLIENT: 1}


async def test_a_header_over_tcp_from_outside_the_ranges_is_no_header() -> None:
    async with tcp_world(features=PROXIED, allow=ALLOW) as made, connected(made) as client:
        client.writer.write(header() + framed(query(REGISTRY)))
        # By its bytes it is the length of a message of 3,338 bytes.
        client.writer.write(bytes(3340 - len(header() + framed(query(REGISTRY)))))
        assert (await client.receive())[:2] == SIGNATURE[2:4]
        assert made.engine.stats.drops == {}


async def test_without_an_address_the_load_balancer_itself_is_the_client_over_tcp() -> None:
    start = raw_header(LOCAL, 0, b"")
    async with (
        tcp_world(features=PROXIED, allow=[f"{BALANCER}/32"], max_per_client=1) as made,
        balancer(made, start + framed(query(REGISTRY))) as client,
    ):
        assert addresses(await client.receive())
        assert [made.source for made in made.connections] == [ip_address(BALANCER).packed]


async def test_p43_places_are_of_the_client_that_is_named() -> None:
    async with tcp_world(features=PROXIED, allow=ALLOW, max_per_client=1) as made:

        def begin(client: str) -> Any:
            return balancer(made, header(client) + framed(query(REGISTRY)))

        async with begin(CLIENT) as one, begin("198.51.100.8") as other:
            assert addresses(await one.receive())
            assert addresses(await other.receive())
            async with begin(CLIENT) as third:
                assert await third.closed()
            assert made.engine.stats.drops == {DropReason.TCP_PER_CLIENT: 1}
        async with balancer(made, raw_header(LOCAL, 0, b"")) as one:
            await until(lambda: len(made.connections) == 1)
            async with balancer(made, raw_header(LOCAL, 0, b"")) as other:
                assert await other.closed()
            assert made.engine.stats.drops == {DropReason.TCP_PER_CLIENT: 2}


async def test_p43_many_connections_of_a_load_balancer_may_wait_for_their_headers() -> None:
    async with tcp_world(features=PROXIED, allow=ALLOW, max_per_client=1, max_clients=8) as made:
        async with AsyncExitStack() as stack:
            for _ in range(9):
                await stack.enter_async_context(balancer(made))
            await until(lambda: made.engine.stats.drops == {DropReason.TCP_CLIENTS: 1})
            assert made.listener._places.taken == 8
            # The one that waits longest makes room for another client.
            async with connected(made) as direct:
                direct.send(query(REGISTRY))
                assert addresses(await direct.receive())
        await until(lambda: made.listener._places.taken == 0)


async def test_p43_a_client_that_is_named_makes_room_for_another() -> None:
    async with tcp_world(features=PROXIED, allow=ALLOW, max_clients=3) as made:
        start = header() + framed(query(REGISTRY))
        async with balancer(made, start) as one, balancer(made, start) as two, balancer(made, start) as three:
            for client in (one, two, three):
                assert addresses(await client.receive())
            async with balancer(made, header("198.51.100.8") + framed(query(REGISTRY))) as other:
                assert addresses(await other.receive())
                assert made.engine.stats.drops == {DropReason.TCP_DISPLACED: 1}
                assert made.listener._places.taken == 3


async def test_the_log_has_the_client_that_is_named_over_tcp() -> None:
    watch, kept = watched()
    start = header() + framed(query(REGISTRY))
    async with tcp_world(features=PROXIED, allow=ALLOW, watch=watch) as made, balancer(made, start) as client:
        await client.receive()
        await until(lambda: kept.seen)
    assert [(seen.client, seen.client_port) for seen in kept.seen] == [(PACKED, PORT)]


@pytest.mark.parametrize(
    ("ranges", "allow", "stays"),
    [
        ([BALANCER], ALLOW, True),
        # The load balancer, or its client, may not connect any more.
        ([BALANCER], ["198.51.100.0/24"], False),
        ([BALANCER], ["127.0.0.0/8"], False),
        # It may name no client any more.
        (["127.0.0.99"], ALLOW, False),
        ([], ALLOW, False),
    ],
)
async def test_a_reload_closes_connections_that_would_not_be_accepted(
    ranges: list[str], allow: Sequence[str], *, stays: bool
) -> None:
    start = header() + framed(query(REGISTRY))
    async with tcp_world(features=PROXIED, allow=ALLOW) as made, balancer(made, start) as client:
        await client.receive()
        used = features(*(f"{text}/32" for text in ranges)) if ranges else Features()
        made.listener.refit(engine(hangzhou(), features=used, allow=allow), made.forwarder)
        if stays:
            client.send(query(REGISTRY))
            assert addresses(await client.receive())
        else:
            assert await client.closed()


async def test_the_end_closes_connections_whose_header_has_not_come() -> None:
    async with tcp_world(features=PROXIED, allow=ALLOW) as made, balancer(made) as client:
        await until(lambda: made.listener._greetings)
        assert made.listener.has_clients
        assert made.listener.is_busy(float("inf"))
        await made.listener.close()
        assert await client.closed()
        assert not made.listener._greetings
        assert made.listener._places.taken == 0


# -- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path, NAME)


@asynccontextmanager
async def encrypted(
    to: TlsWorld, *protocols: str, outside: bytes = b"", inside: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of the load balancer with a header in front of the handshake, or after it."""
    sock = socket.socket()
    sock.bind((BALANCER, 0))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, to.listener.address)
    await loop.sock_sendall(sock, outside)
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=to.context(*protocols), server_hostname=NAME
    )
    writer.write(inside)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("place", ["outside", "inside"])
async def test_clients_are_answered_over_tls(certificate: Path, place: str) -> None:
    watch, kept = watched()
    async with tls_world(certificate, features=PROXIED, allow=ALLOW, watch=watch) as made:
        start: dict[str, Any] = {place: header(tcp=True)}
        async with encrypted(made, **start) as streams, dot(made) as direct:
            client = DotPeer(*streams)
            for name in (REGISTRY, "www.example."):
                client.send(query(name))
                assert addresses(await client.receive())
            direct.send(query(REGISTRY))
            assert addresses(await direct.receive())
        async with encrypted(made, "h2", **start) as streams:
            http = Http2Peer(*streams, None)
            assert (await http.reply(http.request(query(REGISTRY)))).status == 200
        await until(lambda: len(kept.seen) == 4)
        assert not made.engine.stats.drops
        await made.all_gone()
    named = [(seen.protocol, seen.client_port) for seen in kept.seen if seen.client == PACKED]
    assert named == [("tls", PORT), ("tls", PORT), ("https", PORT)]


@pytest.mark.parametrize("whole", [True, False])
async def test_a_header_after_the_handshake_comes_in_any_pieces(certificate: Path, *, whole: bool) -> None:
    data = header(tcp=True, vectors=bytes(60)) + framed(query(REGISTRY), query(REGISTRY))
    async with tls_world(certificate, features=PROXIED, allow=ALLOW) as made, encrypted(made) as streams:
        client = DotPeer(*streams)
        for piece in [data] if whole else [data[at : at + 1] for at in range(len(data))]:
            client.writer.write(piece)  # a record each
            await client.writer.drain()
        for _ in range(2):
            assert addresses(await client.receive()) == ["10.94.205.198"]


@pytest.mark.parametrize("place", ["outside", "inside"])
async def test_p43_the_access_list_goes_by_the_client_that_is_named_over_tls(
    certificate: Path, place: str
) -> None:
    async with tls_world(certificate, features=PROXIED, allow=ALLOW) as made:
        start: dict[str, Any] = {place: header(STRANGER)}
        if place == "outside":
            with pytest.raises(OSError, match=r"."):
                async with encrypted(made, **start):
                    pass
        else:
            async with encrypted(made, **start) as streams:
                assert await DotPeer(*streams).closed()
        assert made.engine.stats.drops == {DropReason.REFUSED_CLIENT: 1}
        await made.all_gone()


async def test_a_tls_connection_of_a_load_balancer_without_a_header_is_closed(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tls_world(certificate, features=PROXIED, allow=ALLOW) as made:
        drops = made.engine.stats.drops
        async with encrypted(made, inside=framed(query(REGISTRY))) as streams:
            assert await DotPeer(*streams).closed()
        assert drops == {DropReason.PROXY_HEADER: 1}
        async with balancer(made, framed(query(REGISTRY))) as client:
            assert await client.closed()
        assert drops == {DropReason.PROXY_HEADER: 2}
        async with encrypted(made, inside=header()[:20]):
            await until(lambda: made.listener._handshakes)
        await until(lambda: drops == {DropReason.PROXY_HEADER: 3})
        monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.2)
        async with balancer(made) as client:
            assert await client.closed()
        assert drops == {DropReason.PROXY_HEADER: 4}
        async with balancer(made, header()) as client:
            assert await client.closed()
        assert drops == {DropReason.PROXY_HEADER: 4, DropReason.TLS_HANDSHAKE: 1}
        # Enough for a handshake.
        monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 2.0)
        async with encrypted(made) as streams:
            assert await DotPeer(*streams).closed()
        assert drops == {DropReason.PROXY_HEADER: 5, DropReason.TLS_HANDSHAKE: 1}
        await made.all_gone()


async def test_p43_places_are_of_the_client_that_is_named_over_tls(certificate: Path) -> None:
    async with tls_world(certificate, features=PROXIED, allow=ALLOW, max_per_client=1) as made:
        async with encrypted(made, inside=header() + framed(query(REGISTRY))) as first:
            assert addresses(await DotPeer(*first).receive())
            async with encrypted(made, outside=header("198.51.100.8")) as other:
                client = DotPeer(*other)
                client.send(query(REGISTRY))
                assert addresses(await client.receive())
                async with encrypted(made, inside=header()) as third:
                    assert await DotPeer(*third).closed()
        assert made.engine.stats.drops == {DropReason.TCP_PER_CLIENT: 1}
        await made.all_gone()


async def test_a_reload_closes_encrypted_connections_that_would_not_be_accepted(certificate: Path) -> None:
    async with (
        tls_world(certificate, features=PROXIED, allow=ALLOW) as made,
        encrypted(made, inside=header() + framed(query(REGISTRY))) as streams,
    ):
        client = DotPeer(*streams)
        await client.receive()
        other = engine(hangzhou(), allow=ALLOW)
        made.listener.refit(other, made.listener.forwarder, None, made.listener.path)
        assert await client.closed()
