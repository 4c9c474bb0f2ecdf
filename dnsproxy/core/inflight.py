"""Questions that are with an upstream: shared, bounded, raced, asked anew behind the clients' backs.

`start` begins an exchange for a client, `complete` ends one. What is to be done besides, the
shell finds in ``begun`` (exchanges to carry out that no query was returned for) and in ``late``
(responses to clients that wait no longer), and calls `tick` at ``wake_at``.
"""

from __future__ import annotations

from typing import Final

from dnsproxy.core import answers, wire
from dnsproxy.core.answers import (
    EDE_NETWORK_ERROR,
    EDE_NO_REACHABLE_AUTHORITY,
    EDE_NOT_READY,
    EDE_NOT_SUPPORTED,
)
from dnsproxy.core.attempt import Failure, Limits
from dnsproxy.core.cache import Cache, Entry
from dnsproxy.core.chains import Chains, Redirect
from dnsproxy.core.chance import Chance
from dnsproxy.core.clients import Clients
from dnsproxy.core.cuts import Cuts
from dnsproxy.core.exchange import GIVEN_UP, PLAIN, PROBE, REFRESH, SPENT, Exchange, Forward, Waiter
from dnsproxy.core.failures import Failures
from dnsproxy.core.fairness import Fairness
from dnsproxy.core.features import Features
from dnsproxy.core.group import Group
from dnsproxy.core.memory import LONGEST_FORWARDED
from dnsproxy.core.policy import DEFAULT_ZONE, Ruleset
from dnsproxy.core.prober import LOOK_EVERY, Prober
from dnsproxy.core.response import Response
from dnsproxy.core.returns import LABEL
from dnsproxy.core.stats import ERROR, FORWARD, STALE, Stats, response_number
from dnsproxy.core.wire import Query
from dnsproxy.errors import DropReason

# RFC 8767 §5, the client response timer: who waits longer than this for an answer gets a stale one.
CLIENT_WAIT: Final = 1.8
# Exchanges that nobody waits for, at the most one in so many of those that may be in flight.
REFRESH_PART: Final = 10
_NETWORK_FAILURES: Final = frozenset({Failure.NETWORK, Failure.CERTIFICATE, Failure.TLS, Failure.HTTP})


class InFlight:
    """Exchanges by cache key, and all that decides how they begin and end."""

    def __init__(
        self,
        groups: dict[bytes, Group],
        limits: Limits,
        most: int,
        cache: Cache,
        stats: Stats,
        chance: Chance,
        features: Features,
        clients: Clients | None = None,
    ) -> None:
        self.begun: list[Exchange] = []
        self.late: list[tuple[Waiter, bytes]] = []
        self.wake_at = 0.0
        self.failures = Failures()
        self.chains = Chains(cache)
        self.cuts = Cuts() if features.nxdomain_cut else None
        self.prober = Prober(groups, features.probe_interval, limits.attempt, chance, features.returns)
        self.rules = Ruleset()
        self._groups = groups
        self._default_group = groups[DEFAULT_ZONE]
        self._limits = limits
        self._most = most
        self._cache = cache
        self._stats = stats
        self._chance = chance
        self._mixes_case = features.mix_case
        self._times_clients = cache.stale_for > 0 and limits.total > CLIENT_WAIT
        races = any(group.races for group in groups.values())
        # One test for every miss in place of one for each of these.
        self._is_plain = not (self._mixes_case or races)
        self._exchanges: dict[bytes, Exchange] = {}
        self._fairness = Fairness(most, limits.total, clients or Clients())
        self._crowded = self._fairness.crowded
        self._refreshing = 0
        # Clients that get a stale answer at a time, if theirs has not come by then; in that order.
        self._timed: list[tuple[float, Exchange]] = []

    def __len__(self) -> int:
        return len(self._exchanges)

    @property
    def waiters(self) -> int:
        """How many clients wait for an answer."""
        return len(self.late) + sum(len(exchange.waiters) for exchange in self._exchanges.values())

    def waited(self) -> list[Exchange]:
        """Return the exchanges that clients wait for."""
        return [exchange for exchange in self._exchanges.values() if exchange.waiters]

    def waiting(self, key: bytes) -> int | None:
        """Return how many clients wait for the answer of ``key``; None when it is not being asked for."""
        return len(self._exchanges[key].waiters) if key in self._exchanges else None

    # -- beginnings -----------------------------------------------------------

    def start(
        self, query: Query, key: bytes, zone: bytes, source: bytes, now: float
    ) -> Forward | bytes | DropReason:
        """Ask upstream for the client at ``source``, together with others that ask the same now."""
        if len(query.data) > LONGEST_FORWARDED:
            self._stats.count_response(response_number(wire.REFUSED, ERROR))
            return answers.error(query, wire.REFUSED, EDE_NOT_SUPPORTED)
        exchange = self._exchanges.get(key)
        if exchange is not None:
            return self._join(exchange, query, source, now)
        if query.key[0] == LABEL and self.prober.came_back(query.key, now):
            return self._fail(query, EDE_NO_REACHABLE_AUTHORITY)
        crowded = len(self._exchanges) >= self._crowded
        if crowded and len(self._exchanges) >= self._most and not self._make_room(source, now):
            self._stats.drops[DropReason.OVERLOADED] += 1
            return DropReason.OVERLOADED
        group = self._default_group if len(zone) == 1 else self._groups[zone]
        order = group.order()
        if not order:
            return self._unreachable(query, key, now)
        exchange = Exchange(key, query, order, self._limits, now, zone)
        exchange.source = source
        if not (self._is_plain and order[0].usable) or (self._times_clients and key in self._cache):
            early = self._start_otherwise(exchange, query, now)
            if early is not None:
                return early
        if crowded:
            self._fairness.count(exchange, self._exchanges)
        self._exchanges[key] = exchange
        return Forward(exchange, query, is_new=True)

    def _join(
        self, exchange: Exchange, query: Query, source: bytes, now: float
    ) -> Forward | bytes | DropReason:
        if exchange.purpose == REFRESH:
            entry = self._stale_entry(exchange.key, now)
            if entry is not None:
                return self._stale(query, entry)
        client = self._fairness.join(exchange, query, source)
        if client is not None:
            return Forward(exchange, query, is_new=False, client=client)
        self._stats.drops[DropReason.TOO_MANY_WAITERS] += 1
        return DropReason.TOO_MANY_WAITERS

    def is_copy(self, forward: Forward, token: object) -> bool:
        """Tell whether a query over UDP that has joined an exchange is a copy of one that waits for it.

        ``token`` stands for the address and port that it came from. A copy is answered by the answer to the
        other one. Over TCP each query has its answer (RFC 7766), as clients count them.
        """
        if forward.query.limit == wire.TCP_LIMIT or not self._fairness.is_copy(forward, token):
            return False
        self._stats.drops[DropReason.DUPLICATE] += 1
        return True

    def _start_otherwise(self, exchange: Exchange, query: Query, now: float) -> bytes | None:
        """Do what only some configurations, or failures, ask for; return a stale answer if one is due."""
        if self._mixes_case:
            exchange.mix_case(self._chance)
        entry = self._stale_entry(exchange.key, now)
        if entry is not None:
            if not exchange.upstream.usable:
                # Nobody answers, as far as is known. One who asks need not wait for that to change.
                if self._may_refresh():
                    self._begin_refresh(exchange, "stale")
                return self._stale(query, entry)
            if self._times_clients:
                self._timed.append((now + CLIENT_WAIT, exchange))
                self.wake_at = min(self.wake_at, now + CLIENT_WAIT)
        if self._groups[exchange.zone].races and exchange.has_second:
            self.begun.append(exchange.race(query, now))
        return None

    def _make_room(self, source: bytes, now: float) -> bool:
        """Give up an exchange for a query from ``source``; return whether there is room."""
        found = self._fairness.victim(source, now)
        if found is None:
            return False
        exchange, is_fair = found
        self._fairness.end(exchange)
        del self._exchanges[exchange.key]
        reason = DropReason.OVER_SHARE if is_fair else DropReason.OVERLOADED
        self._stats.drops[reason] += len(exchange.waiters)
        for waiter in exchange.waiters:
            query = waiter[0]
            if query.limit == wire.TCP_LIMIT:
                # A connection waits for each of its answers.
                self.late.append((waiter, answers.error(query, wire.SERVFAIL, EDE_NO_REACHABLE_AUTHORITY)))
        exchange.waiters.clear()
        if exchange.purpose == REFRESH:
            self._refreshing -= 1
        for one in (exchange, exchange.partner):
            if one is not None:
                one.give_up()
                one.purpose = GIVEN_UP
        return True

    # -- refreshes ------------------------------------------------------------

    def refresh(self, query: Query, key: bytes, zone: bytes, reason: str, now: float) -> None:
        """Ask for what ``query`` asks, with nobody waiting, if that is not being done and there is room."""
        if key in self._exchanges or not self._may_refresh():
            return
        if reason == "prefetch" and self.failures.active and self.failures.get(key, now) is not None:
            return
        order = self._groups[zone].order()
        if order:
            exchange = Exchange(key, query, order, self._limits, now, zone)
            if self._mixes_case:
                exchange.mix_case(self._chance)
            self._begin_refresh(exchange, reason)

    def _may_refresh(self) -> bool:
        bound = -(-self._most // REFRESH_PART)
        return self._refreshing < bound and 2 * len(self._exchanges) < self._most + 1

    def _begin_refresh(self, exchange: Exchange, reason: str) -> None:
        exchange.purpose = REFRESH
        self._refreshing += 1
        self._exchanges[exchange.key] = exchange
        self._stats.refreshes[reason] += 1
        self.begun.append(exchange)

    def forget(self, name_key: bytes | None) -> None:
        """Forget what failed and what does not exist, of one name or of all."""
        self.failures.forget_name(name_key)
        if self.cuts is not None:
            self.cuts.clear()

    # -- answers without an exchange ---------------------------------------------

    def remembered(self, query: Query, key: bytes, zone: bytes, now: float) -> bytes | None:
        """Return what to answer while a failure of the same question is remembered, if anything."""
        failed = self.failures.get(key, now)
        if failed is None:
            return None
        entry = self._stale_entry(key, now)
        if entry is not None:
            if now >= failed.until:
                self.refresh(query, key, zone, "stale", now)
            return self._stale(query, entry)
        if now < failed.until:
            return self._fail(query, failed.ede, answers.EDE_CACHED_ERROR)
        return None

    def _stale_entry(self, key: bytes, now: float) -> Entry | None:
        return self._cache.stale(key, now) if self._cache.stale_for else None

    def _stale(self, query: Query, entry: Entry) -> bytes:
        self._stats.count_response(response_number(entry.rcode, STALE))
        return answers.from_stale(query, entry)

    def _fail(self, query: Query, *reasons: int) -> bytes:
        self._stats.count_response(response_number(wire.SERVFAIL, ERROR))
        return answers.error(query, wire.SERVFAIL, *reasons)

    def _unreachable(self, query: Query, key: bytes, now: float) -> bytes:
        entry = self._stale_entry(key, now)
        return self._fail(query, EDE_NO_REACHABLE_AUTHORITY) if entry is None else self._stale(query, entry)

    # -- ends -------------------------------------------------------------------

    def complete(self, exchange: Exchange, now: float) -> list[bytes]:
        """End ``exchange`` and return the responses to its waiters, in their order."""
        exchange.ended = True
        if (exchange.purpose != PLAIN or exchange.partner is not None) and not self._ends(exchange, now):
            return []
        response = exchange.response
        if (
            exchange.origin is not None or (response is not None and (response.cnames or response.strays))
        ) and not self._is_final(exchange, now):
            return []
        response = exchange.response
        key = exchange.key
        # One that had given way is not there any more, but perhaps one that asks the same again.
        if self._exchanges.get(key) is exchange:
            del self._exchanges[key]
        if exchange.share is not None:
            self._fairness.end(exchange)
        if response is None:
            return self._failed(exchange, now)
        entry = self._cache.keep(key, response, now)
        if self.failures.active:
            self.failures.forget(key)
        if self.cuts is not None:
            self.cuts.learn(exchange, entry, now)
        waiters = exchange.waiters
        if waiters:
            self._stats.count_response(response_number(entry.rcode, FORWARD), len(waiters))
        return [answers.from_entry(waiter[0], entry, now) for waiter in waiters]

    def _is_final(self, exchange: Exchange, now: float) -> bool:
        """Apply the rules to the response of ``exchange``; return whether that is its end."""
        found = self._rewritten(exchange, now)
        if isinstance(found, Redirect):
            if self._follows(exchange, found):
                return False
            found = None
        exchange.response = found
        return True

    def _rewritten(self, exchange: Exchange, now: float) -> Response | Redirect | None:
        response, origin = exchange.response, exchange.origin
        if response is not None:
            return self.chains.rewritten(exchange, response, self.rules, now)
        if origin is None or origin.partial is None:
            return None
        response, exchange.reply = origin.partial
        return self.chains.rewritten(exchange, response, self.rules, now, is_partial=True)

    def _follows(self, exchange: Exchange, redirect: Redirect) -> bool:
        """Begin the exchange that asks where an answer leads, for the same waiters; return whether it can."""
        order = self._groups[redirect.zone].order()
        if not order:
            return False
        if exchange.purpose == GIVEN_UP:
            return True  # no client waits, and it must send nothing more
        other = exchange.follow(redirect.links, redirect.zone, order)
        if self._mixes_case:
            other.mix_case(self._chance)
        self._replace(exchange, other)
        if other.purpose == REFRESH:
            self._refreshing += 1
        self.begun.append(other)
        return True

    def _replace(self, exchange: Exchange, other: Exchange) -> None:
        """Let ``other`` answer those who wait for ``exchange`` or are still to come."""
        if self._exchanges.get(exchange.key) is exchange:
            self._exchanges[exchange.key] = other
            self._fairness.replace(exchange, other)

    def _ends(self, exchange: Exchange, now: float) -> bool:
        """Take the end of a probe, a refresh or one that races; tell whether anybody's question has ended."""
        if exchange.purpose == PROBE:
            self.prober.complete(exchange, now)
            return False
        if exchange.purpose == SPENT:
            return False
        if exchange.purpose == REFRESH:
            self._refreshing -= 1
        other = exchange.partner
        if other is None:
            return True
        exchange.partner = other.partner = None
        if exchange.response is None:
            # The other one goes on, for all who wait or are still to come.
            exchange.waiters = []
            self._replace(exchange, other)
            return False
        other.waiters = []
        other.purpose = SPENT
        self._replace(other, exchange)
        return True

    def _failed(self, exchange: Exchange, now: float) -> list[bytes]:
        network = exchange.last_failure in _NETWORK_FAILURES
        ede = exchange.error or (EDE_NETWORK_ERROR if network else EDE_NO_REACHABLE_AUTHORITY)
        if exchange.last_failure is Failure.LOCAL:
            # Nothing is known of the name: the next query may be asked.
            ede = exchange.error or EDE_NOT_READY
        else:
            self.failures.remember(exchange.key, ede, now)
        entry = self._stale_entry(exchange.key, now)
        if entry is not None:
            return [self._stale(waiter[0], entry) for waiter in exchange.waiters]
        return [self._fail(waiter[0], ede) for waiter in exchange.waiters]

    # -- time -------------------------------------------------------------------

    def tick(self, now: float) -> list[tuple[str, str]]:
        """Do what is due, probes and stale answers; return what there is to tell (`Prober.news`)."""
        while self._timed and self._timed[0][0] <= now:
            self._answer_late(self._timed.pop(0)[1], now)
        self.begun.extend(self.prober.due(now))
        self.failures.tidy(now)
        self.wake_at = now + LOOK_EVERY
        if self._timed:
            self.wake_at = min(self.wake_at, self._timed[0][0])
        return self.prober.news()

    def _answer_late(self, exchange: Exchange, now: float) -> None:
        """Give those who wait a stale answer; the exchange goes on for those to come."""
        entry = self._cache.stale(exchange.key, now)
        # Of two that race the other one may have taken over.
        current = self._exchanges.get(exchange.key)
        if entry is None or current is None or current.deadline != exchange.deadline:
            return
        for waiter in current.waiters:
            self.late.append((waiter, self._stale(waiter[0], entry)))
        current.waiters.clear()
        self._fairness.forget_waiters(current)
        if current.purpose == PLAIN and current.partner is None:
            current.purpose = REFRESH
            self._refreshing += 1
