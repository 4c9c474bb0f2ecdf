"""Who does not get what everybody gets: strangers, clients over their rate, the clients of a canary."""

from __future__ import annotations

from dnsproxy.core import answers, wire
from dnsproxy.core.access import AccessList
from dnsproxy.core.limiter import SLIPS
from dnsproxy.core.policy import Owned, Ruleset
from dnsproxy.core.question import refusal
from dnsproxy.core.stats import ERROR, Stats, response_number
from dnsproxy.core.wire import Query
from dnsproxy.errors import DropReason, WireError


class CanaryClients:
    """Clients that get ``tried`` (by owned name) while there is something to try: the canary.

    ``allowed`` is who may ask, ``others`` the same without these clients.
    """

    def __init__(self, allowed: AccessList, others: AccessList) -> None:
        self.tried: dict[str, Owned] = {}
        self._allowed = allowed
        self._others = others

    def swap(self, tried: dict[str, Owned]) -> AccessList:
        """Take what is tried from now on; return the list of those who get what everybody gets.

        Who is not in that list comes by here, so that a canary costs the others nothing, and
        without one it is the list of all who may ask.
        """
        self.tried = tried
        return self._others if tried else self._allowed

    def holds(self, source: bytes) -> bool:
        """Tell whether the client with the packed address ``source`` is one of them now."""
        return bool(self.tried) and self._allowed.allows(source) and not self._others.allows(source)

    def find(self, data: bytes, rules: Ruleset) -> tuple[Query, Owned] | None:
        """Return the query in ``data`` and what it is answered with; None where that is as for everybody."""
        try:
            query = wire.scan_query(data)
        except WireError:
            return None
        owned = rules.find_owned(query.key)
        tried = None if owned is None else self.tried.get(owned.name)
        return None if tried is None or query.rcode or refusal(query) else (query, tried)


def refuse_client(stats: Stats, data: bytes) -> bytes | DropReason:
    """Answer, or drop, what comes from where nobody may ask."""
    stats.drops[DropReason.REFUSED_CLIENT] += 1
    try:
        query = wire.scan_query(data)
    except WireError:
        return DropReason.REFUSED_CLIENT
    stats.count_response(response_number(wire.REFUSED, ERROR))
    return answers.refuse_stranger(query)


def limit_client(stats: Stats, data: bytes, verdict: int) -> bytes | DropReason:
    """Drop what a client asks over its rate; with `limiter.SLIPS` tell it to come over TCP."""
    stats.drops[DropReason.RATE_LIMITED] += 1
    if verdict == SLIPS:
        try:
            query = wire.scan_query(data)
        except WireError:
            return DropReason.RATE_LIMITED
        if not query.rcode:
            stats.count_response(response_number(wire.NOERROR, ERROR))
            return answers.truncated(query)
    return DropReason.RATE_LIMITED
