"""A client over TLS, whatever it speaks: what it may ask, what waits, when it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from time import monotonic
from typing import Protocol, cast

from dnsproxy.core.budget import MemoryBudget
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.wire import Query
from dnsproxy.errors import DropReason
from dnsproxy.net.upstream import Forwarder

# Seconds without a whole query after which a connection is closed. More than for plain TCP, since a
# handshake costs both sides a millisecond of CPU.
IDLE_SECONDS = 30.0
# Octets that a client has not taken yet: from the first number on nothing more is read from it, at
# the second it is cut. The largest response is 64 kB.
ENOUGH_UNREAD = 64 * 1024
MAX_UNREAD = 256 * 1024
# Queries of one connection that may wait for upstreams at a time.
MAX_WAITING = 128


class House(Protocol):
    """What the clients of a listener share."""

    engine: Engine
    forwarder: Forwarder
    path: str
    buffers: MemoryBudget

    def forget(self, client: EncryptedClient) -> None:
        """``client`` has left."""


class EncryptedClient(asyncio.Protocol):
    """One connection. Subclasses take queries from the stream and put responses on it."""

    proto = "https"

    def __init__(self, house: House, source: bytes) -> None:
        self.house = house
        self.source = self.peer = source
        self.transport: asyncio.Transport | None = None
        self.waiting = 0
        self.active = monotonic()
        self._reads = True
        self._choked = False
        # Bytes that are charged to the listener's budget.
        self._charged = 0

    def come_by(self, peer: bytes, port: int) -> None:  # noqa: ARG002 - for those that are watched
        """Note that the connection is ``peer``'s, made for the client's ``port`` there."""
        self.peer = peer

    # -- for subclasses ----------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Take what the client sent."""
        raise NotImplementedError

    def take_rest(self) -> None:
        """Go on with what was taken, after fewer queries wait or the client has read."""

    def answer(self, token: Hashable, query: bytes, response: bytes) -> None:
        """Put ``response`` to ``query`` on the connection; ``token`` is what `ask` was given."""
        raise NotImplementedError

    def held(self) -> int:
        """Return the bytes of memory that unfinished requests and unsent responses take."""
        raise NotImplementedError

    def decline(self, token: Hashable, reason: DropReason) -> None:
        """Say that there is no response, where that can be said."""

    def ask(self, query: bytes, token: Hashable) -> None:
        """Have ``query`` answered, now or later; `flush` afterwards."""
        house = self.house
        now = self.active = monotonic()
        house.engine.stats.encrypted[self.proto] += 1
        step = house.engine.receive(query, self.source, now, tcp=True)
        if isinstance(step, bytes):
            self.answer(token, query, step)
            house.engine.stats.record_duration(monotonic() - now)
        elif isinstance(step, Forward):
            self.waiting += 1
            house.forwarder.submit(step, self._respond, token, now)
        else:
            self.decline(token, step)

    @property
    def is_ready(self) -> bool:
        """Whether more queries may be taken now."""
        if self.transport is None or self.transport.is_closing():
            return False
        return self.waiting < MAX_WAITING and not self._choked

    def write(self, data: bytes) -> None:
        """Write ``data``; a client that does not read is cut."""
        if self.transport is None or self.transport.is_closing() or not data:
            return
        self.transport.write(data)
        unread = self.transport.get_write_buffer_size()
        if unread > MAX_UNREAD:
            self.abort()
        elif unread:
            self.account()

    def rest(self) -> None:
        """Read from the client, or do not, as suits what waits."""
        if self.transport is None or self.transport.is_closing() or self._reads == self.is_ready:
            return
        self._reads = self.is_ready
        if self._reads:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def account(self) -> None:
        """Charge what the connection holds now."""
        transport = self.transport
        held = 0
        if transport is not None and not transport.is_closing():
            held = self.held() + transport.get_write_buffer_size()
        if held != self._charged:
            self._charged = held
            self.house.buffers.charge(self, self.source, held)

    def evict(self) -> None:
        """See `budget.Holder`."""
        self._charged = 0
        self.house.engine.stats.drops[DropReason.MEMORY] += 1
        self.abort()

    def close(self) -> None:
        """Close the connection when what was written has been sent."""
        # Closing one of asyncio's TLS transports twice breaks it.
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    # -- what asyncio calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(ENOUGH_UNREAD)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it ended does not matter
        """See `asyncio.Protocol`."""
        self.transport = None
        self.account()
        self.house.forget(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.transport is None or self.transport.is_closing():
            return  # asyncio's TLS hands over what comes until the peer has closed as well
        self.take(data)
        self.house.forwarder.flush()
        self.rest()
        self.account()

    def pause_writing(self) -> None:
        """Take nothing more from a client that does not read."""
        self._choked = True
        self.rest()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._choked = False
        self._go_on()

    # -- what others call ----------------------------------------------------------------------

    def _respond(self, token: Hashable, response: bytes, query: Query) -> None:
        self.waiting -= 1
        if self.transport is None:
            return
        self.answer(token, query.data, response)
        self.account()
        if not self._reads:
            # Not now: this is called while the forwarder goes through its replies.
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self.take_rest()
        self.house.forwarder.flush()
        self.rest()
        self.account()

    def is_busy(self, since: float) -> bool:
        """Tell whether the client waits for an answer, or has asked since ``since``."""
        return bool(self.waiting) or self.active >= since

    def finish(self) -> None:
        """Close it; one that waits, or does not read, is cut."""
        (self.abort if self.waiting or self._choked else self.close)()

    def close_if_idle(self, now: float) -> None:
        """Close it when no whole query has come for `IDLE_SECONDS` and none is being answered."""
        if not self.waiting and now - self.active >= IDLE_SECONDS:
            # The goodbye of TLS may wait for ever in the buffer of a client that does not read.
            (self.abort if self._choked else self.close)()

    def abort(self) -> None:
        """Cut the connection at once."""
        if self.transport is not None:
            self.transport.abort()
