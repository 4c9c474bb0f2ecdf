"""DNS over HTTPS, as server, by HTTP/1.1: one request at a time on each connection."""

from __future__ import annotations

from collections.abc import Hashable

import h11

from dnsproxy.core import doh
from dnsproxy.core.options import for_encrypted
from dnsproxy.errors import DropReason
from dnsproxy.net.doh_reply import Reply, reply_to, status_of
from dnsproxy.net.encrypted import EncryptedClient, House

# Octets of a request's head.
_MAX_HEAD = 16_384
# Parts of a request's body, which are chunks or what one read returns. A query usually comes in one.
MAX_PARTS = 256


class Http1Client(EncryptedClient):
    """One connection. What comes while a request is being answered waits in ``h11``, which is not read on."""

    def __init__(self, house: House, source: bytes) -> None:
        super().__init__(house, source)
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._parts = 0

    @property
    def is_ready(self) -> bool:
        """See `EncryptedClient.is_ready`."""
        return super().is_ready and not self.waiting

    def take(self, data: bytes) -> None:
        """See `EncryptedClient.take`."""
        self._http.receive_data(data)
        self.take_rest()

    def take_rest(self) -> None:
        """Take requests up to one that has to wait."""
        try:
            while self.is_ready:
                if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                    self._http.start_next_cycle()
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._say_continue()
                if not isinstance(event, h11.Event):
                    return
                self._take_event(event)
        except h11.RemoteProtocolError as exc:
            self._refuse(exc.error_status_hint or doh.BAD_REQUEST)

    def _say_continue(self) -> None:
        """Let a client go on that waits for a word before it sends its content (RFC 9110 §10.1.1)."""
        if self._http.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))

    def _take_event(self, event: h11.Event) -> None:
        if isinstance(event, h11.Request):
            self._request = event
            self._parts = 0
        elif isinstance(event, h11.Data):
            self._body += event.data
            self._parts += 1
            if len(self._body) > doh.MAX_MESSAGE:
                self._refuse(doh.TOO_LARGE)
            elif self._parts > MAX_PARTS:
                self.house.engine.stats.drops[DropReason.HTTP_FLOOD] += 1
                self._refuse(doh.BAD_REQUEST)
        elif isinstance(event, h11.EndOfMessage) and self._request is not None:
            body = bytes(self._body)
            self._body = bytearray()
            self._take_request(self._request, body)
        elif isinstance(event, h11.ConnectionClosed):
            self.close()

    def _take_request(self, request: h11.Request, body: bytes) -> None:
        content_type = next((value for name, value in request.headers if name == b"content-type"), b"")
        message = doh.read_request(
            self.house.path,
            request.method.decode("ascii"),
            request.target.decode("ascii"),
            content_type.decode("latin-1"),
            body,
        )
        if isinstance(message, bytes):
            self.ask(message, None)
        else:
            self._put(reply_to(message))

    def held(self) -> int:
        """See `EncryptedClient.held`."""
        return len(self._body) + len(self._http.trailing_data[0])

    def answer(self, token: Hashable, query: bytes, response: bytes) -> None:  # noqa: ARG002 - one at a time
        """See `EncryptedClient.answer`."""
        self._put(reply_to(for_encrypted(query, response, None)))

    def decline(self, token: Hashable, reason: DropReason) -> None:  # noqa: ARG002 - the same
        """See `EncryptedClient.decline`."""
        self._put(reply_to(status_of(reason)))

    def _refuse(self, status: int) -> None:
        """Say what is wrong if that can still be said, and leave: what follows would be read wrongly."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._put(reply_to(status), last=True)
        self.close()

    def _put(self, reply: Reply, *, last: bool = False) -> None:
        headers = [*reply.headers, ("connection", "close")] if last else list(reply.headers)
        self._send(h11.Response(status_code=reply.status, headers=headers))
        if self._request is None or self._request.method != b"HEAD":
            # What HEAD asks for is the head (RFC 9110 §9.3.2).
            self._send(h11.Data(data=reply.body))
        self._send(h11.EndOfMessage())
        if self._http.our_state is h11.MUST_CLOSE:
            self.close()

    def _send(self, event: h11.Event) -> None:
        self.write(self._http.send(event) or b"")
