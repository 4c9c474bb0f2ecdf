from __future__ import annotations

import asyncio
from pathlib import Path

import dns.edns
import h2.errors
import h2.settings
import pytest

from dnsproxy.core import options
from dnsproxy.core.doh import get_target
from dnsproxy.core.policy import Owned
from dnsproxy.net import doh_http2
from tests.certificates import make_certificate
from tests.fakes.encrypted import NAME, PATH, http2, tls_world
from tests.fakes.forwarding import numbered, respond
from tests.fakes.upstream import silence, until
from tests.messages import REGISTRY, addresses, query, read

PADDING = dns.edns.GenericOption(dns.edns.OptionType.make(12), bytes(3))
LARGE = Owned("large.example.", addresses=tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(3800)))
Codes = h2.settings.SettingCodes


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificates"), NAME)


async def test_p17_post_and_get(certificate: Path) -> None:
    async with tls_world(certificate) as made, http2(made) as client:
        for name, address, ttl in ((REGISTRY, "10.94.205.198", 30), ("www.example.", "192.0.2.1", 60)):
            asked = query(name, ident=0)
            for stream in (
                client.request(asked),
                client.request(None, get_target(PATH, asked), method="GET"),
            ):
                reply = await client.reply(stream)
                assert addresses(reply.body) == [address]
                assert reply.headers == {
                    ":status": "200",
                    "content-type": "application/dns-message",
                    "content-length": str(len(reply.body)),
                    "cache-control": f"max-age={ttl}",
                }


async def test_p17_streams_are_answered_as_answers_come(certificate: Path) -> None:
    async with tls_world(certificate, silence) as made, http2(made) as client:
        streams = [client.request(data) for data in numbered(20)]
        quick = client.request(query(REGISTRY))
        assert (await client.reply(quick)).status == 200
        await until(lambda: len(made.upstream.asked) == 20)
        for asked in reversed(made.upstream.asked):
            made.upstream.send(respond(asked), asked.peer)
        assert [read((await client.reply(stream)).body).id for stream in streams] == list(range(20))


async def test_p17_responses_are_padded_for_those_who_pad(certificate: Path) -> None:
    async with tls_world(certificate) as made, http2(made) as client:
        for name in (REGISTRY, "www.example."):
            reply = await client.reply(client.request(query(name, use_edns=0, options=[PADDING])))
            assert len(reply.body) == options.RESPONSE_BLOCK


async def test_p17_an_error_is_a_good_reply_that_no_cache_keeps(certificate: Path) -> None:
    async with tls_world(certificate) as made, http2(made) as client:
        reply = await client.reply(client.request(query("www.example.", flags=0)))
        assert (reply.status, reply.headers["cache-control"]) == (200, "max-age=0")
        assert read(reply.body).rcode() == 5


@pytest.mark.parametrize(
    ("body", "path", "method", "content_type", "status"),
    [
        (b"x", PATH, "POST", "text/plain", 415),
        (query(REGISTRY), "/other", "POST", "application/dns-message", 404),
        (b"short", PATH, "POST", "application/dns-message", 400),
        (b"\0\0\x80" + bytes(9), PATH, "POST", "application/dns-message", 400),
        (None, PATH, "GET", "", 400),
        (None, f"{PATH}?dns=@", "GET", "", 400),
        (None, PATH, "POST", "", 415),
        (None, PATH, "HEAD", "", 405),
        (b"", PATH, "PUT", "application/dns-message", 405),
    ],
)
async def test_p17_what_is_no_query_gets_its_status(
    certificate: Path, body: bytes | None, path: str, method: str, content_type: str, status: int
) -> None:
    async with tls_world(certificate) as made, http2(made) as client:
        stream = client.request(body, path, method=method, content_type=content_type)
        reply = await client.reply(stream)
        assert reply.status == status
        assert ("allow" in reply.headers) == (status == 405)
        # The connection is as good as before.
        assert (await client.reply(client.request(query(REGISTRY)))).status == 200


async def test_p17_content_longer_than_a_message(certificate: Path) -> None:
    async with tls_world(certificate) as made, http2(made) as client:
        stream = client.http.get_next_available_stream_id()
        fields = [(":method", "POST"), (":scheme", "https"), (":authority", NAME), (":path", PATH)]
        client.http.send_headers(stream, [*fields, ("content-type", "application/dns-message")])
        client.request(query(REGISTRY))
        client.replies[stream] = client.replies[1] if 1 in client.replies else type(client.replies[3])()
        sent = 0
        while not client.replies[stream].ended:
            room = min(client.http.local_flow_control_window(stream), 16_000)
            if room > 0 and sent < 70_000:
                client.http.send_data(stream, bytes(room))
                sent += room
                client.flush()
            else:
                await client.run_once()
        assert client.replies[stream].status == 413
        assert (await client.reply(client.request(query(REGISTRY)))).status == 200


async def test_p27_more_than_can_be_asked_is_unavailable_for_now(certificate: Path) -> None:
    async with tls_world(certificate, silence, max_in_flight=1) as made, http2(made) as client:
        client.request(query("a.example."))
        await until(lambda: made.upstream.asked)
        reply = await client.reply(client.request(query("b.example.")))
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert made.engine.stats.drops == {"overloaded": 1}


@pytest.mark.parametrize("window", [1000, 65_535])
async def test_p17_large_responses_follow_the_windows_of_the_client(certificate: Path, window: int) -> None:
    async with (
        tls_world(certificate, owned=[LARGE]) as made,
        http2(made, {Codes.INITIAL_WINDOW_SIZE: window}) as client,
    ):
        streams = [client.request(query("large.example.", ident=ident)) for ident in range(4)]
        for stream in streams:
            assert len(addresses((await client.reply(stream)).body)) == 3800


async def test_p17_a_client_that_takes_no_responses_is_cut(certificate: Path) -> None:
    async with (
        tls_world(certificate, owned=[LARGE]) as made,
        http2(made, {Codes.INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        for ident in range(30):
            client.request(query("large.example.", ident=ident))
        assert await client.ended()
        await made.all_gone()


async def test_p17_a_stream_that_is_taken_back_is_not_answered(certificate: Path) -> None:
    async with tls_world(certificate, silence) as made, http2(made) as client:
        stream = client.request(query("www.example."))
        await until(lambda: made.upstream.asked)
        client.http.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        client.flush()
        assert (await client.reply(client.request(query(REGISTRY)))).status == 200
        made.upstream.send(respond(made.upstream.asked[0]), made.upstream.asked[0].peer)
        await until(lambda: not made.engine.in_flight)
        assert (await client.reply(client.request(query("www.example.")))).status == 200
        assert client.replies[stream].headers == {}


async def test_p17_a_client_that_takes_everything_back_is_sent_away(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doh_http2, "MAX_RESETS", 10)
    async with tls_world(certificate, silence) as made, http2(made) as client:
        for ident in range(20):
            stream = client.request(query("www.example.", ident=ident))
            client.http.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            client.flush()
        assert await client.ended()
        assert client.gone_away == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
        await made.all_gone()


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b""])
async def test_p10_what_is_not_http_2_ends_the_connection(certificate: Path, junk: bytes) -> None:
    async with tls_world(certificate) as made:
        reader, writer = await made.connect("h2")
        writer.write(junk or b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\4\3\0\0\0\0\0\0\0\0\0")
        async with asyncio.timeout(10):
            while await reader.read(65_536):
                pass
        await made.all_gone()
        writer.transport.abort()


async def test_p17_headers_without_bound_are_not_taken(certificate: Path) -> None:
    async with tls_world(certificate) as made, http2(made) as client:
        stream = client.http.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", NAME), (":path", PATH)]
        client.http.remote_settings.max_header_list_size = 1 << 20
        client.http.send_headers(
            stream, [*fields, *((f"x{n}", "y" * 1000) for n in range(30))], end_stream=True
        )
        client.flush()
        assert await client.ended()
        await made.all_gone()
