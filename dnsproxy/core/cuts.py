"""NXDOMAIN cut: nothing exists below a name that does not exist (RFC 8020). Off by default.

A resolver upstream does this already where it is safe, and with DNSSEC better (RFC 8198). Here it
saves a round trip for names that nobody has, and it believes servers that say NXDOMAIN for a name
which has others below it, as some load balancers and internal zones do.
"""

from __future__ import annotations

import struct
from math import floor
from typing import Final

from dnsproxy.core import names
from dnsproxy.core.cache import Entry
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.memory import CUT, CUTS
from dnsproxy.core.recent import Recent
from dnsproxy.core.records import negative_soa
from dnsproxy.core.wire import NXDOMAIN
from dnsproxy.errors import WireError

MAX_CUTS: Final = 20_000


class Cut:
    """A name that does not exist: its SOA record, whose TTL is at ``ttl_at``, and seconds (monotonic)."""

    __slots__ = ("expires", "soa", "ttl", "ttl_at")

    def __init__(self, soa: bytes, ttl: float, now: float) -> None:
        self.soa = soa
        self.ttl = ttl
        self.expires = now + ttl
        at = 0
        while soa[at]:
            at += soa[at] + 1
        self.ttl_at = at + 5

    def record(self, now: float) -> bytes:
        """Return the SOA with what is left of its time."""
        left = max(floor(self.expires - now), 0)
        return self.soa[: self.ttl_at] + struct.pack(">I", left) + self.soa[self.ttl_at + 4 :]


class Cuts:
    """Names that do not exist, by zone that said so and key."""

    def __init__(self) -> None:
        self._cuts: Recent[Cut] = Recent(MAX_CUTS, CUTS, CUT)
        # Bytes of the longest name there has been: what is longer is not looked up.
        self._longest = 0

    def __len__(self) -> int:
        return len(self._cuts)

    def keep(self, zone: bytes, key: bytes, reply: bytes, ttl: float, now: float) -> None:
        """Remember for ``ttl`` seconds that ``reply``, from the upstreams of ``zone``, denies ``key``.

        A reply with an alias denies the end of the chain, which is another name; give none such.
        """
        try:
            soa = negative_soa(reply)
        except WireError:
            return
        if soa is not None:
            self._cuts.put(zone + key, Cut(soa, ttl, now), len(soa))
            self._longest = max(self._longest, len(key))

    def learn(self, exchange: Exchange, entry: Entry, now: float) -> None:
        """Take what the end of ``exchange`` says of its name; ``entry`` is what was made of the reply."""
        name = exchange.key[:-5]
        if entry.rcode != NXDOMAIN:
            self.exists(exchange.zone, name)
        elif entry.expires > now and not entry.counts[0]:
            self.keep(exchange.zone, name, exchange.reply, entry.expires - now, now)

    def find(self, zone: bytes, key: bytes, now: float) -> Cut | None:
        """Return the cut that ``key`` lies below; only what the same zone's upstreams said counts."""
        position = 0
        longest_at = len(key) - self._longest
        while length := key[position]:
            position += length + 1
            if position >= longest_at:
                cut = self._cuts.peek(zone + key[position:])
                if cut is not None and now < cut.expires:
                    return cut
        return None

    def exists(self, zone: bytes, key: bytes) -> None:
        """An answer shows that ``key`` exists, hence all above it."""
        if len(self._cuts):
            for name in (key, *names.parents(key)):
                if len(name) <= self._longest:
                    self._cuts.remove(zone + name)

    def clear(self) -> None:
        """Forget all."""
        self._cuts.clear()
        self._longest = 0
