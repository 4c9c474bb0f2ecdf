"""Whatever comes over an encrypted connection is served, refused or cut; nothing is raised."""

from __future__ import annotations

import asyncio
from typing import cast

import h2.config
import h2.connection
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.net.doh_http1 import Http1Client
from dnsproxy.net.doh_http2 import Http2Client
from dnsproxy.net.dot import DotClient
from dnsproxy.net.encrypted import EncryptedClient
from dnsproxy.net.upstream_https import HttpsLink
from dnsproxy.net.upstream_tcp import FramedLink
from tests.fakes.encrypted import NAME, PATH
from tests.fakes.links import Keeper, Transport, waiting
from tests.fakes.serving import House, Reading
from tests.messages import CLIENT, REGISTRY, query

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def http2_request() -> bytes:
    http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    http.initiate_connection()
    fields = [(":method", "POST"), (":scheme", "https"), (":authority", NAME), (":path", PATH)]
    http.send_headers(1, [*fields, ("content-type", "application/dns-message")])
    http.send_data(1, query(REGISTRY), end_stream=True)
    return http.data_to_send()


POST = (
    b"POST /dns-query HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/dns-message\r\nContent-Length: %d\r\n\r\n"
)
# Type, flags, stream and content of HTTP/2 frames.
FRAMES = st.lists(
    st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=40)), max_size=6
)
GOOD = {
    DotClient: len(query(REGISTRY)).to_bytes(2, "big") + query(REGISTRY),
    Http1Client: POST % len(query(REGISTRY)) + query(REGISTRY),
    Http2Client: http2_request(),
}


def serve(kind: type[EncryptedClient], pieces: list[bytes]) -> Reading:
    async def run() -> Reading:
        house, transport = House(), Reading()
        client = kind(house, CLIENT)
        client.connection_made(cast("asyncio.Transport", transport))
        for piece in pieces:
            if piece and transport.aborts == 0:  # asyncio never gives nothing
                client.data_received(piece)
                await asyncio.sleep(0)
        house.forwarder.close()
        return transport

    return asyncio.run(run())


def spoiled(good: bytes, data: st.DataObject) -> list[bytes]:
    """``good`` with some octets changed, cut into pieces."""
    message = bytearray(good)
    for _ in range(data.draw(st.integers(0, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    at = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=3)))
    return [bytes(message[a:b]) for a, b in zip([0, *at], [*at, len(message)], strict=True)]


@pytest.mark.parametrize("kind", list(GOOD))
def test_p17_the_good_one_is_answered(kind: type[EncryptedClient]) -> None:
    whole = b"".join(serve(kind, [GOOD[kind]]).written)
    assert b"\x0a\x5e\xcd\xc6" in whole  # 10.94.205.198


@pytest.mark.parametrize("kind", list(GOOD))
@given(pieces=st.lists(st.binary(max_size=100), max_size=5), greets=st.booleans())
def test_p10_any_bytes_to_a_listener(kind: type[EncryptedClient], pieces: list[bytes], greets: bool) -> None:
    serve(kind, [PREFACE, *pieces] if greets else pieces)


@pytest.mark.parametrize("kind", list(GOOD))
@given(data=st.data())
def test_p10_a_spoiled_request_to_a_listener(kind: type[EncryptedClient], data: st.DataObject) -> None:
    serve(kind, spoiled(GOOD[kind] * data.draw(st.integers(1, 2)), data))


@given(FRAMES)
def test_p10_any_frames_to_the_https_listener(frames: list[tuple[int, int, int, bytes]]) -> None:
    made = [
        len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content
        for kind, flags, stream, content in frames
    ]
    serve(Http2Client, [PREFACE, *made])
    serve(Http2Client, [GOOD[Http2Client], *made])


@given(FRAMES)
def test_p10_any_frames_from_an_https_upstream(frames: list[tuple[int, int, int, bytes]]) -> None:
    async def run() -> None:
        keeper = Keeper()
        link = HttpsLink(keeper, NAME, PATH, get=False)
        link.connection_made(cast("asyncio.Transport", Transport()))
        link.take(waiting())
        link.data_received(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        for kind, flags, stream, content in frames:
            head = len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
            link.data_received(head + content)
        # Still waiting, failed, or lost with the connection: never answered by junk.
        assert not any(type(word).__name__ == "Verdict" for word in keeper.told)

    asyncio.run(run())


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_p10_any_bytes_from_a_tcp_upstream(pieces: list[bytes]) -> None:
    async def run() -> None:
        keeper = Keeper()
        link = FramedLink(keeper, lambda: b"\x12\x34")
        link.connection_made(cast("asyncio.Transport", Transport()))
        link.take(waiting())
        for piece in pieces:
            link.data_received(piece)
        assert (link.load, keeper.told) == (1, [])

    asyncio.run(run())
