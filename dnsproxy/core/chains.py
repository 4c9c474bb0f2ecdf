"""Answers of upstreams that are written again, as they are aliases of owned names."""

from __future__ import annotations

from dnsproxy.core.cache import Cache
from dnsproxy.core.cname import with_owned_target
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.policy import Owned, Ruleset
from dnsproxy.core.response import Response
from dnsproxy.errors import WireError

# Cached answers that hold learned addresses.
MAX_DERIVED = 1_000


class Chains:
    """Puts learned addresses into chains, and knows which cached answers hold them."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._derived: dict[bytes, None] = {}  # oldest first

    def rewritten(
        self, exchange: Exchange, response: Response, rules: Ruleset, now: float
    ) -> Response | None:
        """Give a CNAME chain that leads to an owned name the learned addresses.

        None when the response cannot be used.
        """

        def find(key: bytes) -> Owned | None:
            owned = rules.find_owned(key)
            return None if owned is None else owned.at(now)

        try:
            made = with_owned_target(exchange.reply, response.question_end, response.cnames, find)
        except WireError:
            return None
        if made is None:
            return response
        self._derived.pop(exchange.key, None)
        self._derived[exchange.key] = None
        if len(self._derived) > MAX_DERIVED:
            oldest = next(iter(self._derived))
            del self._derived[oldest]
            self._cache.remove(oldest)
        return made

    def forget(self) -> None:
        """Take what holds learned addresses out of the cache: they have changed."""
        for key in self._derived:
            self._cache.remove(key)
        self._derived.clear()
