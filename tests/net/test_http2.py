"""The bound on frames without a query, with every type of frame, over real connections."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import h2.connection
import h2.errors
import h2.events
import hpack
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from dnsproxy.net.http2 import FIRST_FRAMES, FRAMES_PER_QUERY, FrameBudget, HeaderDecoder
from tests.certificates import make_certificate
from tests.fakes.encrypted import NAME, PATH, Answered, Http2Peer, http2, tls_world
from tests.fakes.upstream import silence
from tests.messages import REGISTRY, query

FIELDS = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", NAME),
    (":path", PATH),
    ("content-type", "application/dns-message"),
]
# More than any budget of one query, and enough to take a second of CPU if they are all read.
FLOOD = 50_000
FLOODS: dict[str, list[Frame | bytes]] = {
    "ping": [PingFrame(0, opaque_data=b"12345678")],
    "ping_ack": [PingFrame(0, opaque_data=b"12345678", flags=["ACK"])],
    "settings": [SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535})],
    "settings_empty": [SettingsFrame(0)],
    "window_update": [WindowUpdateFrame(0, window_increment=1)],
    "window_update_of_stream": [WindowUpdateFrame(1, window_increment=1)],
    "priority": [PriorityFrame(1, depends_on=0, stream_weight=1)],
    "priority_of_idle_streams": [PriorityFrame(n, depends_on=0) for n in range(3, 2003, 2)],
    "empty_data": [DataFrame(1)],
    "padded_data": [DataFrame(1, pad_length=255, flags=["PADDED"])],
    "one_byte_data": [DataFrame(1, data=b"x")],
    "reset": [RstStreamFrame(1, error_code=8)],
    "unknown": [b"\0\0\1\xbe\0\0\0\0\0x"],
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificates"), NAME)


async def flood(client: Http2Peer, data: bytes) -> None:
    """Send ``data``, all of it or until the server has closed, and read to the end of the connection."""
    client.writer.write(data)
    ended = asyncio.ensure_future(client.ended())
    with suppress(ConnectionError):
        await client.writer.drain()
    assert await ended


def parsed_frames(monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """The frames that servers of this process parse from now on."""
    parsed: list[Frame] = []
    receive = h2.connection.H2Connection._receive_frame

    def record(connection: h2.connection.H2Connection, frame: Frame) -> list[h2.events.Event]:
        if not connection.config.client_side:
            parsed.append(frame)
        return receive(connection, frame)

    monkeypatch.setattr(h2.connection.H2Connection, "_receive_frame", record)
    return parsed


@pytest.mark.parametrize("frames", FLOODS.values(), ids=FLOODS)
async def test_frames_without_queries_end_the_connection(
    certificate: Path, frames: list[Frame | bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tls_world(certificate, silence) as made, http2(made) as client:
        # Stream 1 stays open: the frames for it are valid.
        client.http.send_headers(client.http.get_next_available_stream_id(), FIELDS)
        client.replies[1] = Answered()
        client.flush()
        parsed = parsed_frames(monkeypatch)
        data = b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
        await flood(client, data * (FLOOD // len(frames)))
        assert client.gone_away == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
        assert len(parsed) <= FIRST_FRAMES + 2 * FRAMES_PER_QUERY
        assert made.engine.stats.drops == {"http_flood": 1}
        await made.all_gone()


async def test_continuation_frames_end_the_connection(certificate: Path) -> None:
    async with tls_world(certificate) as made, http2(made) as client:
        client.flush()
        head = HeadersFrame(1, data=hpack.Encoder().encode(FIELDS)).serialize()
        await flood(client, head + ContinuationFrame(1).serialize() * FLOOD)
        assert client.gone_away is not None
        await made.all_gone()


async def test_a_large_header_block_in_many_frames_is_not_kept(certificate: Path) -> None:
    async with tls_world(certificate) as made, http2(made) as client:
        client.flush()
        block = ContinuationFrame(1, data=bytes(16_384)).serialize()
        await flood(client, HeadersFrame(1, data=b"\x82").serialize() + block * 60)
        assert client.gone_away == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
        assert made.engine.stats.drops == {"http_flood": 1}


async def test_queries_with_their_frames_are_answered_for_as_long_as_they_come(certificate: Path) -> None:
    """What browsers and Go send for each query: PING, two WINDOW_UPDATE, a reset of a closed stream."""
    async with tls_world(certificate) as made, http2(made) as client:
        for _ in range(200):
            stream = client.request(query(REGISTRY))
            assert (await client.reply(stream)).status == 200
            client.http.ping(b"12345678")
            client.http.increment_flow_control_window(100)
            client.http.increment_flow_control_window(100)
            client.flush()
        assert client.gone_away is None
        assert not made.engine.stats.drops


async def test_the_frames_of_128_queries_at_one_time_are_within_the_budget(certificate: Path) -> None:
    async with tls_world(certificate) as made, http2(made) as client:
        streams = []
        for _ in range(120):
            stream = client.http.get_next_available_stream_id()
            client.http.send_headers(stream, FIELDS)
            client.replies[stream] = Answered()
            streams.append(stream)
        for stream in streams:
            body = query(REGISTRY)
            client.http.send_data(stream, body[:10])
            client.http.send_data(stream, body[10:])
            client.http.send_data(stream, b"", end_stream=True)
        client.flush()
        for stream in streams:
            assert (await client.reply(stream)).status == 200


@pytest.mark.parametrize("size", [1, 2, 7, 9, 10, 24, 1000])
def test_frames_are_counted_alike_however_they_are_segmented(size: int) -> None:
    ping = PingFrame(0, opaque_data=b"12345678").serialize()
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + ping * (FIRST_FRAMES + 1)
    budget = FrameBudget(1, is_server=True)
    taken = 0
    for at in range(0, len(data), size):
        if not budget.spend(data[at : at + size]):
            break
        taken = at + size
    # The last one is seen when its header has come.
    assert len(data) - len(ping) + 9 - size <= taken < len(data) - len(ping) + 9


def test_a_client_grants_frames_with_each_query_up_to_a_bound() -> None:
    budget = FrameBudget(2, is_server=False)
    for _ in range(1000):
        budget.grant()
    ping = PingFrame(0, opaque_data=b"12345678").serialize()
    assert budget.spend(ping * (FIRST_FRAMES + 2 * FRAMES_PER_QUERY))
    assert not budget.spend(ping)


def test_a_long_frame_counts_as_many() -> None:
    settings = SettingsFrame(0, settings=dict.fromkeys(range(1000, 3000), 1)).serialize()
    assert not FrameBudget(1, is_server=False).spend(settings)


@pytest.mark.parametrize("update", [b"\x20", b"\x3f\xe1\x1f"])
def test_a_header_block_changes_the_table_twice_at_most(update: bytes) -> None:
    block = hpack.Encoder().encode([(":method", "GET")])
    decoder = HeaderDecoder(16_384)
    for _ in range(3):
        (field,) = decoder.decode(update * 2 + block)
        assert tuple(map(str, field)) == (":method", "GET")
    with pytest.raises(hpack.HPACKDecodingError):
        decoder.decode(update * 3 + block)


def test_a_header_list_stays_bounded() -> None:
    with pytest.raises(hpack.OversizedHeaderListError):
        HeaderDecoder(100).decode(hpack.Encoder().encode([("a", "x" * 100)]))
