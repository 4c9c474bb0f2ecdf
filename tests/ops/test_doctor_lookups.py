from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import RCODE, DNSRecord

from dnsproxy.ops.doctor_ground import Ground
from dnsproxy.ops.doctor_lookups import ask_as_clients, ask_names, ask_servers
from tests.fakes.nameserver import Nameserver, Reply
from tests.fakes.registry import AUTH, REGISTRY, STORAGE, FakeRegistry
from tests.ops.doctor_world import LOOPBACK, Host, failures


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with FakeRegistry(tmp_path) as registry:
        yield Host(tmp_path, registry)


def ground_of(host: Host, *servers: Nameserver) -> Ground:
    return Ground(host.settings(), host.known(), "", host.site(*(server.endpoint for server in servers)))


def stranger(query: DNSRecord) -> Reply:
    reply = query.reply()
    reply.header.rcode = RCODE.NXDOMAIN
    return reply


async def test_only_the_proxy_is_asked_on(host: Host) -> None:
    async with Nameserver(host.answer) as proxy, Nameserver(stranger) as other:
        ground = ground_of(host, other, proxy)
        await ask_servers(ground)
        assert ground.servers == [proxy.endpoint]
        assert failures(ground.findings) == [("resolvers", str(other.endpoint))]
        before = other.total
        await ask_names(ground)
        await ask_as_clients(ground)
        assert other.total == before
    assert [target.answered for target in ground.targets] == [(LOOPBACK,)] * 3
    views = [finding.subject for finding in ground.findings if finding.hop == "client views"]
    assert views == ["glibc", "musl", "Go", "without EDNS", "over TCP"]


async def test_names_that_are_wrong_are_left_out_of_what_follows(host: Host) -> None:
    host.addresses[AUTH] = "127.0.0.77"
    async with Nameserver(host.answer) as proxy:
        ground = ground_of(host, proxy)
        await ask_servers(ground)
        await ask_names(ground)
        await ask_as_clients(ground)
    assert failures(ground.findings) == [("answer", AUTH)]
    subjects = [finding.subject for finding in ground.findings if finding.hop == "answer"]
    assert subjects == [REGISTRY, AUTH, STORAGE]
    assert {f.seen for f in ground.findings if f.hop == "client views"} == {"2 names as expected"}


async def test_one_client_may_see_what_another_does_not(host: Host) -> None:
    def without_edns_is_refused(query: DNSRecord) -> Reply:
        return host.answer(query) if query.ar else stranger(query)

    async with Nameserver(without_edns_is_refused) as proxy:
        ground = ground_of(host, proxy)
        await ask_servers(ground)
        await ask_names(ground)
        await ask_as_clients(ground)
    assert failures(ground.findings) == [
        ("client views", view) for view in ("glibc", "musl", "without EDNS", "over TCP")
    ]


async def test_without_names_nothing_is_the_proxy(host: Host) -> None:
    async with Nameserver(host.answer) as proxy:
        ground = ground_of(host, proxy)
        ground.targets = []
        await ask_servers(ground)
        await ask_as_clients(ground)
        assert proxy.total == 0
    assert [finding.result.value for finding in ground.findings] == ["FAIL", "SKIP"]
