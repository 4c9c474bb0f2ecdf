"""What a name is: owned by us, or to be forwarded, and to which zone's upstreams.

A `Ruleset` is immutable and built from the book of learned addresses, the
pinned names and the forward zones. It is replaced as a whole, by one
assignment, whenever one of them changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from dnsproxy.core import message, names, wire
from dnsproxy.core.book import Book, Entry
from dnsproxy.core.registry import Wanted, with_found

Counts = tuple[int, int, int]
DEFAULT_ZONE = names.ROOT
# RFC 8767 §4: stale data goes out with a TTL of at most 30 s.
STALE_TTL = 30
# Each query of a set gets the next rotation; a longer set is not worth more variants.
MAX_ROTATIONS = 16
# Bytes of a name that is looked up by the lengths of the wildcards rather than label by label, if these
# have fewer lengths than such a name may have labels.
_LONG = 64
_FEW = 32


class Owned:
    """The sections of every response for one owned name, made when it is first asked for.

    Not before: a snapshot may change thousands of names, and queries wait while it is put in force
    (0.1 ms for the sections of each).

    ``ready`` is False while no address is known. ``stale_at`` and ``gone_at``
    are monotonic seconds: from the first on the addresses are marked stale,
    from the second on they are no longer given.
    """

    __slots__ = (
        *("_nodata", "_rrsets", "_stale", "addresses", "cname", "gone_at", "name"),
        *("ready", "serial", "stale_at", "ttl"),
    )

    def __init__(
        self,
        name: str,
        *,
        addresses: tuple[str, ...] = (),
        cname: str | None = None,
        ttl: int = STALE_TTL,
        serial: int = 1,
        stale_at: float = float("inf"),
        gone_at: float = float("inf"),
    ) -> None:
        self.name = name
        self.addresses = addresses
        self.ready = bool(addresses)
        self.cname = cname
        self.ttl = ttl
        self.serial = serial
        self._stale: Owned | None = None
        self.stale_at = stale_at
        self.gone_at = gone_at
        self._nodata: tuple[Counts, bytes] = ((0, 0, 0), b"")
        self._rrsets: dict[int, list[tuple[Counts, bytes]]] | None = None

    def _build(self) -> dict[int, list[tuple[Counts, bytes]]]:
        question, cname, ttl = message.QUESTION_NAME, self.cname, self.ttl
        alias = [message.cname_record(question, cname, ttl)] if cname else []
        owner = names.to_key(cname) if cname else question
        soa = message.soa_record(owner, self.serial, ttl)
        self._nodata = (len(alias), 1, 0), b"".join(alias) + soa
        built: dict[int, list[tuple[Counts, bytes]]] = {}
        for qtype, version in ((wire.A, 4), (wire.AAAA, 6)):
            family = [a for a in self.addresses if ip_address(a).version == version]
            if family:
                built[qtype] = _rotations(alias, message.address_records(owner, family, ttl))
        if alias:
            built[wire.CNAME] = [((1, 0, 0), alias[0])]
        if built:
            # One RRset is all that ANY needs to be given (RFC 8482 §4.1).
            built[wire.ANY] = built.get(wire.A) or built.get(wire.AAAA, [])
        self._rrsets = built
        return built

    def at(self, now: float) -> Owned | None:
        """Return what to answer with at ``now``: short TTLs when stale, None when nothing is left to give."""
        if not self.ready or now >= self.gone_at:
            return None
        if now < self.stale_at or self.ttl <= STALE_TTL:
            return self
        if self._stale is None:
            self._stale = Owned(
                self.name, addresses=self.addresses, cname=self.cname, ttl=STALE_TTL, serial=self.serial
            )
        return self._stale

    def variants(self, qtype: int) -> list[tuple[Counts, bytes]]:
        """Return the counts and sections to give in turn for ``qtype``; NODATA for all but addresses.

        Each call starts with the next rotation.
        """
        rrsets = self._rrsets
        if rrsets is None:
            rrsets = self._build()
        found = rrsets.get(qtype)
        if found is None:
            return [self._nodata]
        if len(found) > 1:
            found.append(found.pop(0))
        return found


def _rotations(alias: list[bytes], records: list[bytes]) -> list[tuple[Counts, bytes]]:
    counts = (len(alias) + len(records), 0, 0)
    head = b"".join(alias)
    return [
        (counts, head + b"".join(records[shift:] + records[:shift]))
        for shift in range(min(len(records), MAX_ROTATIONS))
    ]


class Ruleset:
    """Owned names and forward zones, each by key. The exact name wins, then the longest suffix."""

    __slots__ = ("_exact", "_wild", "_wild_lengths", "_zoned", "_zones")

    def __init__(self, owned: Iterable[Owned] = (), zones: Iterable[bytes] = ()) -> None:
        self._exact: dict[bytes, Owned] = {}
        self._wild: dict[bytes, Owned] = {}
        self._zones = frozenset(zones) - {DEFAULT_ZONE}
        self._zoned = bool(self._zones)
        for entry in owned:
            if entry.name.startswith("*."):
                self._wild[names.to_key(entry.name[2:])] = entry
            else:
                self._exact[names.to_key(entry.name)] = entry
        self._wild_lengths = sorted({len(key) for key in self._wild}, reverse=True)

    def find_owned(self, key: bytes) -> Owned | None:
        """Return the owned name that answers for ``key``, if any.

        A wildcard answers for one or more labels below its parent, never for the parent.
        """
        exact = self._exact.get(key)
        if exact is not None or not self._wild:
            return exact
        if len(key) > _LONG and len(self._wild_lengths) < _FEW:
            return self._find_wild(key)
        wild = self._wild
        position = 0
        while length := key[position]:
            position += length + 1
            entry = wild.get(key[position:])
            if entry is not None:
                return entry
        return None

    def _find_wild(self, key: bytes) -> Owned | None:
        """Do as `find_owned` for a name of many labels: a chain of CNAMEs may have 16 of 127 labels."""
        for size in self._wild_lengths:
            start = len(key) - size
            entry = self._wild.get(key[start:]) if start > 0 else None
            if entry is not None:
                # What looks like the parent may be the end of a label.
                position = 0
                while position < start:
                    position += key[position] + 1
                if position == start:
                    return entry
        return None

    def find_zone(self, key: bytes) -> bytes:
        """Return the key of the longest configured forward zone that holds ``key``."""
        if not self._zoned:
            return b"\x00"  # DEFAULT_ZONE, without looking it up: every miss comes by here
        if key in self._zones:
            return key
        return next((parent for parent in names.parents(key) if parent in self._zones), DEFAULT_ZONE)

    def owned(self) -> list[Owned]:
        """Return every owned name."""
        return [*self._exact.values(), *self._wild.values()]


def build_rules(
    wanted: Iterable[Wanted],
    book: Book,
    zones: Iterable[bytes],
    *,
    ttl: int,
    max_stale: float,
    now: float,
    wall_now: float,
    earlier: Ruleset | None = None,
) -> Ruleset:
    """Return the rules for the configured and the discovered names with the addresses of ``book``.

    ``ttl`` and ``max_stale`` are seconds. Wall-clock times of the snapshots are
    turned into monotonic ones here, with ``now`` and ``wall_now`` read together.
    What has not changed is taken over from ``earlier``, the rules that these replace, with the
    sections that were made for it: most snapshots only confirm.
    """
    before = {entry.name: entry for entry in earlier.owned()} if earlier is not None else {}
    owned = []
    for entry in with_found(wanted, book.found()):
        held = book.entries.get(entry.name)
        if entry.addresses:
            owned.append(Owned(entry.name, addresses=entry.addresses, ttl=ttl))
        elif held is None:
            owned.append(Owned(entry.name))
        else:
            stale_at = now + held.snapshot.expires_at - wall_now
            owned.append(_learned(before.get(entry.name), held, ttl, stale_at, stale_at + max_stale))
    return Ruleset(owned, zones)


def build_tried(
    book: Book, *, ttl: int, max_stale: float, now: float, wall_now: float, earlier: Mapping[str, Owned]
) -> dict[str, Owned]:
    """Return what the clients of a canary get, by owned name; the arguments are as for `build_rules`."""
    tried = {}
    for name, held in book.tried.items():
        stale_at = now + held.snapshot.expires_at - wall_now
        tried[name] = _learned(earlier.get(name), held, ttl, stale_at, stale_at + max_stale)
    return tried


def _learned(before: Owned | None, held: Entry, ttl: int, stale_at: float, gone_at: float) -> Owned:
    learned = held.learned
    same = (learned.addresses, learned.cname, ttl)
    if before is not None and (before.addresses, before.cname, before.ttl) == same:
        before.stale_at, before.gone_at = stale_at, gone_at
        return before
    return Owned(
        learned.name,
        addresses=learned.addresses,
        cname=learned.cname,
        ttl=ttl,
        serial=held.snapshot.serial // 1000,
        stale_at=stale_at,
        gone_at=gone_at,
    )
