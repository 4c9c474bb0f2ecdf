"""DNS over HTTPS, as server, by HTTP/2, which is what RFC 8484 §5.2 recommends: a stream for each query."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from dnsproxy.core import doh
from dnsproxy.core.memory import HTTP2_STREAM
from dnsproxy.core.options import for_encrypted
from dnsproxy.errors import DropReason
from dnsproxy.net import encrypted
from dnsproxy.net.doh_reply import Reply, reply_to, status_of
from dnsproxy.net.encrypted import EncryptedClient, House
from dnsproxy.net.http2 import SENT_PER_FRAME, BoundedConnection, FrameBudget

_Codes = h2.settings.SettingCodes
# Octets of a request's headers.
_MAX_HEADERS = 16_384
# Octets of responses that wait for the client's windows. Sixteen of the largest ones.
_MAX_BODIES = 1024 * 1024
# Streams that a client may take back on one connection. Taking back as fast as asking costs it
# nothing and us everything (CVE-2023-44487).
MAX_RESETS = 100
# Closed streams that are known as such: frames may still be on their way.
_CLOSED_STREAMS = 256
# Characters that are kept of a method and of a media type: longer ones are none that is known.
_MAX_TOKEN = 64


class _Request:
    """A request as far as it has come."""

    __slots__ = ("body", "content_type", "method", "size", "target")

    def __init__(self, headers: dict[str, str]) -> None:
        self.method = headers.get(":method", "")[:_MAX_TOKEN]
        # One character more than is read, so that it is still known to be too long.
        self.target = headers.get(":path", "")[: doh.MAX_TARGET + 1]
        self.content_type = headers.get("content-type", "")[:_MAX_TOKEN]
        self.body = bytearray()
        self.size = len(self.target)


class Http2Client(EncryptedClient):
    """One connection; ``token`` of a query is its stream.

    A stream is in ``_requests`` until its request is whole, in ``_asked`` until it is answered,
    and in ``_bodies`` while the client's window has no room for its response.
    """

    def __init__(self, house: House, source: bytes) -> None:
        super().__init__(house, source)
        self._requests: dict[int, _Request] = {}
        self._asked: set[int] = set()
        self._bodies: dict[int, bytes] = {}
        self._resets = 0
        self._unwritten = 0
        self._flush_planned = False
        self._frames = FrameBudget(encrypted.MAX_WAITING, is_server=True)
        # Bytes of `_requests` and `_bodies`.
        self._unfinished = 0
        self._http = BoundedConnection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8"),
            max_headers=_MAX_HEADERS,
            closed_streams=_CLOSED_STREAMS,
        )
        self._http.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                _Codes.MAX_CONCURRENT_STREAMS: encrypted.MAX_WAITING,
                _Codes.INITIAL_WINDOW_SIZE: doh.MAX_MESSAGE,
                _Codes.MAX_HEADER_LIST_SIZE: _MAX_HEADERS,
            },
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._http.initiate_connection()
        self._flush()

    def take(self, data: bytes) -> None:
        """See `EncryptedClient.take`; whatever is not HTTP/2, and a flood of frames, ends the connection."""
        if not self._frames.spend(data):
            self._send_away()
            return
        try:
            for event in self._http.receive_data(data):
                self._take_event(event)
        except (h2.exceptions.H2Error, ValueError):
            # ValueError: a header that is not UTF-8. What is to be said about it, h2 has prepared.
            self._flush()
            self.close()
            return
        self.take_rest()

    def take_rest(self) -> None:
        """Send what there is room for again."""
        self._pump()
        self._flush()

    def _take_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            headers = {str(name): str(value) for name, value in event.headers}
            request = self._requests[event.stream_id] = _Request(headers)
            self._unfinished += request.size
        elif isinstance(event, h2.events.DataReceived):
            self._take_data(event)
        elif isinstance(event, h2.events.StreamEnded):
            self._take_end(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self._take_reset(event.stream_id)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.close()

    def _take_data(self, event: h2.events.DataReceived) -> None:
        stream = event.stream_id
        self._http.acknowledge_received_data(event.flow_controlled_length, stream)
        request = self._requests.get(stream)
        if request is None:
            return
        request.body += event.data
        # A bytearray that grows has an eighth in reserve.
        grown = len(event.data) * 9 // 8
        request.size += grown
        self._unfinished += grown
        if len(request.body) > doh.MAX_MESSAGE:
            self._pop_request(stream)
            self._asked.add(stream)
            self._put(stream, reply_to(doh.TOO_LARGE))
            # The rest of it is not wanted (RFC 9113 §8.1).
            self._pop_body(stream)
            self._http.reset_stream(stream, h2.errors.ErrorCodes.NO_ERROR)

    def _pop_request(self, stream: int) -> _Request | None:
        request = self._requests.pop(stream, None)
        if request is not None:
            self._unfinished -= request.size
        return request

    def _pop_body(self, stream: int) -> bytes:
        body = self._bodies.pop(stream, b"")
        self._unfinished -= len(body)
        return body

    def held(self) -> int:
        """See `EncryptedClient.held`."""
        return self._unfinished + HTTP2_STREAM * len(self._http.streams)

    def _take_end(self, stream: int) -> None:
        request = self._pop_request(stream)
        if request is None:
            return
        self._asked.add(stream)
        message = doh.read_request(
            self.house.path, request.method, request.target, request.content_type, bytes(request.body)
        )
        if isinstance(message, bytes):
            self.ask(message, stream)
        else:
            reply = reply_to(message)
            # What HEAD asks for is the head (RFC 9110 §9.3.2).
            self._put(stream, reply._replace(body=b"") if request.method == "HEAD" else reply)

    def _take_reset(self, stream: int) -> None:
        self._pop_request(stream)
        self._asked.discard(stream)
        self._pop_body(stream)
        self._resets += 1
        if self._resets > MAX_RESETS:
            self._send_away()

    def _send_away(self) -> None:
        """Close the connection of a client that sends many frames for few queries."""
        self.house.engine.stats.drops[DropReason.HTTP_FLOOD] += 1
        self._http.close_connection(error_code=h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        self._flush()
        self.close()

    def answer(self, token: Hashable, query: bytes, response: bytes) -> None:
        """See `EncryptedClient.answer`."""
        self._put(cast("int", token), reply_to(for_encrypted(query, response, None)))

    def decline(self, token: Hashable, reason: DropReason) -> None:
        """See `EncryptedClient.decline`."""
        self._put(cast("int", token), reply_to(status_of(reason)))

    def _put(self, stream: int, reply: Reply) -> None:
        if stream not in self._asked:
            return  # the client has taken it back
        self._asked.discard(stream)
        try:
            fields = [(":status", str(reply.status)), *reply.headers]
            self._http.send_headers(stream, fields, end_stream=not reply.body)
        except h2.exceptions.ProtocolError:
            return  # it has ended the connection, and is about to be gone
        if reply.body:
            self._bodies[stream] = reply.body
            self._unfinished += len(reply.body)
            self._pump()
        self._plan_flush()

    def _pump(self) -> None:
        """Send as much of the responses as the client's windows have room for."""
        try:
            for stream in list(self._bodies):
                if not self._choked:
                    self._pump_stream(stream)
        except h2.exceptions.ProtocolError:
            self.close()
        if sum(map(len, self._bodies.values())) > _MAX_BODIES:
            # It asks and takes no answers.
            self.abort()

    def _pump_stream(self, stream: int) -> None:
        http, body = self._http, self._pop_body(stream)
        while body:
            room = min(http.local_flow_control_window(stream), http.max_outbound_frame_size, len(body))
            if room <= 0:
                self._bodies[stream] = body
                self._unfinished += len(body)
                return
            http.send_data(stream, body[:room], end_stream=room == len(body))
            body = body[room:]
            self._unwritten += room
            self._frames.grant(room // SENT_PER_FRAME)
        if self._unwritten >= encrypted.ENOUGH_UNREAD:
            self._flush()

    def _plan_flush(self) -> None:
        if not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        self._unwritten = 0
        self.write(self._http.data_to_send())
