"""What a name is: owned by us, or to be forwarded, and to which zone's upstreams.

A `Ruleset` is immutable and built from the table of answered addresses and the forward zones. It is replaced
as a whole, by one assignment, whenever one of them changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from dnsproxy.core import message, names, wire
from dnsproxy.core.addresses.table import ServedTable, Statement
from dnsproxy.core.registry import Wanted
from dnsproxy.core.reverse import ReverseIndex, digits_of_key

Counts = tuple[int, int, int]
DEFAULT_ZONE = names.ROOT
# RFC 8767 §4: stale data goes out with a TTL of at most 30 s.
STALE_TTL = 30
# Each query of a set gets the next rotation; a longer set is not worth more variants.
MAX_ROTATIONS = 16
# PTR records of one address; each takes some 25 us to make.
MAX_REVERSE = 8
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
        *("ready", "serial", "stale_at", "ttl", "was_stale"),
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
        # Whether stale responses were made for clients: some may be prepared.
        self.was_stale = False
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

    def is_extended_by(self, other: Owned) -> bool:
        """Return whether ``other`` answers the same, for as long or longer."""
        if self.was_stale or (self.addresses, self.cname, self.ttl) != (
            other.addresses,
            other.cname,
            other.ttl,
        ):
            return False
        return other.stale_at >= self.stale_at - 1.0 and other.gone_at >= self.gone_at - 1.0

    def at(self, now: float) -> Owned | None:
        """Return what to answer with at ``now``: short TTLs when stale, None when nothing is left to give."""
        if not self.ready or now >= self.gone_at:
            return None
        if now < self.stale_at:
            return self
        self.was_stale = True
        if self.ttl <= STALE_TTL:
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

    __slots__ = ("_exact", "_reverse", "_wild", "_wild_lengths", "_zoned", "_zones")

    def __init__(
        self, owned: Iterable[Owned] = (), zones: Iterable[bytes] = (), earlier: Ruleset | None = None
    ) -> None:
        """Take over from ``earlier``, which is not changed, what reverse lookup has of the same names."""
        self._exact: dict[bytes, Owned] = {}
        self._reverse: ReverseIndex
        before: dict[bytes, Owned]
        self._wild: dict[bytes, Owned] = {}
        self._zones = frozenset(zones) - {DEFAULT_ZONE}
        self._zoned = bool(self._zones)
        for entry in owned:
            if entry.name.startswith("*."):
                self._wild[names.to_key(entry.name[2:])] = entry
            else:
                self._exact[names.to_key(entry.name)] = entry
        self._wild_lengths = sorted({len(key) for key in self._wild}, reverse=True)
        self._reverse, before = (ReverseIndex(), {}) if earlier is None else earlier.reverse_parts()
        for key in before.keys() - self._exact.keys():
            self._reverse.replace(before[key].name, before[key].addresses, ())
        for key, entry in self._exact.items():
            held = before.get(key)
            if held is not entry:
                self._reverse.replace(entry.name, () if held is None else held.addresses, entry.addresses)

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

    def update(self, names_now: Mapping[str, Owned | None]) -> bool:
        """Take these for their names, None where one is not owned; return whether an answer changes.

        One that answers as before only stays longer: what was made for it is kept.
        """
        is_other = False
        for name, entry in names_now.items():
            owned = self._wild if name.startswith("*.") else self._exact
            key = names.to_key(name.removeprefix("*."))
            before = owned.get(key)
            is_exact = owned is self._exact
            if entry is None:
                is_other = owned.pop(key, None) is not None or is_other
                if is_exact and before is not None:
                    self._reverse.replace(name, before.addresses, ())
            elif before is not None and before.is_extended_by(entry):
                before.stale_at, before.gone_at = entry.stale_at, entry.gone_at
            else:
                owned[key] = entry
                is_other = True
                if is_exact:
                    self._reverse.replace(name, () if before is None else before.addresses, entry.addresses)
        return is_other

    def reverse_parts(self) -> tuple[ReverseIndex, dict[bytes, Owned]]:
        """Return copies of what reverse lookup has, and of the names that it is of."""
        # In this order: what another thread changes in between is then replaced by the caller.
        index = self._reverse.copy()
        return index, dict(self._exact)

    def find_reverse(self, key: bytes) -> list[Owned] | None:
        """Return the owned names whose address the reverse name ``key`` is, by name, at most `MAX_REVERSE`.

        Empty where it is above such an address, and None where there is none. Wildcards have no name to give.
        """
        digits = digits_of_key(key)
        if digits is None or not self._reverse.exists(digits):
            return None
        found = [
            self._exact.get(names.to_key(name)) for name in sorted(self._reverse.find(digits, MAX_REVERSE))
        ]
        return [entry for entry in found if entry is not None]

    def owned(self) -> list[Owned]:
        """Return every owned name."""
        return [*self._exact.values(), *self._wild.values()]


def build_rules(
    table: ServedTable,
    zones: Iterable[bytes],
    *,
    ttl: int,
    max_stale: float,
    now: float,
    wall_now: float,
    earlier: Ruleset | None = None,
) -> Ruleset:
    """Return the rules for the managed names of ``table``.

    ``ttl`` and ``max_stale`` are seconds. Wall-clock times of the snapshots are
    turned into monotonic ones here, with ``now`` and ``wall_now`` read together.
    What has not changed is taken over from ``earlier``, the rules that these replace, with the
    sections that were made for it: most snapshots only confirm.
    """
    before = {entry.name: entry for entry in earlier.owned()} if earlier is not None else {}
    times = Times(ttl, max_stale, now, wall_now)
    owned = (
        owned_name(entry, table.sets.get(entry.name), times, before.get(entry.name))
        for entry in table.managed
    )
    return Ruleset(owned, zones, earlier)


class Times(NamedTuple):
    """``ttl`` and ``max_stale`` in seconds; ``now`` (monotonic) and ``wall_now`` (Unix), read together."""

    ttl: int
    max_stale: float
    now: float
    wall_now: float


def owned_name(entry: Wanted, held: Statement | None, times: Times, before: Owned | None = None) -> Owned:
    """Return what answers for ``entry`` with ``held``: ``before``, for longer, if it answers the same."""
    if entry.addresses:
        return Owned(entry.name, addresses=entry.addresses, ttl=times.ttl)
    if held is None:
        return Owned(entry.name)
    stale_at = times.now + held.snapshot.expires_at - times.wall_now
    return _learned(before, held, times.ttl, stale_at, stale_at + times.max_stale)


def _learned(before: Owned | None, held: Statement, ttl: int, stale_at: float, gone_at: float) -> Owned:
    learned = held.learned
    if before is not None and (before.addresses, before.cname, before.ttl) == (
        learned.addresses,
        learned.cname,
        ttl,
    ):
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
