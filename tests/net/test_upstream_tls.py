from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dnsproxy.core import options
from dnsproxy.core.attempt import Failure
from dnsproxy.core.upstreams import Secure, Upstream
from dnsproxy.errors import StartError
from dnsproxy.net import channel
from dnsproxy.net.dial import Dialer
from dnsproxy.net.upstream_tls import client_context, name_failure
from tests.certificates import make_certificate, server_context
from tests.fakes.forwarding import World, respond, world
from tests.fakes.upstream import FakeUpstream
from tests.messages import addresses, query, read

NAME = "dns.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificates"), NAME, "127.0.0.1")


def secure(fake: FakeUpstream, name: str = NAME) -> Upstream:
    return Upstream("dot", fake.address, secure=Secure(name))


async def ask_often(made: World, fake: FakeUpstream, times: int) -> list[bool]:
    """Ask on ``times`` connections one after the other, and tell which resumed a session."""
    resumed = []
    for number in range(times):
        (response,) = await made.ask(query(f"n{number}.example."))
        assert addresses(response) == ["192.0.2.1"]
        resumed.append(fake.writers[0].get_extra_info("ssl_object").session_reused)
        await fake.hang_up()
    return resumed


@pytest.mark.parametrize("name", [NAME, "127.0.0.1"])
async def test_p17_a_name_or_address_that_the_certificate_is_for(certificate: Path, name: str) -> None:
    async with FakeUpstream(respond, context=server_context(certificate, "dot")) as fake:
        upstream = secure(fake, name)
        async with world(upstream, dialer=Dialer([upstream], certificate)) as made:
            for number in range(3):
                assert addresses((await made.ask(query(f"n{number}.example.")))[0]) == ["192.0.2.1"]
            assert fake.accepted == 1
            tls = fake.writers[0].get_extra_info("ssl_object")
            assert tls.selected_alpn_protocol() == "dot"
            assert {len(asked.data) % options.QUERY_BLOCK for asked in fake.asked} == {0}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_p17_sessions_are_resumed(certificate: Path, version: ssl.TLSVersion) -> None:
    context = server_context(certificate)
    context.maximum_version = version
    async with FakeUpstream(respond, context=context) as fake:
        upstream = secure(fake)
        async with world(upstream, dialer=Dialer([upstream], certificate)) as made:
            assert await ask_often(made, fake, 3) == [False, True, True]
            assert upstream.stats.failures == {}


async def test_p17_a_session_that_the_server_has_forgotten_is_no_failure(certificate: Path) -> None:
    context = server_context(certificate)
    context.options |= ssl.OP_NO_TICKET
    async with FakeUpstream(respond, context=context) as fake:
        upstream = secure(fake)
        async with world(upstream, dialer=Dialer([upstream], certificate)) as made:
            assert len(await ask_often(made, fake, 3)) == 3
            assert upstream.stats.failures == {}


@pytest.mark.parametrize(
    ("presented", "trusted", "name", "complaint"),
    [
        ((NAME,), True, "other.example", "Hostname mismatch"),
        ((NAME,), True, "127.0.0.2", "IP address mismatch"),
        (("*.example",), True, "a.b.example", "Hostname mismatch"),
        ((NAME,), False, NAME, "self-signed certificate"),
    ],
)
async def test_p17_a_certificate_that_is_not_to_be_trusted(
    tmp_path: Path,
    presented: tuple[str, ...],
    trusted: bool,
    name: str,
    complaint: str,
) -> None:
    path = make_certificate(tmp_path, *presented)
    other = make_certificate(tmp_path, "another.example")
    with capture_logs() as events:
        async with FakeUpstream(respond, context=server_context(path)) as fake:
            upstream = secure(fake, name)
            async with world(upstream, dialer=Dialer([upstream], path if trusted else other)) as made:
                (response,) = await made.ask(query("www.example.", use_edns=0))
                assert read(response).rcode() == 2
                assert read(response).options[0].to_wire() == b"\0\x17"
                assert upstream.stats.failures == {"certificate": 3}
                assert fake.asked == []
    told = str(events)
    assert complaint in told
    assert told.count("upstream.unreachable") == 1


async def test_p17_a_certificate_that_has_expired(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, NAME, days=-1)
    async with FakeUpstream(respond, context=server_context(path)) as fake:
        upstream = secure(fake)
        async with world(upstream, dialer=Dialer([upstream], path)) as made:
            assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
            assert upstream.stats.failures == {"certificate": 3}


async def test_p21_an_upstream_that_is_not_to_be_trusted_gives_way_to_the_next(
    tmp_path: Path, certificate: Path
) -> None:
    stranger = make_certificate(tmp_path, NAME)
    async with (
        FakeUpstream(respond, context=server_context(stranger)) as bad,
        FakeUpstream(respond, context=server_context(certificate)) as good,
    ):
        first, second = secure(bad), secure(good)
        async with world(first, second, dialer=Dialer([first, second], certificate)) as made:
            assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
            assert (first.stats.failures, second.stats.failures) == ({"certificate": 1}, {})


async def test_p17_a_server_that_speaks_no_tls(certificate: Path) -> None:
    async def shout(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 not what you think\r\n")
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    upstream = Upstream("mail", server.sockets[0].getsockname()[:2], secure=Secure(NAME))
    async with server, world(upstream, dialer=Dialer([upstream], certificate)) as made:
        assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
        assert upstream.stats.failures == {"tls": 3}


async def test_p17_a_handshake_that_hangs_is_given_up(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "CONNECT_SECONDS", 0.1)
    # The kernel takes connections, and nobody says a word.
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = Upstream("hung", server.getsockname()[:2], secure=Secure(NAME))
        async with world(upstream, dialer=Dialer([upstream], certificate)) as made:
            assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
            assert upstream.stats.failures == {"timeout": 3}


def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"forward.ca_file: .*none.pem: No such file"):
        client_context(tmp_path / "none.pem", ("dot",))
    (tmp_path / "empty.pem").touch()
    with pytest.raises(StartError, match="no usable certificate"):
        client_context(tmp_path / "empty.pem", ("dot",))


def test_old_tls_is_not_spoken() -> None:
    assert client_context(None, ("dot",)).minimum_version is ssl.TLSVersion.TLSv1_2


def test_failures_have_names() -> None:
    assert name_failure(ssl.SSLError(1, "x")) == (Failure.TLS, "TLS: x")
    assert name_failure(ConnectionRefusedError(111, "asyncio's own text")) == (
        Failure.NETWORK,
        "Connection refused",
    )
    assert name_failure(OSError("no address")) == (Failure.NETWORK, "no address")
    assert name_failure(EOFError()) == (Failure.NETWORK, "EOFError")
