"""The data plane behind real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode
import pytest
from dnslib import RR, DNSRecord

from dnsproxy import config
from dnsproxy.errors import StartError
from dnsproxy.net.doors import Doorkeeper, dns_doors
from dnsproxy.server import Server
from dnsproxy.settings import Settings
from tests.certificates import make_certificate, server_context
from tests.e2e.processes import Ports
from tests.fakes.forwarding import respond
from tests.fakes.nameserver import Nameserver, zone
from tests.fakes.upstream import Client, FakeUpstream
from tests.messages import addresses, query
from tests.strategies import learned, served_table, snapshot

NAME = "abc-registry-vpc.cn-hangzhou.cr.aliyuncs.com."


ACR = "{name: hz, region: cn-hangzhou, instance: abc}"
GENERIC = (
    "{name: g, provider: generic, names: [{name: added.example}, {name: p.example, addresses: [10.1.2.3]}]}"
)

# Kept until this process ends: what is free for TCP alone may be a source port of somebody's UDP.
_PORTS = Ports()


def free_port() -> int:
    return _PORTS.take()


def settings(
    upstream: str, port: int | None = None, more: str = "", registries: tuple[str, ...] = (ACR,)
) -> Settings:
    port = port or free_port()
    return config.parse(
        f"""
registries: [{", ".join(registries)}]
serve: {{listen: ["127.0.0.1:{port}", "[::1]:{port}"]}}
forward:
  {{upstreams: ["{upstream}"], timeout: {{attempt: 200ms, total: 500ms}}, probe: {{interval: forever}}}}
{more}
"""
    )


@contextlib.asynccontextmanager
async def serving(given: Settings, keeper: Doorkeeper | None = None) -> AsyncIterator[tuple[Server, int]]:
    server = Server(given, keeper=keeper)
    await server.open()
    try:
        yield server, given.serve.listen[0].port
    finally:
        await server.close()


def answering(query: DNSRecord) -> DNSRecord:
    reply = query.reply(aa=0)
    reply.add_answer(*RR.fromZone(f"{query.q.qname} 60 A 192.0.2.7"))
    return reply


async def ask(
    port: int, name: str, qtype: str = "A", *, host: str = "127.0.0.1", tcp: bool = False
) -> dns.message.Message:
    query = dns.message.make_query(name, qtype)
    send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await send(query, host, port=port, timeout=5)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("tcp", [False, True])
async def test_learned_and_forwarded_names_over_every_listener(host: str, tcp: bool) -> None:
    async with Nameserver(answering) as upstream, serving(settings(str(upstream.endpoint))) as (server, port):
        assert (await ask(port, NAME, host=host, tcp=tcp)).rcode() == dns.rcode.SERVFAIL
        server.swap_table(served_table(snapshot(learned(NAME))))
        owned = await ask(port, NAME, host=host, tcp=tcp)
        assert [str(rrset[0]) for rrset in owned.answer] == ["10.0.0.1"]
        for _ in range(2):
            other = await ask(port, "www.example.", host=host, tcp=tcp)
            assert [str(rrset[0]) for rrset in other.answer] == ["192.0.2.7"]
        assert upstream.total == 1


async def test_p21_a_silent_upstream_ends_in_servfail() -> None:
    async with Nameserver(lambda _: None) as upstream, serving(settings(str(upstream.endpoint))) as (_, port):
        assert (await ask(port, "www.example.")).rcode() == dns.rcode.SERVFAIL
        # And a probe, to see whether it is down.
        assert upstream.queries["www.example.", "A", "udp"] == 3


async def test_an_address_that_a_reload_removes_answers_until_it_is_closed() -> None:
    """No query to it waits for a timeout: each is answered, until "port unreachable"."""
    first, second = free_port(), free_port()
    given = settings("127.0.0.1:9", first, registries=(GENERIC,))
    after = settings("127.0.0.1:9", second, registries=(GENERIC,))
    keeper = Doorkeeper()
    async with serving(given, keeper) as (server, _):
        keeper.open(dns_doors(after))
        await (await server.prepare(after)).commit()
        keeper.keep(dns_doors(after))
        asked = 0
        with contextlib.suppress(ConnectionRefusedError), Client("127.0.0.1", first) as client:
            while True:
                assert addresses(await client.ask(query("p.example.", ident=asked))) == ["10.1.2.3"]
                asked += 1
        assert asked > 100
        assert (await ask(second, "p.example.")).answer


@pytest.mark.parametrize("policy", ["sequential", "race"])
async def test_clients_that_still_wait_at_the_end_get_servfail(policy: str) -> None:
    """Over UDP and over TCP, also from two exchanges that race; none is left without an answer."""
    async with Nameserver(lambda _: None) as one, Nameserver(lambda _: None) as two:
        port = free_port()
        forward = {"upstreams": [str(one.endpoint), str(two.endpoint)], "policy": policy}
        made = {"forward": forward, "serve": {"listen": [f"127.0.0.1:{port}"]}}
        async with serving(Settings.model_validate(made)) as (server, _):
            asked = [
                asyncio.ensure_future(ask(port, f"n{number}.example.", tcp=number % 2 == 1))
                for number in range(6)
            ]
            while server.engine.exchanges.waiters < len(asked):
                await asyncio.sleep(0)
            await server.finish(most=0.0)
            assert {(await reply).rcode() for reply in asked} == {dns.rcode.SERVFAIL}
            assert server.engine.exchanges.waiters == 0


async def test_the_port_taken_over_tcp_leaves_nothing_open() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"tcp 127.0.0.1 port {port}: Address already in use"):
            await Server(settings("127.0.0.1:9", port)).open()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", port))


async def test_p17_an_upstream_over_tls_whose_host_is_a_name(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "dns.example")
    async with (
        FakeUpstream(respond, context=server_context(certificate, "dot")) as upstream,
        Nameserver(zone("dns.example. 300 IN A 127.0.0.1")) as resolver,
    ):
        port = free_port()
        forward = {
            "upstreams": [f"tls://dns.example:{upstream.address[1]}"],
            "bootstrap": [str(resolver.endpoint)],
            "ca_file": str(certificate),
            "probe": {"interval": "forever"},
        }
        given = {"forward": forward, "serve": {"listen": [f"127.0.0.1:{port}"]}}
        async with serving(Settings.model_validate(given)) as (server, _):
            for name in ("a.example.", "b.example."):
                assert [str(rrset[0]) for rrset in (await ask(port, name)).answer] == ["192.0.2.1"]
            (used,) = server.engine.upstreams()
            assert (used.stats.sent, used.stats.failures) == (2, {})
        assert (upstream.accepted, resolver.total) == (1, 1)


async def test_p17_segments_pipelining_and_junk_over_tcp() -> None:
    async with Nameserver(answering) as upstream, serving(settings(str(upstream.endpoint))) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        queries = [dns.message.make_query(f"n{number}.example.", "A") for number in range(5)]
        stream = b"".join(struct.pack(">H", len(wire)) + wire for wire in (q.to_wire() for q in queries))
        for octet in stream:
            writer.write(bytes((octet,)))
            await writer.drain()
        seen = set()
        for _ in queries:
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            seen.add(dns.message.from_wire(await reader.readexactly(length)).id)
        assert seen == {query.id for query in queries}
        writer.write(b"\0\x05junk!")
        assert await reader.read() == b""
        writer.close()


async def test_p17_a_full_house_is_cut_and_udp_still_works() -> None:
    given = settings("127.0.0.1:9", more="")
    given = given.model_copy(update={"serve": given.serve.model_copy(update={"max_tcp_clients": 1})})
    async with serving(given) as (server, port):
        server.swap_table(served_table(snapshot(learned(NAME))))
        first = await asyncio.open_connection("127.0.0.1", port)
        assert (await ask(port, NAME)).answer
        reader, second = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionResetError):  # the cut may come as a reset
            assert await reader.read() == b""
        assert server.engine.stats.drops["tcp_clients"] == 1
        assert (await ask(port, NAME)).answer
        first[1].close()
        second.close()


async def test_a_reload_needs_no_descriptor_for_what_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """With none left, it used to fail when half of it was in force."""
    before = settings("127.0.0.1:9", registries=(GENERIC,))
    after = settings("127.0.0.1:9", before.serve.listen[0].port, registries=(ACR, GENERIC))
    keeper = Doorkeeper()
    async with serving(before, keeper) as (server, port):
        keeper.open(dns_doors(after))

        def refuse(_: socket.socket) -> socket.socket:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(socket.socket, "dup", refuse)
        await (await server.prepare(after)).commit()
        keeper.keep(dns_doors(after))
        for tcp in (False, True):
            assert (await ask(port, "added.example.", tcp=tcp)).rcode() == dns.rcode.SERVFAIL
            assert (await ask(port, "p.example.", tcp=tcp)).answer


async def test_names_that_a_reload_adds_are_never_forwarded() -> None:
    """Neither before the first table that manages them, nor after one that was made before the reload."""
    async with Nameserver(answering) as upstream:
        before = settings(str(upstream.endpoint))
        after = settings(str(upstream.endpoint), before.serve.listen[0].port, registries=(ACR, GENERIC))
        async with serving(before) as (server, port):
            server.swap_table(served_table(snapshot(learned(NAME))))
            outdated = served_table(snapshot(learned(NAME, ("10.0.0.2",))))
            await (await server.prepare(after)).commit()
            assert (await ask(port, "added.example.")).rcode() == dns.rcode.SERVFAIL
            server.swap_table(outdated)
            assert [str(rrset[0]) for rrset in (await ask(port, NAME)).answer] == ["10.0.0.2"]
            assert (await ask(port, "added.example.")).rcode() == dns.rcode.SERVFAIL
            assert [str(rrset[0]) for rrset in (await ask(port, "p.example.")).answer] == ["10.1.2.3"]
        assert upstream.total == 0


async def test_a_query_that_waits_when_its_address_is_left_gets_servfail() -> None:
    """The socket closes after a while; without an answer a stub would wait for 5 s."""
    port, kept = free_port(), free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        upstream = f"forward: {{upstreams: ['127.0.0.1:{silent.getsockname()[1]}'], timeout: {{attempt: 10ms"
        both = f"['127.0.0.1:{port}', '127.0.0.1:{kept}']"
        before = config.parse(f"serve: {{listen: {both}}}\n{upstream}, total: 9s}}}}\n")
        after = config.parse(f"serve: {{listen: ['127.0.0.1:{kept}']}}\n{upstream}, total: 20ms}}}}\n")
        server = Server(before)
        await server.open()
        try:
            left, stays = (asyncio.ensure_future(ask(at, "www.example.")) for at in (port, kept))
            waiting = server.engine.exchanges
            async with asyncio.timeout(10):
                while waiting.waiters < 2:
                    await asyncio.sleep(0)
                await (await server.prepare(after)).commit()
                assert (await left).rcode() == dns.rcode.SERVFAIL
            assert not stays.done(), "the name was not given up for others"
            stays.cancel()
        finally:
            await server.close()


async def test_a_connection_of_a_listener_that_is_left_follows_every_reload(tmp_path: Path) -> None:
    """Else it would be answered by the addresses of that time for as long as it is used."""
    pem = make_certificate(tmp_path, "proxy.example")
    kept, port, tls = free_port(), free_port(), free_port()
    secured = f"{{listen: ['127.0.0.1:{tls}'], cert_file: {pem}, key_file: {pem}}}"
    more = f"serve: {{listen: ['127.0.0.1:{port}'], tls: {secured}}}"
    upstream = "forward: {upstreams: ['127.0.0.1:9'], timeout: {attempt: 10ms, total: 20ms}}"
    before = config.parse(f"registries: [{ACR}]\n{more}\n{upstream}\n")
    after = config.parse(f"registries: [{ACR}]\nserve: {{listen: ['127.0.0.1:{kept}']}}\n{upstream}\n")
    context = ssl.create_default_context(cafile=str(pem))
    context.check_hostname = False
    keeper = Doorkeeper()
    server = Server(before, keeper=keeper)
    await server.open()
    keeper.open(dns_doors(after))
    try:
        plain = await asyncio.open_connection("127.0.0.1", port)
        secure = await asyncio.open_connection("127.0.0.1", tls, ssl=context)
        for number in (1, 2, 3):
            server.swap_table(served_table(snapshot(learned(NAME, (f"10.0.0.{number}",)))))
            for reader, writer in (plain, secure):
                query = dns.message.make_query(NAME, "A").to_wire()
                writer.write(struct.pack("!H", len(query)) + query)
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                reply = dns.message.from_wire(await reader.readexactly(length))
                assert [str(rrset[0]) for rrset in reply.answer] == [f"10.0.0.{number}"]
            await (await server.prepare(after)).commit()
        assert len(server._left) == 3
        for _, writer in (plain, secure):
            writer.close()
        async with asyncio.timeout(10):
            while server._left:
                await asyncio.sleep(0.01)
    finally:
        await server.close()
