from __future__ import annotations

from pathlib import Path

import pytest

from dnsproxy.net.watch import Watch
from tests.certificates import make_certificate
from tests.fakes.encrypted import NAME, dot, http2, tls_world
from tests.fakes.upstream import until
from tests.fakes.writers import Kept, watched
from tests.messages import REGISTRY, addresses, query
from tests.net.test_doh_http1 import http1


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path, NAME)


async def test_queries_over_tls_and_https(certificate: Path) -> None:
    watch, kept = watched()
    async with tls_world(certificate, watch=watch) as made:
        async with dot(made) as client:
            for name in (REGISTRY, "www.example."):
                client.send(query(name))
                assert addresses(await client.receive())
        async with http2(made) as other:
            for name in (REGISTRY, "www.example."):
                assert (await other.reply(other.request(query(name)))).status == 200
        async with http1(made) as third:
            third.post(query(REGISTRY))
            assert (await third.reply())[0] == 200
        await until(lambda: len(kept.seen) == 5)
        assert made.engine.stats.encrypted == {"tls": 2, "https": 3}
        port = made.listener.address[1]
    assert kept.brief == [
        ("tls", "learned", ""),
        ("tls", "forward", "up"),
        ("https", "learned", ""),
        ("https", "cache", ""),
        ("https", "learned", ""),
    ]
    for seen in kept.seen:
        assert (seen.client, seen.server, seen.server_port) == (b"\x7f\0\0\1", b"\x7f\0\0\1", port)
        assert seen.client_port > 0


async def test_what_gets_no_response_is_declined_and_told(certificate: Path) -> None:
    watch, kept = watched()
    not_a_query = query(REGISTRY)[:2] + b"\x80" + bytes(9)
    async with tls_world(certificate, watch=watch) as made, http2(made) as client:
        assert (await client.reply(client.request(not_a_query))).status == 400
    assert kept.brief == [("https", "dropped", "not_a_query")]


async def test_queries_that_nobody_wants_are_answered_too(certificate: Path) -> None:
    kept = Kept([False] * 3)
    async with tls_world(certificate, watch=Watch([kept])) as made, http2(made) as client:
        for name in (REGISTRY, "www.example."):
            assert (await client.reply(client.request(query(name)))).status == 200
        assert (await client.reply(client.request(query(REGISTRY)[:2] + b"\x80" + bytes(9)))).status == 400
    assert kept.seen == []
