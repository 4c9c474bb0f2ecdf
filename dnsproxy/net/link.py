"""One connection to an upstream, and the queries that wait on it. Subclasses say what goes over it."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic
from typing import Protocol, cast

from dnsproxy.core.attempt import Attempt, Failure, Verdict
from dnsproxy.core.exchange import GIVEN_UP, Exchange
from dnsproxy.net.upstream_tls import ClientContext, name_failure

# A connection without queries is closed after so many seconds, or what the server tells (RFC 7828), up
# to a bound. TLS costs more to set up.
IDLE_SECONDS = 10.0
IDLE_SECONDS_TLS = 30.0
MOST_IDLE_SECONDS = 120.0
# What an upstream has not taken of our queries, in octets; it does not read any more.
MAX_UNSENT = 256 * 1024


class Ends(Protocol):
    """What carries exchanges to their ends."""

    @property
    def local_failures(self) -> Counter[str]:
        """Where failures of this host are counted, by use."""

    def settle(self, exchange: Exchange, verdict: Verdict, now: float) -> None:
        """A reply to ``exchange`` has come and been judged, other than IGNORED, or an attempt has ended."""


class Waiting:
    """A query on a channel: sent at ``sent_at``, or not yet sent."""

    __slots__ = ("attempt", "exchange", "sent_at")

    def __init__(self, exchange: Exchange, attempt: Attempt) -> None:
        self.exchange = exchange
        self.attempt = attempt
        self.sent_at = 0.0

    @property
    def is_given_up(self) -> bool:
        """Whether it has been answered otherwise, or its place has gone to another query."""
        return self.exchange.ended or (self.exchange.purpose == GIVEN_UP and not self.exchange.waiters)


class Keeper(Protocol):
    """What keeps the link: a `channel.Channel`."""

    ends: Ends
    context: ClientContext | None

    def proven(self, link: Link) -> None:
        """``link`` has given its first reply."""

    def ended(self, link: Link, now: float) -> None:
        """``link`` has done with a query."""

    def lose(self, link: Link, failure: Failure, text: str) -> None:
        """``link`` has ended."""

    def send_again(self, waiting: Waiting, now: float) -> bool:
        """Send ``waiting`` on another connection; False when that may not be done."""

    def fail(self, waiting: Waiting, failure: Failure, now: float) -> None:
        """``waiting`` gave nothing, and no reply to it can come."""


class Link(asyncio.Protocol):
    """One connection; subclasses say what goes over it.

    ``waiting`` are the queries sent, by id or stream, ``late`` those whose time is over while a reply counts,
    ``queued`` those that cannot be sent yet. A ``retired`` link takes no more queries.
    """

    def __init__(self, channel: Keeper) -> None:
        self.channel = channel
        self.transport: asyncio.Transport | None = None
        self.waiting: dict[int, Waiting] = {}
        self.late: dict[int, Waiting] = {}
        self.queued: list[Waiting] = []
        self.retired = False
        self.has_replied = False
        self.heard_at = 0.0
        self.replied_at = 0.0
        self.idle_seconds = IDLE_SECONDS if channel.context is None else IDLE_SECONDS_TLS
        self.idle_since = monotonic()

    # -- for subclasses ------------------------------------------------------------

    def begin(self, transport: asyncio.Transport) -> None:
        """Say on a new connection what must be said first."""

    def can_send(self) -> bool:
        """Tell whether there is room for a query now; else it stays in ``queued``."""
        return True

    def send(self, waiting: Waiting) -> None:
        """Put ``waiting`` on the connection and into ``self.waiting``."""
        raise NotImplementedError

    def receive(self, data: bytes, now: float) -> None:
        """Take what came from the upstream."""
        raise NotImplementedError

    def give_up(self, key: int) -> None:
        """Tell the upstream, where that can be done, that the reply is not waited for any more."""

    # -- what asyncio calls ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what has waited for the connection."""
        self.transport = cast("asyncio.Transport", transport)
        self.heard_at = monotonic()
        self.begin(self.transport)
        self.send_queued()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.heard_at = monotonic()
        self.receive(data, self.heard_at)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        failure, text = (Failure.NETWORK, "closed by the server") if exc is None else name_failure(exc)
        self.channel.lose(self, failure, text)

    # -- what the channel calls --------------------------------------------------------

    @property
    def load(self) -> int:
        """How many queries wait on it."""
        return len(self.waiting) + len(self.late) + len(self.queued)

    @property
    def in_time(self) -> int:
        """How many of them are not late: a name that is not answered has several late ones."""
        return len(self.waiting) + len(self.queued)

    @property
    def due(self) -> float:
        """When its next query is late (monotonic), or when it has been idle for long enough without any."""
        everything = (*self.waiting.values(), *self.late.values(), *self.queued)
        deadlines = [waiting.attempt.deadline for waiting in everything]
        return min(deadlines, default=self.idle_since + self.idle_seconds)

    def find(self, key: int) -> Waiting | None:
        """Return the query with that id or stream to which a reply counts, if any."""
        return self.waiting.get(key) or self.late.get(key)

    def take_out(self, key: int) -> Waiting | None:
        """Take out and return that query, if there is any."""
        return self.waiting.pop(key, None) or self.late.pop(key, None)

    def take(self, waiting: Waiting) -> None:
        """Send ``waiting`` now, or when the connection is there and has room."""
        self.queued.append(waiting)
        self.send_queued()

    def send_queued(self) -> None:
        """Send what can be sent."""
        while self.queued and self.transport is not None and not self.retired and self.can_send():
            waiting = self.queued.pop(0)
            if waiting.exchange.is_superseded(waiting.attempt):
                waiting.exchange.drop_attempt(waiting.attempt)
                continue
            waiting.sent_at = monotonic()
            self.send(waiting)

    def write(self, data: bytes) -> None:
        """Write ``data``; a connection whose other end does not read is cut."""
        if self.transport is None or self.transport.is_closing() or not data:
            return
        self.transport.write(data)
        if self.transport.get_write_buffer_size() > MAX_UNSENT:
            self.abort()

    def reply(self, key: int, data: bytes, now: float) -> bool:
        """Give a reply to the query it belongs to; False when it is not what was asked for."""
        waiting = self.find(key)
        if waiting is None:
            return False
        verdict = Verdict.WAIT
        if not waiting.exchange.ended:
            verdict = waiting.exchange.receive_reply(data, now, waiting.attempt)
        if verdict is Verdict.IGNORED:
            return False
        self.take_out(key)
        self.replied_at = now
        if verdict is Verdict.HINT:  # nothing on a connection is forged
            waiting.exchange.drop_attempt(waiting.attempt)
        if not self.has_replied:
            self.has_replied = True
            self.channel.proven(self)
        self.channel.ended(self, now)
        self.channel.ends.settle(waiting.exchange, verdict, now)
        return True

    def time_out(self, now: float) -> list[Waiting]:
        """Return the queries whose time is over, and take out those to which a reply is of no use any more.

        When nothing at all has come since one of them was sent the other end is perhaps
        gone without a word: the connection is not used for further queries.
        """
        late = [waiting for waiting in self.queued if waiting.attempt.deadline <= now]
        for waiting in late:
            if not waiting.exchange.time_out(waiting.attempt, now):
                self.queued.remove(waiting)
        for key, waiting in [*self.waiting.items(), *self.late.items()]:
            if waiting.attempt.deadline <= now:
                self.retired = self.retired or self.heard_at < waiting.sent_at
                self.take_out(key)
                if waiting.exchange.time_out(waiting.attempt, now):
                    self.late[key] = waiting
                else:
                    self.give_up(key)
                late.append(waiting)
        return late

    def drop_given_up(self) -> bool:
        """Take out a query that no client waits for any more; return whether there was any."""
        for key, waiting in self.waiting.items():
            if waiting.is_given_up:
                del self.waiting[key]
                self.give_up(key)
                waiting.exchange.drop_attempt(waiting.attempt)
                return True
        for index, waiting in enumerate(self.queued):
            if waiting.is_given_up:
                del self.queued[index]
                waiting.exchange.drop_attempt(waiting.attempt)
                return True
        return False

    def drop_late(self) -> bool:
        """Take out a late query that has been sent once more; return whether there was any."""
        for key, waiting in self.late.items():
            if waiting.exchange.is_superseded(waiting.attempt):
                del self.late[key]
                self.give_up(key)
                waiting.exchange.drop_attempt(waiting.attempt)
                return True
        return False

    def take_all(self) -> list[Waiting]:
        """Take out and return all queries."""
        everything = [*self.waiting.values(), *self.late.values(), *self.queued]
        self.waiting.clear()
        self.late.clear()
        self.queued.clear()
        return everything

    def close(self) -> None:
        """End the connection in good order."""
        self.retired = True
        # Closing one of asyncio's TLS transports twice breaks it.
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def abort(self) -> None:
        """Cut the connection."""
        self.retired = True
        if self.transport is not None:
            self.transport.abort()
