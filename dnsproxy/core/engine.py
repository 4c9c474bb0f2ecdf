"""The front door: what each query gets, decided in one straight line.

`Engine.receive_batch` gives for each message the response as bytes, a `Forward` for the shell to
carry out, or the `DropReason` it was dropped for. It never waits and raises
nothing. When a forwarded exchange has ended the shell calls `Engine.complete`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import floor
from typing import Final

from dnsproxy.core import message, wire
from dnsproxy.core.access import AccessList
from dnsproxy.core.cache import Cache, Entry
from dnsproxy.core.exchange import Exchange, Failure, Limits
from dnsproxy.core.policy import Owned, Ruleset
from dnsproxy.core.prepared import Prepared, PreparedTable
from dnsproxy.core.question import cache_key, refusal
from dnsproxy.core.response import Response, aged, read_name, scan_response
from dnsproxy.core.stats import CACHE, ERROR, FORWARD, LEARNED, STALE, Stats, request_number, response_number
from dnsproxy.core.upstreams import Upstream, order
from dnsproxy.core.wire import Query, without_cookie
from dnsproxy.errors import DropReason, WireError

# Extended DNS Errors (RFC 8914 §4).
EDE_STALE: Final = 3
EDE_NOT_READY: Final = 14
EDE_NO_REACHABLE_AUTHORITY: Final = 22
EDE_NETWORK_ERROR: Final = 23
# Seconds that a failure is remembered (RFC 9520 §3.2 asks for 1 s at least and 5 min at most).
FAILURE_TTL: Final = 2.0
# Queries that may wait for one exchange, and cached answers that hold learned addresses.
MAX_WAITERS = 1_000
MAX_DERIVED = 1_000
_TC: Final = 0x02  # in the third octet of a message
_NO_RECORDS: Final = (0, 0, 0)
_NETWORK_FAILURES: Final = frozenset({Failure.NETWORK, Failure.CERTIFICATE, Failure.TLS, Failure.HTTP})


class Forward:
    """Ask upstream: ``exchange`` is shared by identical questions; ``is_new`` for the first of them."""

    __slots__ = ("exchange", "is_new", "query")

    def __init__(self, exchange: Exchange, query: Query, *, is_new: bool) -> None:
        self.exchange = exchange
        self.query = query
        self.is_new = is_new


class Engine:
    """Rules, cache and exchanges in flight, behind one function.

    ``groups`` are the upstreams by zone key, the default ones under the root.
    """

    def __init__(
        self,
        access: AccessList,
        groups: dict[bytes, tuple[Upstream, ...]],
        *,
        limits: Limits,
        max_in_flight: int,
        cache: Cache,
    ) -> None:
        self.stats = Stats()
        self.cache = cache
        self.prepared = PreparedTable(self.stats)
        self.rules = Ruleset()
        self._access = access
        self.groups = groups
        self._limits = limits
        self._max_in_flight = max_in_flight
        self._in_flight: dict[bytes, Exchange] = {}
        # Keys of cached answers that end in learned addresses, to be forgotten when those change.
        self._derived: set[bytes] = set()

    # -- queries ----------------------------------------------------------

    def receive_batch(
        self, messages: list[bytes], sources: Sequence[bytes], now: float
    ) -> list[bytes | Forward | DropReason]:
        """Decide what each of ``messages`` gets; they came over UDP from the packed addresses ``sources``.

        ``now`` is monotonic seconds. One call for a batch rather than one per message,
        because a call costs as much as the look-up that answers most of them.
        """
        steps: list[bytes | Forward | DropReason] = []
        access = self._access
        table = self.prepared.entries
        for data, source in zip(messages, sources):  # noqa: B905 - `strict` would not be compiled to a loop
            # 1. May this client ask at all?
            if not access.allows(source):
                steps.append(self._refuse_client(data))
                continue
            # 2. Has this very packet been answered before?
            prepared = table.get(without_cookie(data))
            tail = None if prepared is None else prepared.take(now)
            if tail is not None:
                steps.append(data[:2] + tail)
            else:
                steps.append(self._decide(data, now, tcp=False))
        return steps

    def receive(
        self, data: bytes, source: bytes, now: float, *, tcp: bool = False
    ) -> bytes | Forward | DropReason:
        """Decide what one message gets, as `receive_batch`; over TCP nothing is prepared."""
        if not tcp:
            return self.receive_batch([data], (source,), now)[0]
        if not self._access.allows(source):
            return self._refuse_client(data)
        return self._decide(data, now, tcp=True)

    def _decide(self, data: bytes, now: float, *, tcp: bool) -> bytes | Forward | DropReason:
        # 3. Is it a query that can be answered?
        try:
            query = wire.scan_query(data)
        except WireError as exc:
            self.stats.drops[exc.reason] += 1
            return exc.reason
        request = request_number(query.qtype, tcp=tcp)
        self.stats.count_request(request)
        if tcp:
            query.limit = wire.TCP_LIMIT
        rcode = query.rcode or refusal(query)
        if rcode:
            return self._respond_error(query, rcode)

        # 4. Is the name ours? Then it is answered here, whatever the type.
        owned = self.rules.find_owned(query.key)
        if owned is not None:
            return self._answer_owned(query, owned, now, None if tcp else request)

        # 5. Only clients that want recursion see the cache or the upstreams.
        if not query.flags & wire.RD:
            return self._respond_error(query, wire.REFUSED)
        key = cache_key(query)
        entry = self.cache.get(key, now)
        if entry is not None:
            self.stats.cache_hits += 1
            return self._answer_cached(query, entry, now, None if tcp else request)
        self.stats.cache_misses += 1

        # 6. Ask upstream, together with whoever asks the same now.
        return self._forward(query, key, now)

    def _refuse_client(self, data: bytes) -> bytes | DropReason:
        self.stats.drops[DropReason.REFUSED_CLIENT] += 1
        try:
            query = wire.scan_query(data)
        except WireError:
            return DropReason.REFUSED_CLIENT
        # Never larger than the query: our OPT has no options.
        return self._respond_error(query, wire.REFUSED)

    def _respond_error(self, query: Query, rcode: int, ede: int | None = None) -> bytes:
        self.stats.count_response(response_number(rcode, ERROR))
        options = b"" if ede is None else wire.error_option(ede)
        return wire.respond(query, wire.RA, rcode, _NO_RECORDS, b"", options)

    def _answer_owned(self, query: Query, owned: Owned, now: float, request: int | None) -> bytes:
        given = owned.at(now)
        if given is None:
            return self._respond_error(query, wire.SERVFAIL, EDE_NOT_READY)
        stale = now >= owned.stale_at
        options = wire.error_option(EDE_STALE) if stale else b""
        flags = wire.AA | wire.RA
        responses = [
            wire.respond(query, flags, 0, counts, sections, options)
            for counts, sections in given.variants(query.qtype)
        ]
        number = response_number(wire.NOERROR, STALE if stale else LEARNED)
        self.stats.count_response(number)
        if request is not None:
            # The first variant answers this query, so the prepared ones start with the second.
            tails = [response[2:] for response in (*responses[1:], responses[0])]
            until = owned.gone_at if stale else owned.stale_at
            self.prepared.keep(query, Prepared(tails, request, number, until))
        return responses[0]

    def _answer_cached(self, query: Query, entry: Entry, now: float, request: int | None) -> bytes:
        response = self._from_entry(query, entry, now)
        number = response_number(entry.rcode, CACHE)
        self.stats.count_response(number)
        if request is not None:
            made = entry.stored + floor(now - entry.stored)
            tails, offsets = [response[2:]], _ttl_offsets(query, entry, response)
            self.prepared.keep(query, Prepared(tails, request, number, entry.expires, made, offsets))
        return response

    def _from_entry(self, query: Query, entry: Entry, now: float) -> bytes:
        elapsed = floor(now - entry.stored)
        sections = aged(entry.sections, entry.ttl_offsets, elapsed) if elapsed else entry.sections
        flags = _client_flags(query, entry.flags)
        return wire.respond(query, flags, entry.rcode, entry.counts, sections)

    def _forward(self, query: Query, key: bytes, now: float) -> Forward | DropReason:
        exchange = self._in_flight.get(key)
        if exchange is not None and len(exchange.waiters) < MAX_WAITERS:
            return Forward(exchange, query, is_new=False)
        if exchange is not None or len(self._in_flight) >= self._max_in_flight:
            self.stats.drops[DropReason.OVERLOADED] += 1
            return DropReason.OVERLOADED
        group = self.groups[self.rules.find_zone(query.key)]
        exchange = Exchange(key, query, order(group, now), self._limits, now)
        self._in_flight[key] = exchange
        return Forward(exchange, query, is_new=True)

    # -- exchanges --------------------------------------------------------

    def complete(self, exchange: Exchange, now: float) -> list[bytes]:
        """End ``exchange`` and return the responses to its waiters, in their order."""
        self._in_flight.pop(exchange.key, None)
        response = exchange.response
        if response is not None and (response.cnames or response.opt_inside):
            response = self._rewritten(exchange, response, now)
        if response is None:
            return self._failed(exchange, now)
        entry = self.cache.keep(exchange.key, response, now)
        waiters = exchange.waiters
        self.stats.count_response(response_number(entry.rcode, FORWARD), len(waiters))
        return [self._from_entry(waiter[0], entry, now) for waiter in waiters]

    def _failed(self, exchange: Exchange, now: float) -> list[bytes]:
        network = exchange.last_failure in _NETWORK_FAILURES
        ede = EDE_NETWORK_ERROR if network else EDE_NO_REACHABLE_AUTHORITY
        failure = Response(0, 0)
        failure.rcode = wire.SERVFAIL
        self.cache.put(exchange.key, Entry(failure, now, FAILURE_TTL))
        return [self._respond_error(waiter[0], wire.SERVFAIL, ede) for waiter in exchange.waiters]

    def _rewritten(self, exchange: Exchange, response: Response, now: float) -> Response | None:
        """Give a CNAME chain that leads to an owned name the learned addresses; take a misplaced OPT out.

        None when the response cannot be used.
        """
        reply = exchange.reply

        def find(key: bytes) -> Owned | None:
            owned = self.rules.find_owned(key)
            return None if owned is None else owned.at(now)

        try:
            if any(find(read_name(reply, at)) is not None for at in response.cnames):
                reply = message.with_owned_targets(reply, find)
            if reply is not exchange.reply:
                response = scan_response(reply, response.question_end)
                if len(self._derived) >= MAX_DERIVED:
                    response.ttl = None
                else:
                    self._derived.add(exchange.key)
            elif response.opt_inside:
                response = scan_response(message.without_opt(reply), response.question_end)
        except WireError:
            return None
        return response

    # -- changes ----------------------------------------------------------

    def swap_rules(self, rules: Ruleset) -> None:
        """Put new rules in force for every query from now on."""
        self.rules = rules
        for key in self._derived:
            self.cache.remove(key)
        self._derived.clear()
        self.prepared.clear()

    def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of one name, or all; return how many."""
        self.prepared.clear()
        if name_key is None:
            return self.cache.clear()
        doomed = [key for key in self.cache.keys() if key[:-5] == name_key]  # noqa: SIM118 - not a dict
        return sum(self.cache.remove(key) for key in doomed)

    def stats_now(self) -> Stats:
        """Return the statistics with the hits of the prepared table added."""
        self.prepared.settle()
        self.stats.settle()
        return self.stats

    def upstreams(self) -> Iterator[Upstream]:
        """Yield every upstream of every zone."""
        for group in self.groups.values():
            yield from group

    @property
    def in_flight(self) -> int:
        """How many exchanges wait for an upstream."""
        return len(self._in_flight)


def _ttl_offsets(query: Query, entry: Entry, response: bytes) -> tuple[int, ...]:
    """Return where the TTLs of ``entry`` are in ``response`` without its id; nowhere after truncation."""
    start = query.question_end - 2
    return () if response[2] & _TC else tuple([start + offset for offset in entry.ttl_offsets])


def _client_flags(query: Query, flags: int) -> int:
    """Return RA, and AD for a client that has said it understands AD (RFC 6840 §5.7, §5.8)."""
    wants_ad = query.do or query.flags & wire.AD
    return wire.RA | (flags & wire.AD if wants_ad else 0)
