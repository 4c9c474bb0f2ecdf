from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dnslib import DNSRecord

from dnsproxy.errors import StartError
from dnsproxy.ops.doctor import examine
from dnsproxy.ops.doctor_findings import Finding, Result
from tests.fakes.nameserver import Nameserver, Reply
from tests.fakes.registry import AUTH, REGISTRY, STORAGE, FakeRegistry
from tests.ops.doctor_world import LOOPBACK, ROLES, Host, failures


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with FakeRegistry(tmp_path) as registry:
        yield Host(tmp_path, registry)


async def look(host: Host, known: bool = True, **verify: Any) -> list[Finding]:  # noqa: FBT002 - reads well
    async with Nameserver(host.answer) as server:
        told = host.known() if known else None
        return await examine(host.settings(**verify), told, "not asked", host.site(server.endpoint))


HOPS = [
    *("nsswitch", "hosts file", "snapshot", "resolvers", "answer", "client views", "route"),
    *("TCP", "TCP 80", "TLS", "/v2/", "realm", "token service", "storage"),
]


def order(host: Host, findings: list[Finding]) -> list[str]:
    hops = [finding.hop.replace(f"TCP {host.registry.port}", "TCP") for finding in findings]
    return list(dict.fromkeys(hops))


async def test_every_hop_in_order_and_nothing_wrong(host: Host) -> None:
    findings = await look(host)
    assert failures(findings) == []
    assert order(host, findings) == HOPS
    skipped = {finding.hop for finding in findings if finding.result is Result.SKIP}
    assert skipped <= {"TCP 80"}
    assert [path for _, path in host.registry.asked] == ["/v2/", "/auth?service=pull.example", "/"]


async def test_without_knowledge_only_the_comparison_is_left_out(host: Host) -> None:
    findings = await look(host, known=False)
    assert failures(findings) == []
    assert [f.seen for f in findings if f.hop == "snapshot"] == ["answers cannot be compared: not asked"]
    assert all("nothing to compare with" in f.seen for f in findings if f.hop == "answer")


def wrong_answer(host: Host) -> None:
    host.addresses[STORAGE] = "127.0.0.9"


def not_learned(host: Host) -> None:
    del host.known_addresses[AUTH]


def no_route(host: Host) -> None:
    host.routed = ["10.0.0.0/8", "127.0.0.2/32"]
    for name in (AUTH, STORAGE):
        host.addresses[name] = host.known_addresses[name] = "127.0.0.2"


def closed_port(host: Host) -> None:
    # Nothing listens there: the fake registry has 127.0.0.1 only.
    host.addresses[STORAGE] = host.known_addresses[STORAGE] = "127.0.0.3"


def no_registry(host: Host) -> None:
    host.registry.statuses["/v2/"] = 404


def foreign_realm(host: Host) -> None:
    host.registry.realm = "https://elsewhere.example/auth"


def broken_tokens(host: Host) -> None:
    host.registry.statuses["/auth"] = 502


def broken_storage(host: Host) -> None:
    host.registry.statuses["/"] = 503


def shadowed(host: Host) -> None:
    (host.folder / "hosts").write_text(f"127.0.0.1 localhost\n10.9.9.9 {AUTH}\n")


def no_dns(host: Host) -> None:
    (host.folder / "nsswitch.conf").write_text("hosts: files\n")


@pytest.mark.parametrize(
    ("damage", "hop", "subject"),
    [
        (wrong_answer, "answer", STORAGE),
        (not_learned, "snapshot", AUTH),
        (no_route, "route", REGISTRY),
        (closed_port, "TCP", STORAGE),
        (no_registry, "/v2/", REGISTRY),
        (foreign_realm, "realm", REGISTRY),
        (broken_tokens, "token service", AUTH),
        (broken_storage, "storage", STORAGE),
        (shadowed, "hosts file", "hosts:2"),
        (no_dns, "nsswitch", "nsswitch.conf"),
    ],
)
async def test_one_fault_is_one_failure(
    host: Host, damage: Callable[[Host], None], hop: str, subject: str
) -> None:
    damage(host)
    findings = await look(host)
    found = [(h.replace(f"TCP {host.registry.port}", "TCP"), Path(s).name) for h, s in failures(findings)]
    # Loopback has more than one address here, and only the first one has a registry.
    others = {("TCP", AUTH), ("TCP", STORAGE)} if damage is no_route else set()
    assert [pair for pair in found if pair not in others] == [(hop, subject)]
    assert all(finding.seen for finding in findings)


async def test_a_certificate_for_other_names(tmp_path: Path) -> None:
    with FakeRegistry(tmp_path, AUTH, STORAGE) as registry:
        host = Host(tmp_path, registry)
        findings = await look(host)
    assert failures(findings) == [("TLS", REGISTRY)]
    skipped = {f.hop: f.seen for f in findings if f.subject == REGISTRY and f.result is Result.SKIP}
    assert skipped == dict.fromkeys(["/v2/", "realm", "token service"], "TLS fails")


async def test_a_dead_resolver(host: Host) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind((LOOPBACK, 0))
        async with Nameserver(host.answer) as server:
            dead = server.endpoint._replace(port=silent.getsockname()[1])
            alone = await examine(host.settings(), host.known(), "", host.site(dead))
            beside = await examine(host.settings(), host.known(), "", host.site(server.endpoint, dead))
    assert failures(alone) == failures(beside) == [("resolvers", str(dead))]
    assert {f.seen for f in alone if f.hop in {"answer", "route", "TLS"}} == {
        "no resolver of this host is the proxy"
    }
    assert [f.result for f in beside if f.hop == "answer"] == [Result.OK] * len(ROLES)


async def test_a_server_that_forwards_to_the_proxy_is_as_good(host: Host) -> None:
    def forward(query: DNSRecord) -> Reply:
        reply = host.answer(query)
        assert isinstance(reply, DNSRecord)
        reply.auth = []
        return reply

    async with Nameserver(forward) as server:
        findings = await examine(host.settings(), host.known(), "", host.site(server.endpoint))
    assert failures(findings) == []
    assert [f.seen for f in findings if f.hop == "resolvers"] == ["gives the proxy's answers"]


async def test_without_certificates_to_check_the_rest_goes_on(host: Host) -> None:
    findings = await look(host, tls=False)
    assert failures(findings) == []
    assert {f.seen for f in findings if f.hop == "TLS"} == {"learn.verify.tls is false"}


async def test_an_authority_that_cannot_be_read(host: Host) -> None:
    with pytest.raises(StartError, match="ca_file"):
        await look(host, ca_file=str(host.folder / "none.pem"))
