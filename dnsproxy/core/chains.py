"""Answers that the rules change: aliases that lead out of their zone, and addresses of owned names."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from dnsproxy.core import wire
from dnsproxy.core.answers import EDE_NOT_READY
from dnsproxy.core.cache import Cache
from dnsproxy.core.cname import Link, leading_out, with_addresses
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.policy import DEFAULT_ZONE, Ruleset
from dnsproxy.core.question import may_be_special, zone_key
from dnsproxy.core.rebuild import SERVICES, rebuilt
from dnsproxy.core.records import Names
from dnsproxy.core.response import MAX_CNAMES, MAX_STRAYS, Response, scan_response
from dnsproxy.core.special import SpecialZones
from dnsproxy.core.spelling import restored
from dnsproxy.errors import WireError

# Cached answers that hold learned addresses, or came from more than one zone.
MAX_DERIVED = 1_000
# An HTTPS or SVCB record takes as much time as so many records with addresses: it has two names.
_SERVICE_COST: Final = 8
_COUNTS: Final = struct.Struct(">HHH")


class Redirect(NamedTuple):
    """The answer leads out of the zone that was asked: ask the upstreams of ``zone`` for the last target."""

    links: list[Link]
    zone: bytes


class Chains:
    """Applies the rules to what an upstream has answered, and knows which cached answers depend on them."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._derived: dict[bytes, None] = {}  # oldest first
        self._special = SpecialZones()

    def rewritten(
        self, exchange: Exchange, response: Response, rules: Ruleset, now: float, *, is_partial: bool = False
    ) -> Response | Redirect | None:
        """Return what clients get in place of ``response``; None when it cannot be used.

        The first target of its CNAME chain that is owned gets the learned addresses; one in another zone of
        `forward.zones` is asked of the upstreams of that. One in no zone is asked of those of all other
        names where nothing is said of the end of the chain: the upstreams of a zone may know that zone
        only. Records of owned names elsewhere are left out. Of an answer that ``is_partial`` only the chain
        is of use.
        """
        try:
            if exchange.origin is not None and exchange.question != exchange.origin.spelled:
                response = _restore(exchange, response, is_partial=is_partial)
            names = Names(exchange.reply)
            way_out = self._way_out(exchange, response, names, rules, now)
            if way_out is not None or is_partial:
                return way_out
            return self._filtered(exchange, response, names, rules)
        except WireError:
            return None

    def _way_out(
        self, exchange: Exchange, response: Response, names: Names, rules: Ruleset, now: float
    ) -> Response | Redirect | None:
        """Return what becomes of an answer whose chain leads to another zone or an owned name, else None."""
        question, origin = exchange.question, exchange.origin
        qtype = question[-4] << 8 | question[-3]
        # A CNAME that is asked for is itself the answer (RFC 1034 §3.6.2).
        if not response.cnames or qtype == wire.CNAME or qtype == wire.ANY:  # noqa: PLR1714 - a set is made for each `in`
            return None
        zone = exchange.zone if origin is None else origin.zone
        has_end = response.ttl is not None

        def leads_out(key: bytes) -> bool:
            if rules.find_owned(key) is not None:
                return True
            other = rules.find_zone(zone_key(key, qtype))
            if other != DEFAULT_ZONE:
                return other != zone
            return not (zone == DEFAULT_ZONE or has_end or self._is_special(key))

        links = leading_out(names, exchange.reply, response.cnames, leads_out)
        if links is None:
            return None
        all_links = links if origin is None else origin.links + links
        if len(all_links) > MAX_CNAMES:
            raise WireError(f"more than {MAX_CNAMES} CNAMEs")
        target = links[-1][1].lower()
        owned = rules.find_owned(target)
        asked = question if origin is None else origin.question
        if owned is None:
            passed = [asked[:-4].lower(), *(link[1].lower() for link in all_links[:-1])]
            if target in passed:
                raise WireError("aliases that lead round")
            return Redirect(links, rules.find_zone(zone_key(target, qtype)))
        given = owned.at(now)
        if given is None:
            exchange.error = EDE_NOT_READY
            raise WireError("an alias of a name that has no address yet")
        self._note_derived(exchange.key)
        return with_addresses(response.flags, asked, all_links, given)

    def _filtered(self, exchange: Exchange, response: Response, names: Names, rules: Ruleset) -> Response:
        """Return ``response`` behind the aliases that have led to it, without records of owned names."""
        data, origin = exchange.reply, exchange.origin
        links = [] if origin is None else origin.links
        has_owned = False
        if response.strays:
            try:
                has_owned = _has_owned(data, names, response, rules)
            except WireError:
                if not response.counts[2]:
                    raise
                # More names than are read. What is additional is not needed; the rest must not pass unread.
                _leave_out_additional(response)
                has_owned = _has_owned(data, names, response, rules)
        if not links and not has_owned:
            return response

        def is_owned(key: bytes) -> bool:
            return rules.find_owned(key) is not None

        question = exchange.question if origin is None else origin.question
        head = data[:6] + _COUNTS.pack(*response.counts) + data[wire.HEADER : response.question_end]
        exchange.reply = rebuilt(head + response.sections, question, links, is_owned)
        if links:
            self._note_derived(exchange.key)
        return scan_response(exchange.reply, wire.HEADER + len(question))

    def _note_derived(self, key: bytes) -> None:
        self._derived.pop(key, None)
        self._derived[key] = None
        if len(self._derived) > MAX_DERIVED:
            oldest = next(iter(self._derived))
            del self._derived[oldest]
            self._cache.remove(oldest)

    def _is_special(self, key: bytes) -> bool:
        return may_be_special(key) and self._special.find(key) is not None

    def forget(self) -> None:
        """Take what depends on the rules out of the cache: they have changed."""
        for key in self._derived:
            self._cache.remove(key)
        self._derived.clear()


def _restore(exchange: Exchange, response: Response, *, is_partial: bool) -> Response:
    """Undo the random case of the question in the reply of ``exchange``, and scan that again if need be."""
    origin = exchange.origin
    if origin is None:
        return response
    end = response.question_end
    before, asked = exchange.reply, exchange.question
    exchange.question = origin.spelled
    if is_partial:
        exchange.reply = before[: wire.HEADER] + origin.spelled + before[end:]
        return response
    exchange.reply = restored(before, asked, origin.spelled)
    if exchange.reply[end:] == before[end:]:
        return response
    return scan_response(exchange.reply, end)


def _has_owned(data: bytes, names: Names, response: Response, rules: Ruleset) -> bool:
    """Return whether ``response``, from the message ``data``, has addresses of an owned name.

    Raises:
        WireError: there are more owners than are looked at, or one cannot be read.
    """
    room = MAX_STRAYS - len(response.strays)
    for record in response.strays:
        if room < 0:
            raise WireError("addresses of too many names")
        if rules.find_owned(names.read(record).lower()) is not None:
            return True
        fixed = wire.skip_name(data, record)
        if data[fixed] << 8 | data[fixed + 1] in SERVICES:
            room -= _SERVICE_COST
            target = names.read(fixed + 12)
            if rules.find_owned(target.lower()) is not None:
                return True
    return False


def _leave_out_additional(response: Response) -> None:
    """Leave ``response`` its answer and authority sections only."""
    answers, authorities, _ = response.counts
    offsets = response.ttl_offsets[: answers + authorities]
    sections, end = response.sections, 0
    if offsets:
        at = offsets[-1] + 4
        end = at + 2 + (sections[at] << 8 | sections[at + 1])
    response.sections = sections[:end]
    response.ttl_offsets = offsets
    response.counts = answers, authorities, 0
    response.strays = tuple([record for record in response.strays if record < response.question_end + end])
