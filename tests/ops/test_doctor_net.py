from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsproxy.errors import StartError
from dnsproxy.ops.doctor_net import connect, get, handshake, kernel_route, tls_context
from dnsproxy.ops.doctor_services import Reached
from tests.fakes.registry import AUTH, REGISTRY, FakeRegistry

LOOPBACK = "127.0.0.1"
SECONDS = 5.0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeRegistry]:
    with FakeRegistry(tmp_path) as made:
        yield made


@pytest.fixture
def closed() -> Iterator[int]:
    """A port that nobody listens on, kept from others."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        yield sock.getsockname()[1]


def test_the_kernel_is_asked_without_a_packet() -> None:
    assert kernel_route(LOOPBACK) == (None, LOOPBACK)
    # No socket is connected to the wildcard range's broadcast without leave.
    error, source = kernel_route("255.255.255.255")
    assert (error, source) == ("permission denied", None)


async def test_tcp(registry: FakeRegistry, closed: int) -> None:
    assert await connect(LOOPBACK, registry.port, SECONDS) == Reached(LOOPBACK)
    assert await connect(LOOPBACK, closed, SECONDS) == Reached(LOOPBACK, "connection refused")


async def test_a_peer_that_accepts_and_says_nothing() -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        port = silent.getsockname()[1]
        context = tls_context(None, verify=True)
        reached = await handshake(LOOPBACK, port, REGISTRY, context, 0.2)
        assert reached.error == "no answer within 0.2 s"
        reply = await get(f"https://{REGISTRY}:{port}/", LOOPBACK, context, 0.2)
        assert reply.error == "no answer within 0.2 s"


async def test_certificates(registry: FakeRegistry) -> None:
    trusting = tls_context(registry.authority.file, verify=True)
    good = await handshake(LOOPBACK, registry.port, f"{REGISTRY}.", trusting, SECONDS)
    assert good.error is None
    assert good.detail.startswith("valid until ")
    other = await handshake(LOOPBACK, registry.port, "other.example.", trusting, SECONDS)
    assert "other.example" in str(other.error)
    strange = await handshake(LOOPBACK, registry.port, REGISTRY, tls_context(None, verify=True), SECONDS)
    assert "unable to get local issuer certificate" in str(strange.error)
    lax = await handshake(LOOPBACK, registry.port, "x.example", tls_context(None, verify=False), SECONDS)
    assert lax.error is None


async def test_http(registry: FakeRegistry) -> None:
    trusting = tls_context(registry.authority.file, verify=True)
    reply = await get(f"https://{REGISTRY}:{registry.port}/v2/", LOOPBACK, trusting, SECONDS)
    assert (reply.status, reply.error) == (401, None)
    assert reply.challenges == (f'Bearer realm="{registry.realm}",service="pull.example"',)
    token = await get(f"https://{AUTH}:{registry.port}/auth?service=a%3Ab", LOOPBACK, trusting, SECONDS)
    assert token.body == b'{"token": "anonymous"}'
    assert registry.asked == [(REGISTRY, "/v2/"), (AUTH, "/auth?service=a%3Ab")]
    strange = await get(
        f"https://{REGISTRY}:{registry.port}/", LOOPBACK, tls_context(None, verify=True), SECONDS
    )
    assert "issuer certificate" in str(strange.error)


async def test_http_at_a_closed_port(closed: int) -> None:
    context = tls_context(None, verify=True)
    reply = await get(f"https://{REGISTRY}:{closed}/", LOOPBACK, context, SECONDS)
    assert (reply.error, reply.seen) == ("connection refused", "connection refused")


async def test_what_is_not_http(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        import threading  # noqa: PLC0415 - one use

        def talk() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"SSH-2.0-x\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        reply = await get(
            f"http://{REGISTRY}:{server.getsockname()[1]}/", LOOPBACK, tls_context(None, verify=True), SECONDS
        )
        thread.join()
    assert reply.error is not None


def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"learn\.verify\.ca_file: .*none\.pem: no such file"):
        tls_context(tmp_path / "none.pem", verify=True)
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(StartError, match=r"junk\.pem"):
        tls_context(tmp_path / "junk.pem", verify=True)
