from __future__ import annotations

from pathlib import Path

import dns.edns
import pytest

from dnsproxy.core import options
from dnsproxy.core.policy import Owned
from dnsproxy.net import encrypted
from tests.certificates import make_certificate
from tests.fakes.encrypted import NAME, dot, tls_world
from tests.fakes.forwarding import numbered, respond
from tests.fakes.tcp import framed
from tests.fakes.upstream import silence, until
from tests.messages import REGISTRY, addresses, query, read

KEEPALIVE = dns.edns.GenericOption(dns.edns.OptionType.make(11), b"")
PADDING = dns.edns.GenericOption(dns.edns.OptionType.make(12), bytes(3))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificates"), NAME)


@pytest.mark.parametrize("protocols", [(), ("dot",), ("something-else",)])
async def test_p17_learned_and_forwarded_names_are_answered(
    certificate: Path, protocols: tuple[str, ...]
) -> None:
    async with tls_world(certificate) as made, dot(made, *protocols) as client:
        for name, address in ((REGISTRY, "10.94.205.198"), ("www.example.", "192.0.2.1")):
            client.send(query(name))
            assert addresses(await client.receive()) == [address]


async def test_p17_many_queries_in_any_segments_are_answered_as_answers_come(certificate: Path) -> None:
    async with tls_world(certificate, silence) as made, dot(made) as client:
        stream = framed(*numbered(5), query(REGISTRY, ident=99))
        for octet in stream:
            client.writer.write(bytes((octet,)))
            await client.writer.drain()
        assert read(await client.receive()).id == 99
        await until(lambda: len(made.upstream.asked) == 5)
        for asked in reversed(made.upstream.asked):
            made.upstream.send(respond(asked), asked.peer)
        assert {read(await client.receive()).id for _ in range(5)} == set(range(5))


async def test_p17_responses_are_padded_for_those_who_pad(certificate: Path) -> None:
    async with tls_world(certificate) as made, dot(made) as client:
        for name in (REGISTRY, "www.example."):
            client.send(query(name, use_edns=0, options=[PADDING]))
            assert len(await client.receive()) == options.RESPONSE_BLOCK
            client.send(query(name, use_edns=0))
            assert len(await client.receive()) < 100


async def test_p17_who_asks_is_told_how_long_a_connection_may_idle(certificate: Path) -> None:
    async with tls_world(certificate) as made, dot(made) as client:
        client.send(query(REGISTRY, use_edns=0, options=[KEEPALIVE]))
        assert options.keepalive_told(await client.receive()) == encrypted.IDLE_SECONDS


@pytest.mark.parametrize("junk", [b"\0\0", b"\0\5junk!", b"\0\x0b" + bytes(11)])
async def test_p17_what_is_not_dns_ends_the_connection_after_the_answers(
    certificate: Path, junk: bytes
) -> None:
    async with tls_world(certificate) as made, dot(made) as client:
        client.writer.write(framed(query(REGISTRY, ident=7)) + junk + framed(query(REGISTRY, ident=8)))
        assert read(await client.receive()).id == 7
        assert await client.closed()
        await made.all_gone()


async def test_p9_a_response_in_place_of_a_query_is_dropped_and_counted(certificate: Path) -> None:
    async with tls_world(certificate) as made, dot(made) as client:
        client.send(b"\0\1\x80" + bytes(9), query(REGISTRY, ident=3))
        assert read(await client.receive()).id == 3
        assert made.engine.stats.drops == {"not_a_query": 1}


async def test_p17_queries_that_wait_are_bounded_per_client(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encrypted, "MAX_WAITING", 5)
    async with tls_world(certificate, silence) as made, dot(made) as client, dot(made) as other:
        client.send(*numbered(60))
        await until(lambda: len(made.upstream.asked) >= 5)
        other.send(query(REGISTRY))
        await other.receive()
        assert len(made.upstream.asked) == 5
        made.upstream.hook = respond
        for asked in list(made.upstream.asked):
            made.upstream.send(respond(asked), asked.peer)
        assert {read(await client.receive()).id for _ in range(60)} == set(range(60))


async def test_p17_a_client_that_does_not_read_is_not_read_from(certificate: Path) -> None:
    large = Owned("large.example.", addresses=tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(1000)))
    async with tls_world(certificate, owned=[large]) as made, dot(made) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        total = 500
        client.send(*(query("large.example.", ident=ident) for ident in range(total)))
        await until(lambda: made.clients and made.clients[0]._choked)
        transport = made.clients[0].transport
        assert transport is not None
        assert transport.get_write_buffer_size() <= encrypted.MAX_UNREAD
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert {int.from_bytes((await client.receive())[:2], "big") for _ in range(total)} == set(
            range(total)
        )


async def test_p17_a_client_that_never_reads_is_cut(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Owned("large.example.", addresses=tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(1000)))
    monkeypatch.setattr(encrypted, "IDLE_SECONDS", 0.1)
    async with tls_world(certificate, owned=[large]) as made, dot(made) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(*(query("large.example.", ident=ident) for ident in range(500)))
        await until(lambda: made.clients)
        await made.all_gone()


async def test_p17_a_client_that_left_is_not_missed(certificate: Path) -> None:
    async with tls_world(certificate, silence) as made:
        async with dot(made) as client:
            client.send(query("www.example."))
            await until(lambda: made.upstream.asked)
        await made.all_gone()
        asked = made.upstream.asked[0]
        made.upstream.send(respond(asked), asked.peer)
        await until(lambda: not made.engine.in_flight)
