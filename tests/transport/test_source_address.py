"""Queries and requests to sources leave from the configured address and interface, over every transport."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError

from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.trust import Trust
from dnsproxy.core.upstreams import Secure, Source, Upstream
from dnsproxy.embedded import EmbeddedHelpers
from dnsproxy.errors import FetchError
from dnsproxy.net.dial import Dialer
from dnsproxy.net.fetch import Fetched, Fetcher, Request
from dnsproxy.net.puller import SnapshotPuller
from dnsproxy.net.stream import UPSTREAMS
from dnsproxy.settings import Settings
from dnsproxy.settings.learning import LearnSettings
from dnsproxy.settings.sources import SourceSettings
from dnsproxy.transport.source_address import bind_source, refusal
from dnsproxy.trust import address_policy
from tests.certificates import make_certificate, server_context
from tests.fakes.etcd import KEY, Member, Store
from tests.fakes.etcd import source as etcd_source
from tests.fakes.forwarding import TC, respond, world
from tests.fakes.hooked_registry import Registry
from tests.fakes.https import FakeHttps
from tests.fakes.upstream import Asked, FakeUpstream, until
from tests.messages import addresses, query, read, reply_to
from tests.net.test_upstream_https import respond as respond_over_https
from tests.netns.authority import Authority

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


# -- sources of snapshots


def learning(folder: Path, url: str, **sections: Any) -> Settings:
    learn = {
        "sources": [{"url": url}],
        "trusted_keys": ["k"],
        "state_file": folder / "s",
        "source_address": MINE,
    }
    return Settings.model_validate({"learn": learn, **sections})


async def pull(settings: Settings) -> None:
    """Pull until the source has been tried."""
    trust = Trust.none()
    puller = SnapshotPuller(
        settings.learn, trust, AddressLifecycle(address_policy(settings, trust)), lambda _: None
    )
    running = asyncio.create_task(puller.run())
    await until(lambda: puller.statuses[0].last_error is not None)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_snapshot_is_requested_from_the_source_address(tmp_path: Path) -> None:
    peers: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        peers.append(request.remote)
        return web.Response(text="not signed")

    app = web.Application()
    app.router.add_get("/v1/snapshot", handler)
    async with TestServer(app, host="127.0.0.1") as server:
        url = str(server.make_url("/v1/snapshot"))
        await pull(learning(tmp_path, url))
        assert peers == [MINE]

        fetcher = Fetcher(Source(ABSENT))
        with pytest.raises(FetchError, match="Cannot assign requested address"):
            await fetcher.fetch(SourceSettings(url=url), Request())
        await fetcher.close()
        assert peers == [MINE]


async def test_a_key_of_etcd_is_read_from_the_source_address() -> None:
    store = Store()
    store.put(KEY, b"a.b.c")
    async with Member(store) as member:
        fetcher = Fetcher(SOURCE)
        assert await fetcher.fetch(etcd_source(member), Request()) == Fetched("a.b.c", "77:2")
        await fetcher.close()
        assert set(member.peers) == {MINE}


async def test_a_dns_source_asks_resolvers_and_registries_from_the_source_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    peers: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        peers.append(request.remote)
        return web.Response(status=404)

    def resolve(asked: Asked) -> list[bytes]:
        # Over UDP truncated, so that it is asked over TCP too.
        name = read(asked.data).question[0].name
        return [reply_to(asked.data, [f"{name} 60 IN A 127.0.0.1"], flags=0 if asked.tcp else TC)]

    async with FakeUpstream(resolve) as fake, Registry(authority.issue("r.example"), handle) as registry:
        discover = {"port": registry.port, "ca_file": authority.file}
        names = [{"name": "r.example", "role": "registry"}]
        entry = {"name": "r", "provider": "generic", "names": names, "discover": discover}
        settings = learning(
            tmp_path, "dns://{}:{}".format(*fake.address), registries=[{**entry, "auth": "discover"}]
        )
        helpers = EmbeddedHelpers(settings)
        running = asyncio.create_task(helpers.run())
        async with asyncio.timeout(20):
            assert (await helpers.fetch(settings.learn.sources[0], Request())).token
        await until(lambda: bool(peers))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert {(asked.peer[0], asked.tcp) for asked in fake.asked} == {(MINE, False), (MINE, True)}
        assert set(peers) == {MINE}


@pytest.mark.parametrize("kind", ["s3", "kubernetes"])
def test_a_source_that_cannot_have_one_is_refused(kind: str) -> None:
    place = {
        "s3": {"bucket": "snapshots", "key": "k", "endpoint": "https://s3.example"},
        "kubernetes": {"kind": "Secret", "object": "o", "key": "k"},
    }[kind]
    learn = {"sources": [{"type": kind, **place}], "trusted_keys": ["k"]}
    LearnSettings.model_validate(learn)
    with pytest.raises(ValidationError, match=f"a source of type {kind} cannot have one"):
        LearnSettings.model_validate({**learn, "source_address": "eth0"})
