"""Queries leave from the configured address and interface, over every transport."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dnsproxy.core.upstreams import Secure, Source, Upstream
from dnsproxy.net.dial import Dialer
from dnsproxy.net.source_address import bind_source, refusal
from dnsproxy.net.stream import UPSTREAMS
from tests.certificates import make_certificate, server_context
from tests.fakes.forwarding import respond, world
from tests.fakes.https import FakeHttps
from tests.fakes.upstream import FakeUpstream
from tests.messages import addresses, query
from tests.net.test_upstream_https import respond as respond_over_https

# Addresses of loopback that nothing else uses, and one that no host has (RFC 5737).
MINE = "127.0.53.9"
ABSENT = "192.0.2.99"
SOURCE = Source(MINE)
NAME = "dns.example"


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_query_comes_from_the_source(*, tcp: bool) -> None:
    async with FakeUpstream(respond) as fake:
        upstream = Upstream("up", fake.address, tcp=tcp, source=SOURCE)
        async with world(upstream) as made:
            assert addresses((await made.ask(query("a.example.")))[0]) == ["192.0.2.1"]
            assert {(asked.peer[0], asked.tcp) for asked in fake.asked} == {(MINE, tcp)}


async def test_a_query_over_tls_comes_from_the_source(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, NAME)
    async with FakeUpstream(respond, context=server_context(certificate, "dot")) as fake:
        upstream = Upstream("up", fake.address, secure=Secure(NAME), source=SOURCE)
        async with world(upstream, dialer=Dialer([upstream], certificate)) as made:
            assert addresses((await made.ask(query("a.example.")))[0]) == ["192.0.2.1"]
            assert {asked.peer[0] for asked in fake.asked} == {MINE}


async def test_a_query_over_https_comes_from_the_source(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, NAME)
    async with FakeHttps(respond_over_https, server_context(certificate, "h2")) as fake:
        upstream = Upstream("up", fake.address, secure=Secure(NAME, "/dns-query"), source=SOURCE)
        async with world(upstream, dialer=Dialer([upstream], certificate)) as made:
            assert addresses((await made.ask(query("a.example.")))[0]) == ["192.0.2.1"]
            (link,) = made.links
            assert link.transport is not None
            assert link.transport.get_extra_info("sockname")[0] == MINE


@pytest.mark.parametrize("tcp", [False, True])
async def test_without_the_address_the_upstream_fails_and_the_next_is_asked(*, tcp: bool) -> None:
    async with FakeUpstream(respond) as fake:
        lost = Upstream("lost", fake.address, tcp=tcp, source=Source(ABSENT))
        async with world(lost, Upstream("up", fake.address)) as made:
            assert addresses((await made.ask(query("a.example.")))[0]) == ["192.0.2.1"]
            # The upstream is not to blame: nothing counts against it.
            assert lost.stats.failures == {}
            assert made.engine.stats.local_failures == {UPSTREAMS: 1}
            assert {asked.peer[0] for asked in fake.asked} == {"127.0.0.1"}


def test_each_family_has_its_own_address() -> None:
    source = Source(MINE, "::1")
    for family, expected in ((socket.AF_INET, MINE), (socket.AF_INET6, "::1")):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(family, kind) as sock:
                bind_source(sock, source)
                assert sock.getsockname()[0] == expected
    # A family without one is left to the routes.
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        bind_source(sock, Source(MINE))
        assert sock.getsockname()[:2] == ("::", 0)


def test_many_connections_share_one_port_of_the_source() -> None:
    with socket.socket() as sock:
        bind_source(sock, SOURCE)
        # Chosen at connect(2), not before.
        assert sock.getsockname() == (MINE, 0)


def test_the_interface_is_bound_to() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        bind_source(sock, Source(interface="lo"))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"


def test_what_cannot_be_used_is_said() -> None:
    assert refusal(SOURCE) is None
    assert refusal(Source(MINE, "", "lo")) is None
    assert refusal(Source(ABSENT)) == "Cannot assign requested address"
    assert refusal(Source(interface="absent0")) == "No such device"
