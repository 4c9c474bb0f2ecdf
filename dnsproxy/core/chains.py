"""Answers of upstreams that have to be written anew: aliases of owned names, and a misplaced OPT."""

from __future__ import annotations

from dnsproxy.core import message
from dnsproxy.core.cache import Cache
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.policy import Owned, Ruleset
from dnsproxy.core.response import Response, read_name, scan_response
from dnsproxy.errors import WireError

# Cached answers that hold learned addresses.
MAX_DERIVED = 1_000


class Chains:
    """Puts learned addresses into chains, and knows which cached answers hold them."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._derived: set[bytes] = set()

    def rewritten(
        self, exchange: Exchange, response: Response, rules: Ruleset, now: float
    ) -> Response | None:
        """Give a CNAME chain that leads to an owned name the learned addresses; take a misplaced OPT out.

        None when the response cannot be used.
        """
        reply = exchange.reply

        def find(key: bytes) -> Owned | None:
            owned = rules.find_owned(key)
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

    def forget(self) -> None:
        """Take what holds learned addresses out of the cache: they have changed."""
        for key in self._derived:
            self._cache.remove(key)
        self._derived.clear()
