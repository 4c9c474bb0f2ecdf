from __future__ import annotations

import socket

import pytest
from dnslib import QTYPE, RCODE, RR, DNSRecord

from dnsproxy.ops.doctor_dns import AAAA, EDNS_SIZE, TXT, A, ask, ask_apart, views
from dnsproxy.settings.values import Endpoint
from tests.fakes.nameserver import Nameserver, Reply

NAME = "registry.example."
SECONDS = 5.0
# RFC 8914: info-code 14 and a text.
EDE = bytes((0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 8, 0, 15, 0, 4, 0, 14)) + b"hm"


def proxy(query: DNSRecord) -> Reply:
    """What a dnsproxy answers about a name with one IPv4 address."""
    reply = query.reply()
    if query.q.qtype == QTYPE.A:
        reply.add_answer(*RR.fromZone(f"{NAME} 30 A 10.0.0.1"))
    else:
        reply.add_auth(*RR.fromZone(f"{NAME} 30 SOA dnsproxy.invalid. . 1 3600 600 86400 30"))
    return reply


async def test_addresses_and_no_data() -> None:
    async with Nameserver(proxy) as server:
        a, aaaa = await ask(server.endpoint, NAME, (A, AAAA), SECONDS)
        (txt,) = await ask(server.endpoint, NAME, [TXT], SECONDS, edns=EDNS_SIZE)
    assert (a.addresses, a.rcode, a.error, a.is_proxy) == (("10.0.0.1",), "NOERROR", None, False)
    assert (aaaa.addresses, aaaa.authoritative, aaaa.recursive) == ((), True, True)
    assert (txt.mname, txt.is_proxy) == ("dnsproxy.invalid.", True)


async def test_each_view_looks_the_name_up_in_its_way() -> None:
    sizes: list[int | None] = []

    def handle(query: DNSRecord) -> Reply:
        sizes.append(next((rr.edns_len for rr in query.ar), None))
        return proxy(query)

    async with Nameserver(handle) as server:
        made = await views(server.endpoint, NAME, SECONDS)
    assert list(made) == ["glibc", "musl", "Go", "without EDNS", "over TCP"]
    assert {(a.addresses, aaaa.addresses) for a, aaaa in made.values()} == {(("10.0.0.1",), ())}
    assert sizes == [None] * 4 + [EDNS_SIZE] * 2 + [None] * 4
    assert server.queries == {
        (NAME, "A", "udp"): 4,
        (NAME, "AAAA", "udp"): 4,
        (NAME, "A", "tcp"): 1,
        (NAME, "AAAA", "tcp"): 1,
    }


async def test_a_truncated_reply_is_asked_for_again_over_tcp() -> None:
    def handle(query: DNSRecord) -> Reply:
        reply = query.reply()
        if server.over_tcp:
            return proxy(query)
        reply.header.tc = 1
        return reply

    async with Nameserver(handle) as server:
        (a,) = await ask(server.endpoint, NAME, [A], SECONDS)
    assert (a.addresses, a.truncated) == (("10.0.0.1",), False)


async def test_an_extended_error() -> None:
    def handle(query: DNSRecord) -> Reply:
        reply = query.reply()
        reply.header.rcode = RCODE.SERVFAIL
        data = bytearray(reply.pack())
        data[11] = 1
        return bytes(data) + EDE

    async with Nameserver(handle) as server:
        (a,) = await ask(server.endpoint, NAME, [A], SECONDS)
    assert (a.seen, a.is_proxy) == ("SERVFAIL (EDE 14)", True)


async def test_one_reply_of_two_may_be_missing() -> None:
    async with Nameserver(lambda query: proxy(query) if query.q.qtype == QTYPE.A else None) as server:
        a, aaaa = await ask(server.endpoint, NAME, (A, AAAA), 0.3)
    assert (a.error, aaaa.error) == (None, "no reply within 0.3 s")


@pytest.mark.parametrize("tcp", [False, True])
async def test_p28_nobody_there(*, tcp: bool) -> None:
    with socket.socket(type=socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", held.getsockname()[1])
        (reply,) = await ask(endpoint, NAME, [A], 0.3, tcp=tcp)
    assert reply.error == ("connection refused" if tcp else "no reply within 0.3 s")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:20],
        lambda data: data + b"\x00" * 5000,
        lambda data: data[:7] + b"\x05" + data[8:],
        lambda data: data[:12] + b"\xc0\x0c" * 20,
    ],
)
async def test_replies_that_cannot_be_used(spoil: object) -> None:
    assert callable(spoil)
    async with Nameserver(lambda query: spoil(bytes(query.reply().pack()))) as server:
        (reply,) = await ask(server.endpoint, NAME, [A], 0.5)
    assert reply.error is not None


async def test_a_reply_to_another_query_is_passed_over() -> None:
    def handle(query: DNSRecord) -> list[Reply]:
        other = DNSRecord.parse(query.pack()).reply()
        other.header.id = (query.header.id + 1) % 65536
        return [b"x", bytes(other.pack()), query, proxy(query)]

    async with Nameserver(handle) as server:
        (reply,) = await ask(server.endpoint, NAME, [A], SECONDS)
    assert reply.addresses == ("10.0.0.1",)


async def test_types_asked_apart_come_in_their_order() -> None:
    async with Nameserver(proxy) as server:
        aaaa, a = await ask_apart(server.endpoint, NAME, (AAAA, A), SECONDS)
    assert (aaaa.addresses, a.addresses) == ((), ("10.0.0.1",))
