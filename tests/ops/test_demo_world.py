from __future__ import annotations

import asyncio
import os
import socket
import struct

import pytest
from dnslib import DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.helper.resolve import resolve
from dnsproxy.ops.demo_world import (
    AUTH,
    BUCKET,
    REGISTRY,
    STORAGE,
    SimulatedResolver,
    SourceRegion,
    answer,
    lookup_example,
)
from dnsproxy.settings.values import Endpoint


def ask(data: bytes, region: SourceRegion | None = None, ttl: int = 2) -> DNSRecord:
    reply = answer(data, (region or SourceRegion()).lookup, ttl)
    assert reply is not None
    return DNSRecord.parse(reply)


def query(name: str, qtype: str = "A") -> bytes:
    return bytes(DNSRecord.question(name, qtype).pack())


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (REGISTRY, "10.94.205.198"),
        (AUTH, "100.103.7.181"),
        (STORAGE, "100.118.28.43"),
        (BUCKET, "100.118.28.43"),
        (f"a.b.{STORAGE}", "100.118.28.43"),
        (REGISTRY.upper(), "10.94.205.198"),
    ],
)
def test_the_source_region_knows_its_names(name: str, address: str) -> None:
    reply = ask(query(name))
    assert [(str(rr.rname), rr.ttl, str(rr.rdata)) for rr in reply.rr] == [(f"{name}.", 2, address)]
    assert reply.header.get_rcode() == 0


@pytest.mark.parametrize("name", ["www.example", f"not{STORAGE}", f"x.{AUTH}", "."])
def test_other_names_do_not_exist_there(name: str) -> None:
    reply = ask(query(name))
    assert (reply.header.get_rcode(), reply.rr) == (3, [])
    assert [str(record.rdata).split()[-1] for record in reply.auth] == ["2"]


def test_other_types_are_nodata() -> None:
    reply = ask(query(REGISTRY, "AAAA"))
    assert (reply.header.get_rcode(), reply.rr, len(reply.auth)) == (0, [], 1)


def test_a_change_is_answered_for_that_name_only() -> None:
    region = SourceRegion()
    region.change(REGISTRY, "10.1.1.1")
    assert str(ask(query(REGISTRY), region).rr[0].rdata) == "10.1.1.1"
    assert str(ask(query(AUTH), region).rr[0].rdata) == "100.103.7.181"


def test_names_below_example_have_documentation_addresses_and_keep_them() -> None:
    addresses = [lookup_example(f"{label}.example") for label in "abcdef"]
    assert all(found is not None and found[0].startswith("192.0.2.") for found in addresses)
    assert len(set(addresses)) > 1
    assert addresses[0] == lookup_example("a.example")
    assert lookup_example("example.org") is None


def test_an_answer_never_claims_to_be_validated() -> None:
    asked = DNSRecord.question(REGISTRY)
    asked.header.ad = 1
    assert ask(bytes(asked.pack())).header.ad == 0


def test_a_client_with_edns_gets_edns_back() -> None:
    asked = DNSRecord.question(REGISTRY)
    asked.add_ar(*DNSRecord.parse(query_with_opt()).ar)
    assert [record.rtype for record in ask(bytes(asked.pack())).ar] == [41]
    assert ask(query(REGISTRY)).ar == []


def query_with_opt() -> bytes:
    opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"
    plain = query(REGISTRY)
    return plain[:11] + b"\x01" + plain[12:] + opt


@given(st.binary(max_size=600))
def test_any_bytes_give_a_response_or_silence(data: bytes) -> None:
    reply = answer(data, SourceRegion().lookup, 2)
    assert reply is None or reply[:2] == data[:2]


def test_a_response_or_a_long_message_gets_no_response() -> None:
    asked = query(REGISTRY)
    assert answer(asked[:2] + b"\x81" + asked[3:], lookup_example, 2) is None
    assert answer(asked + bytes(600), lookup_example, 2) is None
    assert answer(asked[:11], lookup_example, 2) is None


async def test_the_helper_can_ask_it() -> None:
    async with SimulatedResolver(SourceRegion().lookup, 2) as server:
        found = await resolve(f"{REGISTRY}.", 1, server.endpoint)
        assert (found.addresses, found.ttl) == (("10.94.205.198",), 2)


async def test_p28_it_goes_on_after_hostile_datagrams() -> None:
    async with SimulatedResolver(SourceRegion().lookup, 2) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for data in (b"", b"\x00" * 11, b"\xff" * 512, query(REGISTRY)[:-3]):
                sock.sendto(data, server.endpoint[:2])
        found = await resolve(f"{AUTH}.", 1, server.endpoint)
        assert found.addresses == ("100.103.7.181",)


@pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="a raw socket needs root")
async def test_p28_it_goes_on_after_a_datagram_from_port_zero() -> None:
    async with SimulatedResolver(SourceRegion().lookup, 2) as server:
        data = query(REGISTRY)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
            for _ in range(3):
                raw.sendto(
                    struct.pack(">HHHH", 0, server.endpoint.port, 8 + len(data), 0) + data, ("127.0.0.1", 0)
                )
        found = await resolve(f"{AUTH}.", 1, server.endpoint)
        assert found.addresses == ("100.103.7.181",)


async def test_p28_it_goes_on_after_a_client_that_has_gone() -> None:
    async with SimulatedResolver(SourceRegion().lookup, 2) as server:
        for _ in range(3):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(query(REGISTRY), server.endpoint[:2])
        found = await resolve(f"{AUTH}.", 1, server.endpoint)
        assert found.addresses == ("100.103.7.181",)


async def test_its_port_is_free_again_afterwards() -> None:
    async with SimulatedResolver(lookup_example, 2) as server:
        host, port = server.endpoint[:2]
        assert (host, port) == Endpoint("127.0.0.1", port)[:2]
    await asyncio.sleep(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
