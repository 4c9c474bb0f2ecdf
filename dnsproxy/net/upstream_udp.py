"""The sockets that carry queries to upstreams over UDP, and the ids of these.

A socket is connected to its upstream (so the kernel drops what comes from anywhere
else), carries a bounded number of queries for a bounded time under any load, and is then
replaced by one with a new random port; each query has a random id that is free on its
socket (RFC 5452 §9.2). docs/design.md has the figures.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from dnsproxy.core.attempt import Attempt
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.stats import Ignored
from dnsproxy.core.upstreams import Upstream
from dnsproxy.transport.source_address import bind_source

# An off-path attacker must guess port and id. Queries that come alone have a port each (RFC 5452 §9.2), those
# of one millisecond share one, 200 at the most: opening and closing one costs 10 us, 1 % of that time.
QUERIES_PER_SOCKET = 200
FRESH_SECONDS = 0.001
# While so many sockets wait for replies a port takes the queries of this longer time: each is a descriptor,
# and there are 50 more of them for each second that a reply takes.
MANY_SOCKETS = 512
SHARED_SECONDS = 0.02
# While no descriptor or port is free the last socket takes further queries for so long, and no more of them.
LAST_SECONDS = 1.0
# An idle socket is closed after this time. It has not taken a query for long.
SECONDS_PER_SOCKET = 5.0
_KIND: Final = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
# A query can have two datagrams beside its reply that answer nothing, one late and one doubled. This many
# more from the upstream's address are guesses by somebody who has found the port: each hits an open
# question with 1 in 65,536, so that the 410 of a socket that is used up hit one with 0.6 %.
MAX_STRAYS = 10


class UpstreamSocket:
    """A connected UDP socket and the attempts to which a reply may come on it, by id, with their exchanges.

    ``left`` queries may still be sent: until ``fresh_until`` (monotonic), while there are many sockets
    until ``shared_until``, while no other can be opened until ``last_until``. At ``close_at`` it is closed
    once nothing waits on it. ``outbox`` waits to be sent.
    ``strays`` counts what came and answered nothing. ``unsent`` has the ids that the kernel had no room for.

    Raises:
        OSError: there is no route, no source address, or no file descriptor.
    """

    __slots__ = (
        *("close_at", "fresh_until", "last_until", "left", "outbox", "pending", "shared_until"),
        *("sock", "strays", "unsent", "upstream"),
    )

    def __init__(self, upstream: Upstream, now: float) -> None:
        family = socket.AF_INET6 if ":" in upstream.address[0] else socket.AF_INET
        # The type below Python's own, which adds files and contexts: 0.6 of the 4.7 us of opening and closing
        # when it is warm, more for a query that comes alone.
        self.sock = socket.SocketType(family, _KIND)
        self.upstream = upstream
        self.pending: dict[bytes, tuple[Exchange, Attempt]] = {}
        self.outbox: list[bytes] = []
        self.left = QUERIES_PER_SOCKET
        self.strays = 0
        self.unsent: set[bytes] = set()
        self.fresh_until = now + FRESH_SECONDS
        self.shared_until = now + SHARED_SECONDS
        self.last_until = now + LAST_SECONDS
        self.close_at = now + SECONDS_PER_SOCKET
        try:
            if upstream.source is not None:
                bind_source(self.sock, upstream.source)
            self.sock.connect(upstream.address)
        except OSError:
            self.sock.close()
            raise

    def takes_more(self, now: float, *, many: bool) -> bool:
        """Return whether it may carry one more query although another can be opened; ``many`` are open."""
        return self.left > 0 and (now < self.fresh_until or (many and now < self.shared_until))

    @property
    def is_guessed_at(self) -> bool:
        """Whether more has come than late and doubled replies can be."""
        return self.strays > MAX_STRAYS + 2 * (QUERIES_PER_SOCKET - self.left)

    def ignore(self, reason: Ignored) -> None:
        """Count a datagram that is of no use."""
        self.strays += 1
        self.upstream.stats.ignored[reason] += 1


class Ids:
    """Random message ids from the system's source, drawn in bulk: a call for each costs 0.5 us."""

    __slots__ = ("_next", "_octets")

    def __init__(self) -> None:
        self._octets = b""
        self._next = 0

    def draw(self) -> bytes:
        """Return the two octets of a new id."""
        at = self._next
        if at >= len(self._octets):
            self._octets = os.urandom(2048)
            at = 0
        self._next = at + 2
        return self._octets[at : at + 2]
