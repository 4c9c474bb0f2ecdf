"""Queries to upstreams over HTTPS (RFC 8484): one HTTP/2 stream for each, on shared connections.

HTTP/1.1 is not spoken: it would take a connection for every query that waits, and
RFC 8484 §5.2 takes HTTP/2 for granted.
"""

from __future__ import annotations

import asyncio

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import structlog

from dnsproxy.core import doh, options
from dnsproxy.core.attempt import Failure
from dnsproxy.core.memory import UPSTREAM_REPLIES
from dnsproxy.errors import WireError
from dnsproxy.net.http2 import BoundedConnection, FrameBudget
from dnsproxy.net.link import Keeper, Link, Waiting

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_Codes = h2.settings.SettingCodes
# Octets of headers that a server may send for one reply.
_MAX_HEADERS = 16_384
# Characters that are kept of a field.
_MAX_FIELD = 128
# A query in full, with its padding: what the server's windows must have room for.
_ROOM = 1024
# Streams to have open before the server has told its bound; it should allow 100 (RFC 9113 §6.5.2).
_FIRST_STREAMS = 100
# Streams whose frames are allowed for, however many more the server allows.
_MOST_STREAMS = 1000
# Closed streams that are known as such: replies to queries that are given up may still come.
_CLOSED_STREAMS = 8192
# Id of every query: equal queries are then equal to HTTP caches (RFC 8484 §4.1).
_ID = b"\0\0"


class _Reply:
    """What has come of one reply."""

    __slots__ = ("age", "body", "content_type", "status")

    def __init__(self) -> None:
        self.status = 0
        self.content_type = ""
        self.age = ""
        self.body = bytearray()


class HttpsLink(Link):
    """One connection to ``authority``; queries go to ``path`` by POST, or by GET when ``get``."""

    def __init__(self, channel: Keeper, authority: str, path: str, *, get: bool) -> None:
        super().__init__(channel)
        self._path = path
        self._get = get
        self._headers = [(":scheme", "https"), (":authority", authority), ("accept", doh.MEDIA_TYPE)]
        self._replies: dict[int, _Reply] = {}
        self._flush_planned = False
        self._unfinished = 0
        self._max_streams = _FIRST_STREAMS
        self._http = BoundedConnection(
            h2.config.H2Configuration(header_encoding="utf-8"),
            max_headers=_MAX_HEADERS,
            closed_streams=_CLOSED_STREAMS,
        )
        self._http.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                _Codes.ENABLE_PUSH: 0,
                _Codes.INITIAL_WINDOW_SIZE: doh.MAX_MESSAGE,
                _Codes.MAX_HEADER_LIST_SIZE: _MAX_HEADERS,
            },
        )
        self._frames = FrameBudget(_MOST_STREAMS, is_server=False)

    def begin(self, transport: asyncio.Transport) -> None:
        """See `Link.begin`."""
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            self.channel.lose(self, Failure.HTTP, "the server does not speak HTTP/2")
            self.abort()
            return
        self._http.initiate_connection()
        self._plan_flush()

    def can_send(self) -> bool:
        """See `Link.can_send`."""
        remote = self._http.remote_settings
        return (
            (len(self._replies) < self._max_streams or self._free_stream())
            and self._http.outbound_flow_control_window >= _ROOM
            and remote.initial_window_size >= _ROOM
        )

    def _free_stream(self) -> bool:
        """Give up late queries until another one may be sent; return whether it may."""
        while len(self._replies) >= self._max_streams:
            if not self.drop_late():
                return False
        return True

    def send(self, waiting: Waiting) -> None:
        """See `Link.send`."""
        message = options.padded(_ID + waiting.attempt.payload, options.QUERY_BLOCK)
        stream = self._http.get_next_available_stream_id()
        if self._get:
            head = [(":method", "GET"), (":path", doh.get_target(self._path, message))]
            self._http.send_headers(stream, [*head, *self._headers], end_stream=True)
        else:
            head = [(":method", "POST"), (":path", self._path)]
            content = [("content-type", doh.MEDIA_TYPE), ("content-length", str(len(message)))]
            self._http.send_headers(stream, [*head, *self._headers, *content])
            self._http.send_data(stream, message, end_stream=True)
        self._frames.grant()
        self.waiting[stream] = waiting
        self._replies[stream] = _Reply()
        self._plan_flush()

    def give_up(self, key: int) -> None:
        """See `Link.give_up`."""
        self._close_stream(key)

    def _close_stream(self, stream: int) -> None:
        if self._pop_reply(stream) is None:
            return
        try:
            self._http.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:
            return  # the server has ended it, or the connection, in the meantime
        self._plan_flush()

    def _pop_reply(self, stream: int) -> _Reply | None:
        reply = self._replies.pop(stream, None)
        if reply is not None:
            self._unfinished -= len(reply.body)
        return reply

    def _plan_flush(self) -> None:
        if not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        self.write(self._http.data_to_send())

    def receive(self, data: bytes, now: float) -> None:
        """See `Link.receive`; whatever is not HTTP/2, and a flood of frames, ends the connection."""
        if not self._frames.spend(data):
            self._http.close_connection(error_code=h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            self._flush()
            self.channel.lose(self, Failure.HTTP, "HTTP/2: too many frames besides replies")
            self.close()
            return
        try:
            for event in self._http.receive_data(data):
                self._take(event, now)
        except (h2.exceptions.H2Error, ValueError) as exc:
            # ValueError: a header that is not UTF-8.
            self.channel.lose(self, Failure.HTTP, f"HTTP/2: {exc}"[:200])
            self.abort()
            return
        self.send_queued()
        self._plan_flush()

    def _take(self, event: h2.events.Event, now: float) -> None:
        if isinstance(event, h2.events.DataReceived):
            self._take_data(event, now)
        elif isinstance(event, h2.events.ResponseReceived):
            self._take_headers(event)
        elif isinstance(event, h2.events.StreamEnded):
            self._take_end(event.stream_id, now)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self._max_streams = self._http.remote_settings.max_concurrent_streams
        elif isinstance(event, h2.events.StreamReset):
            self._take_reset(event, now)
        elif isinstance(event, h2.events.ConnectionTerminated):
            # Queries may be asked again without harm, so it does not matter which of them were read.
            self.has_replied = True
            self.channel.lose(self, Failure.HTTP, f"closed by the server with code {event.error_code:d}")
            self.close()

    def _take_headers(self, event: h2.events.ResponseReceived) -> None:
        reply = self._replies.get(event.stream_id)
        if reply is None:
            return
        headers = {str(name): str(value) for name, value in event.headers}
        status = headers.get(":status", "")
        reply.status = int(status) if status.isascii() and status.isdigit() else 0
        reply.content_type = headers.get("content-type", "")[:_MAX_FIELD]
        reply.age = headers.get("age", "")[:_MAX_FIELD]

    def _take_data(self, event: h2.events.DataReceived, now: float) -> None:
        self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        reply = self._replies.get(event.stream_id)
        if reply is None:
            return
        reply.body += event.data
        self._unfinished += len(event.data)
        if self._unfinished > UPSTREAM_REPLIES:
            self.channel.lose(self, Failure.HTTP, "too much of unfinished replies")
            self.abort()
            return
        if len(reply.body) > doh.MAX_MESSAGE:
            self._close_stream(event.stream_id)
            self._fail(event.stream_id, "a reply longer than a DNS message", now)

    def _take_end(self, stream: int, now: float) -> None:
        reply = self._pop_reply(stream)
        if reply is None:
            return
        try:
            message = doh.read_reply(reply.status, reply.content_type, reply.age, bytes(reply.body))
        except WireError as exc:
            self._fail(stream, str(exc), now)
            return
        if message[:2] != _ID or not self.reply(stream, message, now):
            self._fail(stream, "a reply to something else", now)

    def _take_reset(self, event: h2.events.StreamReset, now: float) -> None:
        self._pop_reply(event.stream_id)
        waiting = self.find(event.stream_id)
        if waiting is None:
            return
        if event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM and self.channel.send_again(waiting, now):
            # Not read at all (RFC 9113 §8.7).
            self.take_out(event.stream_id)
            self.channel.ended(self, now)
            return
        self._fail(event.stream_id, f"stream reset with code {event.error_code:d}", now)

    def _fail(self, stream: int, text: str, now: float) -> None:
        waiting = self.take_out(stream)
        if waiting is not None:
            log.debug("upstream.bad_reply", detail=text)
            self.channel.ended(self, now)
            self.channel.fail(waiting, Failure.HTTP, now)
