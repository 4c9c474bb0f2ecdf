"""Whose queries wait for upstreams when not all can: the shares of clients in exchanges and in their waiters.

Exchanges are counted by client only while at least half of them are taken, so that a proxy with room does
not spend time on it. Those begun before are counted a few at a time with each new one.
"""

from __future__ import annotations

from typing import Final

from dnsproxy.core.clients import Clients
from dnsproxy.core.exchange import Exchange, Forward
from dnsproxy.core.memory import WAITER, WAITERS
from dnsproxy.core.shares import Share, Shares
from dnsproxy.core.wire import Query

# Further queries that may wait for one exchange, of all clients and of one: after a restart the queue of the
# socket has a second of queries, perhaps all of one resolver in front of us. BIND has 100 for all clients
# together (max-clients-per-query).
MAX_WAITERS = 1_000
MAX_PER_CLIENT = 500
# The same for all exchanges together: as many as the limit in bytes has room for. A client may have as many
# as are left, so one alone takes half of them. unbound's limit for one client is 1,000 (wait-limit).
MAX_WAITING = WAITERS // (2 * WAITER)
# When all places are taken, the oldest query of the client with the most gives way to a new one of its own,
# if it has waited for so many seconds: most that can be answered are by then. Younger ones stay, or a flood
# would let none be answered (as unbound's jostle-timeout, 200 ms).
JOSTLE_AFTER: Final = 0.2
# Exchanges counted with each new one, and those looked at for one that no other client waits for.
_CATCH_UP: Final = 8
_LOOKS: Final = 8


class Fairness:
    """Counts what clients hold of the ``most`` exchanges that may take ``total`` seconds each."""

    def __init__(self, most: int, total: float, clients: Clients) -> None:
        # From so many exchanges on the caller counts each new one.
        self.crowded = most // 2
        self._total = total
        self._clients = clients
        self._slots: Shares[Exchange] = Shares()
        self._uncounted: list[Exchange] = []
        self._waiting: dict[bytes, int] = {}
        self._waiting_total = 0

    # -- exchanges --------------------------------------------------------------

    def count(self, exchange: Exchange, exchanges: dict[bytes, Exchange]) -> None:
        """Count ``exchange``, and some of the ``exchanges`` that were begun before any was counted."""
        uncounted = self._uncounted
        if not uncounted and self._slots.total < len(exchanges):
            uncounted = self._uncounted = list(exchanges.values())
            uncounted.reverse()
        for _ in range(_CATCH_UP):
            if not uncounted:
                break
            earlier = uncounted.pop()
            if exchanges.get(earlier.key) is earlier:
                self._count(earlier)
        self._count(exchange)

    def _count(self, exchange: Exchange) -> None:
        share = exchange.share
        if share is None:
            share = exchange.share = Share()
        if share.holder is None:
            share.holder = self._clients.of(exchange.source) if exchange.source else b""
            self._slots.add(share.holder, exchange)

    def victim(self, source: bytes, now: float) -> tuple[Exchange, bool] | None:
        """Return the exchange that is given up for a query from ``source``, and whether that is another's.

        It is the oldest one of the client with the most, whatever its age if the client of ``source`` has at
        least two fewer. One that a client with fewer waits for as well is that client's from then on.
        """
        slots = self._slots
        if not slots.total:
            return None
        client = self._clients.of(source)
        for _ in range(_LOOKS):
            held = slots.count(client)
            holder = client if held == slots.most else slots.fullest()
            exchange = next(iter(slots.entries(holder)))
            is_fair = held + 1 < slots.most
            if not is_fair and now - (exchange.deadline - self._total) < JOSTLE_AFTER:
                return None
            heir = self._heir(exchange, holder)
            if heir is None:
                return exchange, is_fair
            assert exchange.share is not None  # noqa: S101 - it is counted
            exchange.share.holder = heir
            slots.remove(holder, exchange)
            slots.add(heir, exchange)
        return None

    def _heir(self, exchange: Exchange, holder: bytes) -> bytes | None:
        """Return another client that waits for ``exchange`` and has at least two fewer than ``holder``."""
        slots, share = self._slots, exchange.share
        if share is None:
            return None
        bound = slots.most - 1
        for client in share.waiting:
            if client != holder and slots.count(client) < bound:
                return client
        first = self._clients.of(exchange.source) if exchange.source else holder
        return first if first != holder and slots.count(first) < bound else None

    def end(self, exchange: Exchange) -> None:
        """Count ``exchange`` and all that wait for it no longer."""
        share = exchange.share
        if share is None:
            return
        exchange.share = None
        if share.holder is not None:
            self._slots.remove(share.holder, exchange)
        self._leave(share)

    def replace(self, exchange: Exchange, other: Exchange) -> None:
        """Count ``other`` in place of ``exchange``, with the same waiters."""
        share = exchange.share
        other.source = exchange.source
        other.share = share
        exchange.share = None
        if share is not None and share.holder is not None:
            self._slots.remove(share.holder, exchange)
            self._slots.add(share.holder, other)

    # -- waiters ----------------------------------------------------------------

    def join(self, exchange: Exchange, query: Query, source: bytes) -> bytes | None:
        """Count a further query that waits for ``exchange``; return its client, or None if it may not wait.

        Where there is no room for all, a client may wait as long as it has less than its part. A long query
        counts as several (`_weight`).
        """
        client = self._clients.of(source)
        share = exchange.share
        if share is None:
            share = exchange.share = Share()
        waiting = share.waiting
        held, held_in_all = waiting.get(client, 0), self._waiting.get(client, 0)
        weight = _weight(query)
        if (
            held >= MAX_PER_CLIENT
            or (share.count + 1 >= MAX_WAITERS and held >= MAX_WAITERS // (len(waiting) + 1))
            or held_in_all + weight > MAX_WAITING - self._waiting_total
        ):
            return None
        waiting[client] = held + weight
        share.count += weight
        self._waiting[client] = held_in_all + weight
        self._waiting_total += weight
        return client

    def is_copy(self, forward: Forward, token: object) -> bool:
        """Tell whether the query of ``forward`` waits already: same id, question and ``token``.

        It has joined; if it is a copy it is not counted any more.
        """
        exchange, query = forward.exchange, forward.query
        share = exchange.share
        if share is None:
            return False
        if not share.peers:
            share.peers = {(waiter[2], waiter[0].head()) for waiter in exchange.waiters}
        peer = (token, query.head())
        if peer not in share.peers:
            share.peers.add(peer)
            return False
        weight = _weight(query)
        share.count -= weight
        self._subtract(share.waiting, forward.client, weight)
        self._subtract(self._waiting, forward.client, weight)
        self._waiting_total -= weight
        return True

    def forget_waiters(self, exchange: Exchange) -> None:
        """Count those that wait for ``exchange`` no longer: they have been answered."""
        share = exchange.share
        if share is not None:
            self._leave(share)
            share.count = 0
            share.waiting = {}
            share.peers = set()

    def _leave(self, share: Share) -> None:
        for client, count in share.waiting.items():
            self._subtract(self._waiting, client, count)
            self._waiting_total -= count

    def _subtract(self, counts: dict[bytes, int], client: bytes, count: int) -> None:
        left = counts[client] - count
        if left:
            counts[client] = left
        else:
            del counts[client]


def _weight(query: Query) -> int:
    """Return as how many ``query`` counts: each has less than `WAITER` bytes of it."""
    return 1 + len(query.data) // WAITER
