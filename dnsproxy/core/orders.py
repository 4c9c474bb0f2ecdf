"""What the operator ordered about learned addresses, and what is needed to obey: kept over a restart.

A *pin* gives a name fixed addresses. A *freeze* keeps every name on the set that it
has, or, after a roll-back, on the set that it had with an earlier serial. The history
holds the last sets learned. All are values; nothing here reads a clock or a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dnsproxy.core import canary, names
from dnsproxy.core.book import Book, Entry
from dnsproxy.core.canary import Trial
from dnsproxy.core.fields import Fields
from dnsproxy.core.learned import MAX_ADDRESSES, LearnedName, Snapshot, canonical_addresses
from dnsproxy.errors import OrderError

VERSION = 1
# Unix seconds. What the operator has fixed does not go stale by itself.
NEVER = 2**62
PINNED = "pinned"


@dataclass(frozen=True, slots=True)
class Pin:
    """Fixed addresses of a name, ``since`` Unix seconds."""

    addresses: tuple[str, ...]
    since: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """No other sets than ``entries`` since ``since`` (Unix seconds); ``serial`` after a roll-back to it."""

    since: int
    entries: Mapping[str, Entry]
    serial: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What was learned with ``serial``, taken at ``taken_at`` (Unix seconds)."""

    serial: int
    issuer: str
    taken_at: int
    entries: Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Orders:
    """Everything kept. ``history`` is oldest first; ``in_service`` are sets that no helper tells again.

    ``held_back`` are members of the sets in service that did not work, by name; ``trials`` are those of new
    sets, by name too.
    """

    pins: Mapping[str, Pin] = field(default_factory=dict)
    freeze: Freeze | None = None
    history: tuple[Record, ...] = ()
    in_service: Mapping[str, Entry] = field(default_factory=dict)
    held_back: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trials: Mapping[str, Trial] = field(default_factory=dict)

    def to_payload(self) -> dict[str, Any]:
        """Return the JSON object that `from_payload` reads."""
        freeze = self.freeze
        return {
            "version": VERSION,
            "pins": [
                {"name": name, "addresses": list(pin.addresses), "since": pin.since}
                for name, pin in self.pins.items()
            ],
            "freeze": freeze
            and {"since": freeze.since, "serial": freeze.serial, "names": _to_list(freeze.entries)},
            "history": [
                {
                    "serial": record.serial,
                    "issuer": record.issuer,
                    "taken_at": record.taken_at,
                    "names": _to_list(record.entries),
                }
                for record in self.history
            ],
            "in_service": _to_list(self.in_service),
            "held_back": [{"name": name, "addresses": list(held)} for name, held in self.held_back.items()],
            "trials": canary.to_list(self.trials),
        }

    @classmethod
    def from_payload(cls, payload: object) -> Orders:
        """Read the JSON object of `to_payload`.

        Raises:
            SnapshotError: ``MALFORMED``, naming the first key that is wrong.
        """
        document = Fields(payload, "orders")
        if document.whole("version") != VERSION:
            raise document.wrong("version", f"not {VERSION}")
        pins = {}
        for index, item in enumerate(document.sequence("pins")):
            fields = Fields(item, f"orders.pins[{index}]")
            pins[fields.name("name")] = Pin(_addresses(fields), fields.whole("since"))
        freeze = None
        if document.has("freeze"):
            fields = Fields(payload["freeze"] if isinstance(payload, Mapping) else None, "orders.freeze")
            serial = fields.whole("serial") if fields.has("serial") else None
            freeze = Freeze(fields.whole("since"), _from_list(fields, "orders.freeze"), serial)
        history = []
        for index, item in enumerate(document.sequence("history")):
            place = f"orders.history[{index}]"
            fields = Fields(item, place)
            entries = _from_list(fields, place)
            history.append(
                Record(fields.whole("serial"), fields.text("issuer"), fields.whole("taken_at"), entries)
            )
        in_service = _from_list(document, "orders", "in_service")
        trials = canary.from_list(document, "trials")
        return cls(pins, freeze, tuple(history), in_service, _held_back(document), trials)

    def recorded(self, book: Book, limit: int, wall_now: float) -> Orders:
        """Return the orders with the sets of ``book`` put last in the history, if they differ from its last.

        At most the last ``limit`` are kept.
        """
        if not limit:
            return replace(self, history=()) if self.history else self
        last = self.history[-1].entries if self.history else {}
        changed = [entry for name, entry in book.entries.items() if not same_set(entry, last.get(name))]
        if not changed and not set(last) - set(book.entries):
            return self
        cause = max(changed or book.entries.values(), key=lambda e: e.snapshot.serial, default=None)
        if cause is None:
            return self
        record = Record(cause.snapshot.serial, cause.snapshot.issuer, int(wall_now), dict(book.entries))
        return replace(self, history=(*self.history, record)[-limit:])

    def targets(self, book: Book) -> tuple[Orders, dict[str, Entry]]:
        """Return the newest set of each name, or the frozen one, behind the orders with what that adds."""
        freeze = self.freeze
        if freeze is None:
            return self, dict(book.entries)
        new = {name: entry for name, entry in book.entries.items() if name not in freeze.entries}
        # There was nothing to freeze for these: their first set is taken, and then kept.
        orders = replace(self, freeze=replace(freeze, entries={**freeze.entries, **new})) if new else self
        return orders, {name: held_entry(entry) for name, entry in orders.frozen_entries(book).items()}

    def frozen_entries(self, book: Book) -> dict[str, Entry]:
        """Return the frozen sets; those that a helper still confirms with the age of its last word."""
        latest = book.entries
        return {
            name: latest[name] if same_set(entry, latest.get(name)) else entry
            for name, entry in (self.freeze.entries.items() if self.freeze else ())
        }

    def find(self, serial: int) -> Record | None:
        """Return the latest record of ``serial``."""
        return next((record for record in reversed(self.history) if record.serial == serial), None)


def same_set(one: Entry, other: Entry | None) -> bool:
    """Tell whether both answer with the same addresses, through the same CNAME."""
    return other is not None and (one.learned.addresses, one.learned.cname) == (
        other.learned.addresses,
        other.learned.cname,
    )


def held_entry(entry: Entry) -> Entry:
    """Return ``entry`` as one that does not go stale."""
    return Entry(entry.learned, replace(entry.snapshot, expires_at=NEVER))


def fixed_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses of a pin in canonical text.

    Raises:
        OrderError: one of them is no address, there is none, or there are too many.
    """
    try:
        fixed = canonical_addresses(addresses)
    except ValueError as exc:
        raise OrderError(str(exc)) from exc
    if not fixed:
        raise OrderError("no address is given")
    if len(fixed) > MAX_ADDRESSES:
        raise OrderError(f"{len(fixed)} addresses; a name can have {MAX_ADDRESSES}")
    return fixed


def pinned_entry(name: str, pin: Pin) -> Entry:
    """Return what stands in the book for a pinned name."""
    learned = LearnedName(
        name=name,
        role="other",
        registry=PINNED,
        addresses=pin.addresses,
        cname=None,
        ttl=0,
        observed_at=pin.since,
        resolvers=(),
        status="ok",
    )
    return Entry(learned, Snapshot(PINNED, pin.since * 1000, pin.since, NEVER, ()))


def _to_list(entries: Mapping[str, Entry]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "role": entry.learned.role,
            "registry": entry.learned.registry,
            "addresses": list(entry.learned.addresses),
            "cname": entry.learned.cname,
            "ttl": entry.learned.ttl,
            "observed_at": entry.learned.observed_at,
            "status": entry.learned.status,
            "issuer": entry.snapshot.issuer,
            "serial": entry.snapshot.serial,
            "issued_at": entry.snapshot.issued_at,
            "expires_at": entry.snapshot.expires_at,
        }
        for name, entry in entries.items()
    ]


def _from_list(document: Fields, place: str, key: str = "names") -> dict[str, Entry]:
    items: Iterable[tuple[int, object]] = enumerate(document.sequence(key))
    entries = (_entry(Fields(item, f"{place}.{key}[{index}]")) for index, item in items)
    return {entry.learned.name: entry for entry in entries}


def _held_back(document: Fields) -> dict[str, tuple[str, ...]]:
    listed = document.sequence("held_back") if document.has("held_back") else []
    items = (Fields(item, f"orders.held_back[{index}]") for index, item in enumerate(listed))
    return {fields.name("name"): _addresses(fields) for fields in items}


def _entry(fields: Fields) -> Entry:
    learned = LearnedName(
        name=fields.name("name"),
        role=fields.text("role"),
        registry=fields.text("registry"),
        addresses=_addresses(fields),
        cname=fields.optional_name("cname"),
        ttl=fields.whole("ttl"),
        observed_at=fields.whole("observed_at"),
        resolvers=(),
        status=fields.text("status"),
    )
    snapshot = Snapshot(
        issuer=fields.text("issuer"),
        serial=fields.whole("serial"),
        issued_at=fields.whole("issued_at"),
        expires_at=fields.whole("expires_at"),
        names=(),
    )
    return Entry(learned, snapshot)


def _addresses(fields: Fields) -> tuple[str, ...]:
    try:
        addresses = canonical_addresses(fields.texts("addresses"))
    except ValueError as exc:
        raise fields.wrong("addresses", str(exc)) from exc
    if not addresses:
        raise fields.wrong("addresses", "none")
    return addresses


def canonical_name(name: str) -> str:
    """Return ``name`` as orders know it.

    Raises:
        OrderError: it is no domain name.
    """
    try:
        return names.canonical(name)
    except ValueError as exc:
        raise OrderError(str(exc)) from exc
