from __future__ import annotations

import pytest
from dnslib import QTYPE, RR, SOA, A, DNSRecord
from rich.console import Console

from dnsproxy.ops.demo_checks import Check, checks, results_table, run_check, run_checks, wait_for_change
from dnsproxy.ops.demo_world import BUCKET, OTHER, REGISTRY, SourceRegion
from tests.fakes.nameserver import Nameserver, Reply, closed_port

CHECK = Check("a name", REGISTRY, ("10.0.0.1",))
NODATA = Check("no such data", REGISTRY, qtype=QTYPE.AAAA)


def with_addresses(query: DNSRecord, *addresses: str, rcode: int = 0) -> DNSRecord:
    reply = query.reply(ra=1)
    reply.header.rcode = rcode
    for address in addresses:
        reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=5, rdata=A(address)))
    return reply


def with_soa(query: DNSRecord, rcode: int = 0) -> DNSRecord:
    reply = with_addresses(query, rcode=rcode)
    reply.add_auth(RR(query.q.qname, QTYPE.SOA, ttl=5, rdata=SOA("ns.", "hostmaster.")))
    return reply


async def test_the_expected_address_passes_and_is_shown_with_its_ttl() -> None:
    async with Nameserver(lambda query: with_addresses(query, "10.0.0.1")) as server:
        result = await run_check(server.endpoint, CHECK)
    assert (result.passed, result.seen) == (True, "10.0.0.1 (TTL 5)")


@pytest.mark.parametrize("tcp", [False, True])
async def test_it_asks_over_the_transport_that_the_check_names(tcp: bool) -> None:
    check = Check("a name", REGISTRY, ("10.0.0.1",), tcp=tcp)
    async with Nameserver(lambda query: with_addresses(query, "10.0.0.1")) as server:
        assert (await run_check(server.endpoint, check)).passed
        assert list(server.queries) == [(f"{REGISTRY}.", "A", "tcp" if tcp else "udp")]


def other_id(query: DNSRecord) -> bytes:
    packed = bytes(with_addresses(query, "10.0.0.1").pack())
    return bytes([packed[0] ^ 1]) + packed[1:]


@pytest.mark.parametrize(
    ("reply", "seen"),
    [
        (lambda query: with_addresses(query, "10.0.0.2"), "10.0.0.2 (TTL 5)"),
        (lambda query: with_addresses(query, "10.0.0.1", "10.0.0.2"), "10.0.0.1, 10.0.0.2 (TTL 5)"),
        (lambda query: with_addresses(query, "10.0.0.1", rcode=2), "10.0.0.1 (TTL 5)"),
        (with_addresses, "NOERROR, no answer, no SOA"),
        (lambda query: with_soa(query, rcode=3), "NXDOMAIN, no answer, SOA"),
        (other_id, "a response to another query"),
        (lambda query: other_id(query)[:1] + b"\x00", "a response to another query"),
        (lambda query: bytes(query.pack())[:14], "not a DNS message"),
    ],
)
async def test_anything_else_fails_and_is_shown(reply: Reply, seen: str) -> None:
    assert callable(reply)
    async with Nameserver(reply) as server:
        result = await run_check(server.endpoint, CHECK)
    assert not result.passed
    assert result.seen.startswith(seen)


@pytest.mark.parametrize(
    ("rcode", "soa", "passed"), [(0, True, True), (0, False, False), (3, True, False), (2, True, False)]
)
async def test_nodata_is_noerror_with_an_soa(rcode: int, *, soa: bool, passed: bool) -> None:
    async with Nameserver(lambda query: (with_soa if soa else with_addresses)(query, rcode=rcode)) as server:
        assert (await run_check(server.endpoint, NODATA)).passed is passed


async def test_an_address_is_not_nodata() -> None:
    async with Nameserver(lambda query: with_addresses(query, "10.0.0.1")) as server:
        assert not (await run_check(server.endpoint, NODATA)).passed


@pytest.mark.parametrize("tcp", [False, True])
async def test_p28_silence_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch, *, tcp: bool) -> None:
    monkeypatch.setattr("dnsproxy.ops.demo_checks.TIMEOUT", 0.05)
    async with Nameserver(lambda _query: None) as server:
        result = await run_check(server.endpoint, Check("a name", REGISTRY, ("10.0.0.1",), tcp=tcp))
    assert (result.passed, result.seen) == (False, "no answer within 0.05 s")


@pytest.mark.parametrize("tcp", [False, True])
async def test_p28_nobody_there_fails(monkeypatch: pytest.MonkeyPatch, *, tcp: bool) -> None:
    monkeypatch.setattr("dnsproxy.ops.demo_checks.TIMEOUT", 0.2)
    result = await run_check(closed_port(), Check("a name", REGISTRY, ("10.0.0.1",), tcp=tcp))
    assert not result.passed
    assert result.seen


async def test_a_change_is_waited_for() -> None:
    answers = iter(["10.0.0.9", "10.0.0.9", "10.0.0.1"])
    async with Nameserver(lambda query: with_addresses(query, next(answers))) as server:
        result = await wait_for_change(server.endpoint, CHECK)
        assert server.total == 3
    assert result.passed
    assert result.seen.startswith("10.0.0.1 (TTL 5), after ")


async def test_a_change_that_never_comes_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnsproxy.ops.demo_checks.CHANGE_TIMEOUT", 0.1)
    async with Nameserver(lambda query: with_addresses(query, "10.0.0.9")) as server:
        result = await wait_for_change(server.endpoint, CHECK)
    assert not result.passed
    assert result.seen.startswith("10.0.0.9 (TTL 5), after ")


async def test_the_list_covers_names_types_and_transports() -> None:
    wanted = checks(SourceRegion().lookup)
    assert {check.name for check in wanted} >= {REGISTRY, BUCKET, OTHER}
    assert {check.qtype for check in wanted} == {1, 28, 65}
    assert {check.tcp for check in wanted} == {False, True}
    async with Nameserver(with_soa) as server:
        results = await run_checks(server.endpoint, wanted)
    assert [result.passed for result in results] == [not check.expected for check in wanted]
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(results_table(results))
    lines = capture.get().splitlines()
    for result in results:
        line = next(line for line in lines if result.check.title in line)
        assert line.rstrip().endswith("ok" if result.passed else "FAILED")
