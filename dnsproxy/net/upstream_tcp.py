"""Queries to upstreams over TCP (RFC 7766) and TLS (RFC 7858): each message behind its length."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from dnsproxy.core import options
from dnsproxy.core.attempt import Failure
from dnsproxy.net.link import MOST_IDLE_SECONDS, Keeper, Link, Waiting

# Messages that answer no query: so many, and two more for each query, whose reply may come late and doubled.
# They are never more than this, however many queries have been sent.
FIRST_STRAYS: Final = 10
_STRAYS_PER_QUERY: Final = 2
_MOST_STRAYS: Final = 1000


class FramedLink(Link):
    """One connection; replies come in any order (RFC 7766 §7), known by their ids from ``draw_id``."""

    def __init__(self, channel: Keeper, draw_id: Callable[[], bytes]) -> None:
        super().__init__(channel)
        self._draw_id = draw_id
        self._input = b""
        self._outbox: list[bytes] = []
        self._asked_keepalive = False
        self._strays_left = FIRST_STRAYS

    def send(self, waiting: Waiting) -> None:
        """See `Link.send`."""
        message_id = self._draw_id()
        while self.find(int.from_bytes(message_id, "big")) is not None:
            message_id = self._draw_id()
        message = message_id + waiting.attempt.payload
        if not self._asked_keepalive:
            # Once per connection is enough (RFC 7828 §3.2.1).
            self._asked_keepalive = True
            message = options.with_option(message, options.KEEPALIVE_ASKED)
        if self.channel.context is not None:
            message = options.padded(message, options.QUERY_BLOCK)
        self.waiting[int.from_bytes(message_id, "big")] = waiting
        self._strays_left = min(self._strays_left + _STRAYS_PER_QUERY, _MOST_STRAYS)
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(len(message).to_bytes(2, "big") + message)

    def _flush(self) -> None:
        """Send the queries of one round of the loop: over TCP at once, over TLS in a record each.

        dnsdist (1.7, seen) reads the first query of a record and waits for the socket
        to become readable, while the others lie in OpenSSL's buffer.
        """
        outbox, self._outbox = self._outbox, []
        for message in outbox if self.channel.context is not None else [b"".join(outbox)]:
            self.write(message)

    def receive(self, data: bytes, now: float) -> None:
        """Take whole messages from the stream; of those that belong to no query, some are passed over.

        With more of them the connection ends: each costs as much as a reply, and they may come without end.
        """
        data = self._input + data if self._input else data
        position = 0
        while len(data) - position >= 2:
            end = position + 2 + int.from_bytes(data[position : position + 2], "big")
            if end > len(data):
                break
            self._receive_message(data[position + 2 : end], now)
            position = end
            if self._strays_left < 0:
                self.channel.lose(self, Failure.NETWORK, "too many messages that answer nothing")
                self.abort()
                return
        self._input = data[position:]

    def _receive_message(self, message: bytes, now: float) -> None:
        idle_seconds = options.keepalive_told(message)
        if idle_seconds is not None:
            self.idle_seconds = min(idle_seconds, MOST_IDLE_SECONDS)
            # Zero: it wants the connection closed as soon as nothing waits any more (RFC 7828 §3.2.2).
            self.retired = self.retired or not idle_seconds
        if not self.reply(int.from_bytes(message[:2], "big"), message, now):
            self._strays_left -= 1
