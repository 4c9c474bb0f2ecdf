from __future__ import annotations

import asyncio
import ssl
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import cast

import h2.errors
import h2.settings
import pytest
from hyperframe.frame import DataFrame, Frame, PingFrame, PriorityFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.attempt import Limits
from dnsproxy.core.exchange import MAX_LOSSES, MAX_SENDS, Exchange
from dnsproxy.core.upstreams import Secure, Upstream
from dnsproxy.core.wire import scan_query
from dnsproxy.net.dial import Dialer
from dnsproxy.net.link import Waiting
from dnsproxy.net.upstream_https import HttpsLink
from tests.certificates import make_certificate, server_context
from tests.fakes.forwarding import LONG, World, numbered, world
from tests.fakes.https import FakeHttps, Hook, Request
from tests.fakes.links import UPSTREAM, Keeper, Transport, waiting
from tests.fakes.upstream import until
from tests.messages import addresses, query, read, reply_to

NAME = "dns.example"
Codes = h2.settings.SettingCodes


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificates"), NAME)


def message_of(request: Request) -> bytes:
    if request.headers[":method"] == "POST":
        return request.body
    text = request.headers[":path"].partition("?dns=")[2]
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def good_reply(request: Request) -> bytes:
    asked = message_of(request)
    return reply_to(asked, [f"{read(asked).question[0].name} 60 IN A 192.0.2.1"])


def respond(request: Request) -> None:
    request.respond(good_reply(request))


def long_reply(request: Request) -> None:
    """Send 66,000 octets, which takes two windows."""
    http = request.connection.http
    http.send_headers(request.stream, [(":status", "200"), ("content-type", "application/dns-message")])
    left = 66

    def more() -> None:
        nonlocal left
        while left and http.local_flow_control_window(request.stream) >= 1000:
            http.send_data(request.stream, bytes(1000), end_stream=left == 1)
            left -= 1
        request.connection.flush()
        if left:
            asyncio.get_running_loop().call_later(0.005, more)

    more()


def silence(_request: Request) -> None:
    """Answer nothing."""


@asynccontextmanager
async def asking(
    certificate: Path,
    hook: Hook,
    *,
    get: bool = False,
    limits: Limits = LONG,
    context: ssl.SSLContext | None = None,
    settings: dict[Codes, int] | None = None,
) -> AsyncIterator[tuple[World, FakeHttps, Upstream]]:
    async with FakeHttps(hook, context or server_context(certificate, "h2"), settings) as fake:
        upstream = Upstream("doh", fake.address, secure=Secure(NAME, "/q", get=get))
        async with world(upstream, limits=limits, dialer=Dialer([upstream], certificate)) as made:
            yield made, fake, upstream


async def test_p17_queries_go_by_post_on_one_connection(certificate: Path) -> None:
    async with asking(certificate, respond) as (made, fake, upstream):
        for data in numbered(3):
            assert addresses((await made.ask(data))[0]) == ["192.0.2.1"]
        await made.ask(*numbered(20, "more"))
        assert (len(fake.connections), len(fake.asked)) == (1, 23)
        headers = fake.asked[0].headers
        assert headers == {
            ":method": "POST",
            ":path": "/q",
            ":scheme": "https",
            ":authority": f"{NAME}:{fake.address[1]}",
            "accept": "application/dns-message",
            "content-type": "application/dns-message",
            "content-length": "128",
        }
        assert {asked.body[:2] for asked in fake.asked} == {b"\0\0"}
        assert {len(asked.body) for asked in fake.asked} == {128}
        assert (upstream.stats.failures, upstream.stats.sent) == ({}, 23)


async def test_p17_queries_go_by_get_if_so_configured(certificate: Path) -> None:
    async with asking(certificate, respond, get=True) as (made, fake, _):
        assert addresses((await made.ask(query("www.example.")))[0]) == ["192.0.2.1"]
        (asked,) = fake.asked
        assert asked.headers[":path"].startswith("/q?dns=AAA")
        assert asked.body == b""
        assert "content-type" not in asked.headers
        assert len(message_of(asked)) == 128


async def test_p17_replies_come_in_any_order(certificate: Path) -> None:
    async with asking(certificate, silence) as (made, fake, _):
        made.submit(*numbered(20))
        await until(lambda: len(fake.asked) == 20)
        for request in reversed(fake.asked):
            respond(request)
        await until(lambda: len(made.responses) == 20)
        assert [read(data).id for data in made.responses] == list(reversed(range(20)))


async def test_p17_a_reply_of_many_frames(certificate: Path) -> None:
    def large(request: Request) -> None:
        records = [f"www.example. 60 IN A 10.0.{n >> 8}.{n & 255}" for n in range(3900)]
        request.respond(reply_to(request.body, records))

    async with asking(certificate, large) as (made, _, upstream):
        for _ in range(3):  # more than the first window of the connection
            await made.ask(query("www.example."))
            made.engine.flush(None)
        assert upstream.stats.failures == {}


async def test_p17_a_reply_from_a_cache_has_its_age_taken_off(certificate: Path) -> None:
    def aged(request: Request) -> None:
        request.respond(good_reply(request), age="25")

    async with asking(certificate, aged) as (made, _, _):
        assert read((await made.ask(query("www.example.")))[0]).answer[0].ttl == 35


@pytest.mark.parametrize(
    "bad",
    [
        lambda request: request.respond(b"", 503),
        lambda request: request.respond(good_reply(request), 302),
        lambda request: request.respond(good_reply(request), content_type="text/html"),
        lambda request: request.respond(b"", age="5"),
        lambda request: request.respond(good_reply(request)[:-3]),
        lambda request: request.respond(b"\1" + good_reply(request)[1:]),
        lambda request: request.respond(reply_to(query("other.example.", ident=0))),
        long_reply,
        lambda request: request.reset(h2.errors.ErrorCodes.INTERNAL_ERROR),
    ],
    ids=["503", "302", "html", "empty", "cut", "id", "question", "long", "reset"],
)
async def test_p12_a_reply_that_is_none_is_a_failure_at_once(
    certificate: Path, bad: Callable[[Request], None]
) -> None:
    async with asking(certificate, bad) as (made, fake, upstream):
        (response,) = await made.ask(query("www.example.", use_edns=0))
        assert read(response).rcode() == 2
        assert read(response).options[0].to_wire() == b"\0\x17"
        assert upstream.stats.failures == {"http": 3}
        fake.hook = respond
        assert addresses((await made.ask(query("other.example.")))[0]) == ["192.0.2.1"]
        assert len(fake.connections) == 1


async def test_p21_a_query_that_is_given_up_leaves_the_connection(certificate: Path) -> None:
    def all_but_slow(request: Request) -> None:
        if b"slow" not in request.body:
            respond(request)

    async with asking(certificate, all_but_slow, limits=Limits(0.2, 0.2)) as (made, fake, upstream):
        await made.ask(query("a.example."))
        made.submit(query("slow.example."))
        await made.ask(query("b.example."))
        await until(lambda: len(made.responses) == 3)
        assert upstream.stats.failures == {"timeout": 1}
        late = next(request for request in fake.asked if b"slow" in request.body)
        await until(lambda: late.connection.http.open_inbound_streams == 0)
        assert addresses((await made.ask(query("c.example.")))[0]) == ["192.0.2.1"]
        assert len(fake.connections) == 1


# -- connections that end


async def test_p17_a_server_that_goes_away_costs_no_query(certificate: Path) -> None:
    async with asking(certificate, respond) as (made, fake, upstream):
        await made.ask(query("a.example."))
        fake.hook = silence
        made.submit(*numbered(5))
        await until(lambda: len(fake.asked) == 6)
        fake.hook = respond
        fake.connections[0].go_away()
        await until(lambda: len(made.responses) == 6)
        assert upstream.stats.failures == {}
        assert len(fake.connections) == 2


async def test_p17_a_connection_closed_while_idle_costs_no_query(certificate: Path) -> None:
    async with asking(certificate, respond) as (made, fake, upstream):
        for data in numbered(3):
            assert addresses((await made.ask(data))[0]) == ["192.0.2.1"]
            transport = fake.connections[-1].transport
            assert transport is not None
            transport.abort()
        assert (upstream.stats.failures, len(fake.connections)) == ({}, 3)


async def test_p17_a_stream_that_was_refused_is_asked_on_a_fresh_connection(certificate: Path) -> None:
    def refuse(request: Request) -> None:
        if request.connection is fake.connections[0] and request.stream > 1:
            request.reset(h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            respond(request)

    async with asking(certificate, refuse) as (made, fake, upstream):
        await made.ask(query("a.example."))
        responses = await made.ask(*numbered(10))
        assert {addresses(data)[0] for data in responses} == {"192.0.2.1"}
        assert (upstream.stats.failures, len(fake.connections)) == ({}, 2)


async def test_p17_a_server_that_always_refuses_is_asked_a_few_times(certificate: Path) -> None:
    def refuse(request: Request) -> None:
        request.reset(h2.errors.ErrorCodes.REFUSED_STREAM)

    async with asking(certificate, refuse) as (made, fake, upstream):
        assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
        sends = MAX_SENDS + MAX_LOSSES
        assert (len(fake.asked), upstream.stats.sent) == (sends, sends)


async def test_p43_late_queries_leave_streams_to_others() -> None:
    link = HttpsLink(Keeper(), NAME, "/q", get=False)
    link.connection_made(cast("asyncio.Transport", Transport()))
    link._max_streams = 1
    link.heard_at = inf  # it answers others
    asked = scan_query(query("www.example."))
    exchange = Exchange(b"key", asked, (UPSTREAM,), Limits(1, 10), 0.0)
    for now in (0.0, 2.0):
        attempt = exchange.next_attempt(now)
        assert attempt is not None
        # The stream of the first one is for the second.
        link.take(Waiting(exchange, attempt))
        assert ([each.attempt for each in link.waiting.values()], link.queued, link.late) == (
            [attempt],
            [],
            {},
        )
        link.time_out(now + 1.5)
        assert len(link.late) == 1
    # Replies to the last one count, so it stays.
    link.take(waiting())
    assert (len(link.late), len(link.queued)) == (1, 1)


async def test_p17_as_many_streams_as_the_server_allows(certificate: Path) -> None:
    most = 0

    def count(request: Request) -> None:
        nonlocal most
        most = max(most, request.connection.http.open_inbound_streams)
        asyncio.get_running_loop().call_later(0.01, respond, request)

    async with asking(certificate, count, settings={Codes.MAX_CONCURRENT_STREAMS: 3}) as (made, _, upstream):
        await made.ask(query("a.example."))
        responses = await made.ask(*numbered(20))
        assert {addresses(data)[0] for data in responses} == {"192.0.2.1"}
        assert (upstream.stats.failures, most) == ({}, 3)


async def test_p17_windows_that_are_small(certificate: Path) -> None:
    async with asking(certificate, respond, settings={Codes.INITIAL_WINDOW_SIZE: 1024}) as (
        made,
        fake,
        upstream,
    ):
        await made.ask(query("a.example."))
        await made.ask(*numbered(20))
        assert (upstream.stats.failures, len(fake.connections)) == ({}, 1)


# -- servers that are none


async def test_p17_a_server_that_speaks_no_http_2(certificate: Path) -> None:
    context = server_context(certificate, "http/1.1")
    async with asking(certificate, respond, context=context) as (made, fake, upstream):
        assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
        assert (upstream.stats.failures, fake.asked) == ({"http": 3}, [])


async def test_p17_the_certificate_must_be_for_the_name(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "other.example")
    async with asking(certificate, respond) as (made, fake, upstream):
        assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
        assert (upstream.stats.failures, fake.asked) == ({"certificate": 3}, [])


@given(st.lists(st.binary(max_size=60), max_size=4), st.integers(0, 4))
def test_p10_any_bytes_in_place_of_http_2(pieces: list[bytes], frames: int) -> None:
    """Behind the server's settings, as frames or as they are."""

    async def run() -> None:
        link = HttpsLink(Keeper(), NAME, "/q", get=False)
        link.connection_made(cast("asyncio.Transport", Transport()))
        link.take(waiting())
        link.data_received(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        for number, piece in enumerate(pieces):
            kind = bytes((0, 0, len(piece), number if number < frames else 1, 4, 0, 0, 0, 1))
            link.data_received(kind + piece if number < frames else piece)
        assert len(link.waiting) <= 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, opaque_data=b"12345678"),
        SettingsFrame(0),
        WindowUpdateFrame(0, window_increment=1),
        PriorityFrame(1, depends_on=0),
        DataFrame(1),
    ],
    ids=lambda frame: type(frame).__name__,
)
async def test_p22_a_server_that_sends_frames_without_end_is_left(certificate: Path, frame: Frame) -> None:
    def flood(request: Request) -> None:
        request.connection.http.send_headers(request.stream, [(":status", "200")])
        request.connection.flush()
        transport = request.connection.transport
        assert transport is not None
        transport.write(frame.serialize() * 50_000)

    async with asking(certificate, flood) as (made, _, upstream):
        assert read((await made.ask(query("www.example.")))[0]).rcode() == 2
        assert upstream.stats.failures["http"] >= 1
