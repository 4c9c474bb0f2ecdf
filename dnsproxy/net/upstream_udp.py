"""The sockets that carry queries to upstreams over UDP, and the ids of these.

A socket is connected to its upstream (so the kernel drops what comes from anywhere
else), carries a bounded number of queries for a bounded time, and then gives way to
one with a new random port; each query has a random id that is free on its socket
(RFC 5452 §9.2).
"""

from __future__ import annotations

import os
import socket

from dnsproxy.core.exchange import Exchange
from dnsproxy.core.stats import Ignored
from dnsproxy.core.upstreams import Upstream

# An off-path attacker must guess port and id while the socket lives. Opening one
# and closing one costs about 10 us, so 200 queries share 0.05 us each of it.
QUERIES_PER_SOCKET = 200
SECONDS_PER_SOCKET = 5.0
# A query can have two datagrams beside its reply that answer nothing, one late and one doubled. This many
# more from the upstream's address are guesses by somebody who has found the port: each hits an open
# question with 1 in 65,536, so that the 410 of a socket that is used up hit one with 0.6 %.
MAX_STRAYS = 10


class UpstreamSocket:
    """A connected UDP socket and the exchanges that wait on it, by id.

    ``left`` queries may still be sent, until ``close_at`` (monotonic). ``outbox`` waits to be sent.
    ``strays`` counts what came and answered nothing.

    Raises:
        OSError: there is no route, or no file descriptor.
    """

    __slots__ = ("close_at", "left", "outbox", "pending", "sock", "strays", "upstream")

    def __init__(self, upstream: Upstream, now: float) -> None:
        family = socket.AF_INET6 if ":" in upstream.address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.upstream = upstream
        self.pending: dict[bytes, Exchange] = {}
        self.outbox: list[bytes] = []
        self.left = QUERIES_PER_SOCKET
        self.strays = 0
        self.close_at = now + SECONDS_PER_SOCKET
        try:
            self.sock.setblocking(False)
            self.sock.connect(upstream.address)
        except OSError:
            self.sock.close()
            raise

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
