from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import cast

import pytest

from dnsproxy.core import options
from dnsproxy.net.upstream_tcp import FramedLink
from dnsproxy.net.upstream_tls import ClientContext
from tests.fakes.forwarding import at, numbered, respond, world
from tests.fakes.links import Keeper, Transport, waiting
from tests.fakes.upstream import Asked, FakeUpstream, silence, until
from tests.messages import addresses, query, read


def telling(tenths: int) -> Callable[[Asked], Iterable[bytes]]:
    def hook(asked: Asked) -> Iterable[bytes]:
        return [options.with_keepalive(reply, tenths / 10) for reply in respond(asked)]

    return hook


async def test_p17_replies_in_any_segments() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake, tcp=True)) as made:
        made.submit(*numbered(3))
        await until(lambda: len(fake.asked) == 3)
        stream = b"".join(
            len(reply).to_bytes(2, "big") + reply for asked in fake.asked for reply in respond(asked)
        )
        for octet in stream:
            fake.writers[0].write(bytes((octet,)))
            await fake.writers[0].drain()
        await until(lambda: len(made.responses) == 3)
        assert {addresses(data)[0] for data in made.responses} == {"192.0.2.1"}


async def test_p12_a_reply_with_a_foreign_id_is_passed_over() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake, tcp=True)) as made:
        made.submit(query("www.example."))
        await until(lambda: fake.asked)
        (good,) = respond(fake.asked[0])
        foreign = bytes((good[0] ^ 0xFF,)) + good[1:]
        fake.send_stream([foreign.replace(b"\xc0\x00\x02\x01", b"\xcb\x00\x71\x42"), good])
        await until(lambda: made.responses)
        assert addresses(made.responses[0]) == ["192.0.2.1"]


async def test_p12_queries_that_wait_have_ids_of_their_own() -> None:
    async with FakeUpstream(silence) as fake, world(at(fake, tcp=True)) as made:
        made.forwarder._ids._octets = b"\0\1\0\1\0\1\0\2"
        made.submit(*numbered(2))
        await until(lambda: len(fake.asked) == 2)
        assert [asked.ident for asked in fake.asked] == [b"\0\1", b"\0\2"]


async def test_p17_one_query_per_connection_asks_how_long_it_may_idle() -> None:
    async with FakeUpstream(telling(1200)) as fake, world(at(fake, tcp=True)) as made:
        await made.ask(query("a.example."))
        await made.ask(query("b.example."))
        assert [options.read_options(asked.data) for asked in fake.asked] == [{11: b""}, {}]
        assert [link.idle_seconds for link in made.links] == [120.0]


async def test_p17_a_connection_is_kept_as_long_as_the_server_tells_within_bounds() -> None:
    async with FakeUpstream(telling(65535)) as fake, world(at(fake, tcp=True)) as made:
        await made.ask(query("www.example."))
        assert [link.idle_seconds for link in made.links] == [120.0]
    async with FakeUpstream(telling(1)) as fake, world(at(fake, tcp=True)) as made:
        await made.ask(query("www.example."))
        await until(lambda: not fake.writers)


async def test_p17_a_server_that_tells_zero_gets_its_connection_closed() -> None:
    async with FakeUpstream(telling(0)) as fake, world(at(fake, tcp=True)) as made:
        for name in ("a.example.", "b.example."):
            assert addresses((await made.ask(query(name)))[0]) == ["192.0.2.1"]
        assert fake.accepted == 2
        await until(lambda: not fake.writers)


async def test_what_is_asked_over_plain_tcp_is_not_padded() -> None:
    async with FakeUpstream(respond) as fake, world(at(fake, tcp=True)) as made:
        await made.ask(query("www.example."))
        assert options.PADDING not in options.read_options(fake.asked[0].data)


@pytest.mark.parametrize("junk", [b"\0\0", b"\0\3abc", b"\0\x0c" + bytes(12)])
async def test_p10_junk_between_replies_is_passed_over(junk: bytes) -> None:
    async with FakeUpstream(silence) as fake, world(at(fake, tcp=True)) as made:
        made.submit(query("www.example."))
        await until(lambda: fake.asked)
        fake.writers[0].write(junk)
        fake.send_stream(respond(fake.asked[0]))
        await until(lambda: made.responses)
        assert addresses(made.responses[0]) == ["192.0.2.1"]


@pytest.mark.parametrize("kind", ["empty", "other id", "other question"])
async def test_p22_a_server_that_sends_messages_without_end_is_left(kind: str) -> None:
    def flood(asked: Asked) -> Iterable[bytes]:
        ident, rest = asked.data[:2], b"\x81\x80" + asked.data[4:]
        sent = {
            "empty": b"",
            "other id": bytes((ident[0] ^ 1, ident[1])) + rest,
            "other question": ident + rest.replace(b"www", b"xxx"),
        }
        return [sent[kind]] * 50_000

    async with FakeUpstream(flood) as fake, world(at(fake, tcp=True)) as made:
        assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
        assert made.links == []


@pytest.mark.parametrize(("encrypted", "writes"), [(False, 1), (True, 3)])
async def test_p17_queries_go_at_once_over_tcp_and_in_a_record_each_over_tls(
    encrypted: bool, writes: int
) -> None:
    keeper, transport = Keeper(), Transport()
    keeper.context = ClientContext(ssl.PROTOCOL_TLS_CLIENT) if encrypted else None
    ids = iter([b"\0\1", b"\0\2", b"\0\3"])
    link = FramedLink(keeper, lambda: next(ids))
    link.connection_made(cast("asyncio.Transport", transport))
    for _ in range(3):
        link.take(waiting())
    await until(lambda: len(transport.written) == writes)
