"""The front door: what each query gets, decided in one straight line.

`Engine.receive` gives for a message the response as bytes, a `Forward` for the shell to
carry out, or the `DropReason` it was dropped for. It never waits and raises nothing.
When a forwarded exchange has ended the shell calls `Engine.complete`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import floor
from typing import Final

from dnsproxy.core import answers, message, wire
from dnsproxy.core.access import AccessList
from dnsproxy.core.answers import EDE_NOT_AUTHORITATIVE, EDE_NOT_READY, EDE_NOT_SUPPORTED, EDE_STALE
from dnsproxy.core.cache import Cache, Entry
from dnsproxy.core.chance import Chance
from dnsproxy.core.clients import Clients
from dnsproxy.core.exchange import Exchange, Forward, Limits
from dnsproxy.core.features import NO_FEATURES, Features
from dnsproxy.core.gate import limit_client, refuse_client
from dnsproxy.core.group import Group
from dnsproxy.core.inflight import InFlight
from dnsproxy.core.limiter import PASS, RateLimiter
from dnsproxy.core.policy import DEFAULT_ZONE, Owned, Ruleset
from dnsproxy.core.prepared import Prepared, PreparedTable
from dnsproxy.core.question import cache_key, chaos_text, may_be_special, refusal
from dnsproxy.core.special import SpecialZones
from dnsproxy.core.stats import CACHE, ERROR, LEARNED, LOCAL, STALE, Stats, request_number, response_number
from dnsproxy.core.times import Times
from dnsproxy.core.upstreams import Upstream
from dnsproxy.core.wire import Query, without_cookie
from dnsproxy.errors import DropReason, WireError

__all__ = ["Engine", "Forward"]

# In the last part of its life a busy entry is asked for anew: before it ends, as unbound does.
PREFETCH_PART: Final = 0.1
# Look-ups that make an entry busy, the one that finds it near its end included.
PREFETCH_HITS: Final = 2
ANY_TTL: Final = 3_600


class Engine:
    """Rules, cache and exchanges in flight, behind one function.

    ``groups`` are upstreams by zone key, ``limiter`` limits UDP; ``stats`` are those of an earlier engine.
    ``clients`` says which addresses count as one, wherever something is shared out.
    """

    def __init__(  # noqa: PLR0913 - all but two are given by name
        self,
        access: AccessList,
        groups: dict[bytes, Group],
        *,
        limits: Limits,
        max_in_flight: int,
        cache: Cache,
        chance: Chance,
        features: Features = NO_FEATURES,
        limiter: RateLimiter | None = None,
        clients: Clients | None = None,
        stats: Stats | None = None,
    ) -> None:
        self.stats = stats or Stats()
        self.clients = clients or Clients()
        self.times = Times(self.stats)
        self.cache = cache
        self.prepared = PreparedTable(self.stats)
        self.rules = Ruleset()
        self.groups = groups
        self.special = SpecialZones()
        self.features = features
        self.limiter = limiter
        self.exchanges = InFlight(
            groups, limits, max_in_flight, cache, self.stats, chance, features, self.clients
        )
        self._access = access
        self._denies = features.minimal_any or features.nxdomain_cut
        self._any_record = message.any_record(message.QUESTION_NAME, ANY_TTL)
        self._prefetch_part = PREFETCH_PART if features.prefetch else 0.0

    # -- queries ----------------------------------------------------------

    def admits(self, source: bytes) -> bool:
        """Tell whether the packed address ``source`` may connect at all; count a connection that may not.

        A listener asks before anything is allocated for a connection: a slot, a buffer or a handshake.
        """
        if self._access.allows(source):
            return True
        self.stats.drops[DropReason.REFUSED_CLIENT] += 1
        return False

    def receive_batch(
        self, messages: list[bytes], sources: Sequence[bytes], now: float
    ) -> list[bytes | Forward | DropReason]:
        """Decide what each of ``messages`` gets, as `receive`."""
        # `strict` would not be compiled to a loop.
        return [self.receive(data, source, now) for data, source in zip(messages, sources)]  # noqa: B905

    def receive(
        self, data: bytes, source: bytes, now: float, *, tcp: bool = False
    ) -> bytes | Forward | DropReason:
        """Decide what one message gets, which came from the packed address ``source``, over UDP or ``tcp``.

        ``now`` is monotonic seconds. What came over TCP prepares nothing, and is not limited.
        """
        # 1. May this client ask at all?
        if not self._access.allows(source):
            return refuse_client(self.stats, data)
        # 2. Has it asked too much?
        if self.limiter is not None and not tcp:
            verdict = self.limiter.verdict(source, now)
            if verdict != PASS:
                return limit_client(self.stats, data, verdict)
        # 3. Has this very packet been answered before?
        prepared = self.prepared.entries.get(without_cookie(data))
        if prepared is not None:
            tail = prepared.take_for_stream(now) if tcp else prepared.take(now)
            if tail is not None:
                return data[:2] + tail
        return self._decide(data, source, now, tcp=tcp)

    def _decide(self, data: bytes, source: bytes, now: float, *, tcp: bool) -> bytes | Forward | DropReason:
        # 4. Is it a query that can be answered?
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
            return self._refuse(query, rcode)

        # 5. Is the name ours? Then it is answered here, whatever the type.
        owned = self.rules.find_owned(query.key)
        if owned is not None:
            return self._answer_owned(query, owned, now, None if tcp else request)

        # 6. Only clients that want recursion see the cache.
        key = cache_key(query)
        if query.flags & wire.RD:
            entry = self.cache.get(key, now)
            if entry is not None:
                self.stats.cache_hits += 1
                return self._answer_cached(query, key, entry, now, None if tcp else request)
            self.stats.cache_misses += 1
        return self._miss(query, key, source, now, None if tcp else request)

    def _miss(
        self, query: Query, key: bytes, source: bytes, now: float, request: int | None
    ) -> bytes | Forward | DropReason:
        # 7. Is it a name that no upstream need be asked for?
        zone = self.rules.find_zone(query.key)
        if self._denies or (len(zone) == 1 and may_be_special(query.key)):
            denied = self._deny(query, zone, now, request)
            if denied is not None:
                return denied
        if not query.flags & wire.RD:
            return self._error(query, wire.REFUSED, EDE_NOT_AUTHORITATIVE)

        # 8. Has it failed just now?
        if self.exchanges.failures.active:
            remembered = self.exchanges.remembered(query, key, zone, now)
            if remembered is not None:
                return remembered

        # 9. Ask upstream, together with whoever asks the same now.
        return self.exchanges.start(query, key, zone, source, now)

    def _error(self, query: Query, rcode: int, *reasons: int) -> bytes:
        self.stats.count_response(response_number(rcode, ERROR))
        return answers.error(query, rcode, *reasons)

    def _refuse(self, query: Query, rcode: int) -> bytes:
        """Answer a query that is at fault, or that is not a forwarder's business."""
        if query.qclass == wire.CH and not query.rcode:
            text = chaos_text(query, self.features.version, self.features.identity)
            if text is not None:
                self.stats.count_response(response_number(wire.NOERROR, LOCAL))
                record = message.chaos_record(message.QUESTION_NAME, text)
                return wire.respond(query, wire.AA | wire.RA, wire.NOERROR, (1, 0, 0), record)
        if rcode == wire.REFUSED or rcode == wire.NOTIMP:  # noqa: PLR1714 - a set is made for each `in`
            return self._error(query, rcode, EDE_NOT_SUPPORTED)
        return self._error(query, rcode)

    def _answer_owned(self, query: Query, owned: Owned, now: float, request: int | None) -> bytes:
        given = owned.at(now)
        if given is None:
            return self._error(query, wire.SERVFAIL, EDE_NOT_READY)
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

    def _answer_cached(
        self, query: Query, key: bytes, entry: Entry, now: float, request: int | None
    ) -> bytes:
        response = answers.from_entry(query, entry, now)
        number = response_number(entry.rcode, CACHE)
        self.stats.count_response(number)
        # What is prepared ends when prefetching may begin, so that the next hit comes by here.
        until = self.prefetch_at(entry)
        if now >= until:
            until = entry.expires
            if entry.hits >= PREFETCH_HITS:
                self.exchanges.refresh(query, key, self.rules.find_zone(query.key), "prefetch", now)
        if request is not None:
            made = entry.stored + floor(now - entry.stored)
            tails, offsets = [response[2:]], answers.ttl_offsets(query, entry, response)
            self.prepared.keep(query, Prepared(tails, request, number, until, made, offsets))
        return response

    def prefetch_at(self, entry: Entry) -> float:
        """Return from when on a busy ``entry`` is asked for anew; its end when that is off."""
        return entry.expires - (entry.expires - entry.stored) * self._prefetch_part

    def _deny(self, query: Query, zone: bytes, now: float, request: int | None) -> bytes | None:
        """Answer for what exists here only, or nowhere; or not at all."""
        special = self.special.find(query.key) if zone == DEFAULT_ZONE else None
        if special is not None:
            # A private address of an owned name has that name.
            owned = self.rules.find_reverse(query.key)
            if owned is not None:
                return self._answer_reverse(query, owned, special, now, request)
            rcode, counts, sections = self.special.answer(special, query.key, query.qtype)
            response = wire.respond(query, wire.AA | wire.RA, rcode, counts, sections)
            number = response_number(rcode, LOCAL)
            self.stats.count_response(number)
            if request is not None:
                self.prepared.keep(query, Prepared([response[2:]], request, number, float("inf")))
            return response
        if self.features.minimal_any and query.qtype == wire.ANY:
            rcode = wire.NOERROR
            response = wire.respond(query, wire.RA, rcode, (1, 0, 0), self._any_record)
        else:
            cuts = self.exchanges.cuts
            cut = None if cuts is None or query.do else cuts.find(zone, query.key, now)
            if cut is None:
                return None
            rcode = wire.NXDOMAIN
            response = wire.respond(query, wire.RA, rcode, (0, 1, 0), cut.record(now))
        self.stats.count_response(response_number(rcode, LOCAL))
        return response

    def _answer_reverse(
        self, query: Query, owned: list[Owned], special: bytes, now: float, request: int | None
    ) -> bytes:
        """Answer for the address of the names in ``owned``, or for a name above one, which has no records."""
        given = [held for entry in owned if (held := entry.at(now)) is not None]
        stale, until, options = False, float("inf"), b""
        rcode, counts, sections = wire.NOERROR, (0, 1, 0), self.special.soa(special)
        if given and (query.qtype == wire.PTR or query.qtype == wire.ANY):  # noqa: PLR1714 - a set is made for each `in`
            stale = any(now >= entry.stale_at for entry in owned)
            records = [message.ptr_record(message.QUESTION_NAME, entry.name, entry.ttl) for entry in given]
            counts, sections = (len(records), 0, 0), b"".join(records)
            options = wire.error_option(EDE_STALE) if stale else b""
        for entry in owned:
            until = min(until, entry.gone_at if now >= entry.stale_at else entry.stale_at)
        response = wire.respond(query, wire.AA | wire.RA, rcode, counts, sections, options)
        number = response_number(rcode, STALE if stale else LEARNED)
        self.stats.count_response(number)
        if request is not None and now < until:
            self.prepared.keep(query, Prepared([response[2:]], request, number, until))
        return response

    # -- exchanges --------------------------------------------------------

    def complete(self, exchange: Exchange, now: float) -> list[bytes]:
        """End ``exchange`` and return the responses to its waiters, in their order."""
        return self.exchanges.complete(exchange, now)

    # -- changes ----------------------------------------------------------

    def swap_rules(self, rules: Ruleset) -> None:
        """Put new rules in force for every query from now on."""
        self.rules = self.exchanges.rules = rules
        self.exchanges.chains.forget()
        self.prepared.clear()

    def update_rules(self, names: dict[str, Owned | None]) -> None:
        """Answer these names otherwise, or for longer, from now on; those with None are no longer owned."""
        if self.rules.update(names):
            self.exchanges.chains.forget()
            self.prepared.clear()

    def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of one name, or all; return how many."""
        self.prepared.clear()
        self.exchanges.forget(name_key)
        if name_key is None:
            return self.cache.clear()
        doomed = [key for key in self.cache.keys() if key[:-5] == name_key]  # noqa: SIM118 - not a dict
        return sum(self.cache.remove(key) for key in doomed)

    def stats_now(self) -> Stats:
        """Return the statistics with all that is counted apart from them added."""
        self.prepared.settle()
        self.times.settle()
        self.stats.settle()
        return self.stats

    def upstreams(self) -> Iterator[Upstream]:
        """Yield every upstream of every zone once."""
        yield from dict.fromkeys(upstream for group in self.groups.values() for upstream in group.members)

    @property
    def in_flight(self) -> int:
        """How many exchanges wait for an upstream."""
        return len(self.exchanges)
