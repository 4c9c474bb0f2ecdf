"""The form of the state on disk: one JSON document, a line for each snapshot and each name.

Snapshots are stored as they were signed, so that they are verified again when they are read. A name has a
line of its own only where its state does not follow from the last snapshots. Records of the history hold what
changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dnsproxy.core.addresses import canary
from dnsproxy.core.addresses.health import Health
from dnsproxy.core.addresses.lifecycle import AddressLifecycle, Discovery
from dnsproxy.core.addresses.name_state import NameState, Stated
from dnsproxy.core.addresses.overrides import Freeze, Overrides, Pin, Record
from dnsproxy.core.addresses.table import Origin, Statement
from dnsproxy.core.fields import Fields
from dnsproxy.core.learned import LearnedName, canonical_addresses, refused_from
from dnsproxy.core.registry import Found

VERSION = 2
# The overrides file of the version before, whose other file has nothing but signed snapshots.
EARLIER = 1


def encode(state: AddressLifecycle) -> Iterator[str]:
    """Yield the lines of the document. ``state`` may change between two of them.

    A name that has no line of its own yields an empty one, so that each step takes little time.
    """
    overrides, snapshots = state.overrides, dict(state.snapshots)
    origins = {issuer: opened.origin for issuer, opened in snapshots.items()}
    yield f'{{"version": {VERSION},'
    yield from _section("snapshots", (opened.token for opened in snapshots.values()))
    yield from _section("discoveries", map(_discovery_to_json, list(state.discoveries.values())))
    yield from _section("names", (_name_to_json(state, name, origins) for name in list(state.names)))
    pins = [{"name": n, "addresses": list(p.addresses), "since": p.since} for n, p in overrides.pins.items()]
    yield from _section("pins", pins)
    freeze = overrides.freeze
    if freeze is not None:
        yield f'"freeze": {{"since": {freeze.since}, "serial": {json.dumps(freeze.serial)},'
        yield from _section("names", (_to_json(n, held) for n, held in freeze.sets.items()), end="},")
    yield '"history": ['
    before: Mapping[str, Statement] = {}
    for number, record in enumerate(overrides.history):
        head = {"serial": record.serial, "issuer": record.issuer, "taken_at": record.taken_at}
        head["removed"] = [name for name in before if name not in record.sets]
        yield f"{',' if number else ''}{json.dumps(head)[:-1]},"
        changed = (
            _to_json(n, held) if before.get(n) is not held else None for n, held in record.sets.items()
        )
        yield from _section("names", changed, end="}")
        before = record.sets
    yield "]}"


def _section(key: str, items: Iterable[object], end: str = ",") -> Iterator[str]:
    yield f'"{key}": ['
    before = ""
    for item in items:
        yield f"{before}," if before and item is not None else ""
        before = json.dumps(item) if item is not None else before
    yield f"{before}]{end}"


def _discovery_to_json(discovery: Discovery) -> dict[str, Any]:
    found = discovery.found
    return {
        "registry": found.registry,
        "role": found.role,
        "names": list(found.names),
        "observed_at": found.observed_at,
        **_origin_to_json(discovery.snapshot),
    }


def _name_to_json(state: AddressLifecycle, name: str, origins: Mapping[str, Origin]) -> dict[str, Any] | None:
    """Return what does not follow from the snapshots of ``origins``, by issuer; None when all of it does."""
    held = state.names.get(name)
    if held is None:
        return None
    item: dict[str, Any] = {}
    own = held.stated.get(held.owner or "")
    if held.proven is None:
        item["proven"] = None
    # With other limits the owner's usable set may be another one than was proven.
    elif own is None or own.refused or own.usable is not held.proven or _is_omitted(own, origins):
        item["proven"] = _to_json(name, held.proven)
    old = [s.statement for s in held.stated.values() if _is_omitted(s, origins)]
    if old:
        item["statements"] = [_to_json(name, statement) for statement in old]
    if held.confirmed is not None:
        item["confirmed"] = held.confirmed[1]
    if held.trial is not None:
        item["trial"] = canary.to_json(held.trial)
    proven = dict.fromkeys(held.proven.learned.addresses, True) if held.proven is not None else {}
    alive = {address: health.alive for address, health in held.health.items()}
    if alive != proven:
        item["alive"] = alive
    if held.owner is not None and (item or len(held.stated) > 1):
        item["owner"] = held.owner
    return {"name": name, **item} if item else None


def _is_omitted(stated: Stated, origins: Mapping[str, Origin]) -> bool:
    """Return whether the snapshot of the helper does not have its last statement."""
    origin = stated.statement.snapshot
    return origins.get(origin.issuer) != origin


def _to_json(name: str, statement: Statement) -> dict[str, Any]:
    learned = statement.learned
    return {
        "name": name,
        "role": learned.role,
        "registry": learned.registry,
        "addresses": list(learned.addresses),
        "cname": learned.cname,
        "ttl": learned.ttl,
        "observed_at": learned.observed_at,
        "status": learned.status,
        **({"refused": list(map(list, learned.refused))} if learned.refused else {}),
        **_origin_to_json(statement.snapshot),
    }


def _origin_to_json(origin: Origin) -> dict[str, Any]:
    return {
        "issuer": origin.issuer,
        "serial": origin.serial,
        "issued_at": origin.issued_at,
        "expires_at": origin.expires_at,
        "key": origin.key_id,
    }


# -- reading -------------------------------------------------------------------------------


def restore(state: AddressLifecycle, payload: object, keys: Mapping[str, str]) -> None:
    """Put the document into ``state``; `AddressLifecycle.configure` has to follow, with its snapshots.

    The overrides file of the version before is read as well. It does not name the keys that signed: ``keys``
    has them by issuer.

    Raises:
        SnapshotError: ``MALFORMED``, naming the first key that is wrong; ``state`` is as it was.
    """
    document = Fields(payload, "state")
    version = document.whole("version")
    if version not in {VERSION, EARLIER}:
        raise document.wrong("version", f"not {VERSION}")
    read = _Reader(keys)
    overrides = read.overrides(document)
    names: dict[str, NameState] = {}
    if version == VERSION:
        discoveries = [read.discovery(fields) for fields in _items(document, "discoveries")]
        for fields in _items(document, "names"):
            names[fields.name("name")] = read.name(fields)
    else:
        discoveries = []
        read.earlier(document, names)
    for name, held in overrides.freeze.sets.items() if overrides.freeze is not None else ():
        confirmed = names[name].confirmed if name in names else None
        if confirmed is not None:
            names[name].confirmed = held.address_set, confirmed[1]
    state.discoveries = {(d.snapshot.issuer, *d.found.subject): d for d in discoveries}
    state.restore(names, read.derived if version == VERSION else None, overrides)


class _Reader:
    """Reads the parts of a document; each method raises as `restore`."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.derived: set[str] = set()  # names whose proven set is that of their owner
        self._keys = keys

    def overrides(self, document: Fields) -> Overrides:
        pins = {f.name("name"): Pin(_addresses(f), f.whole("since")) for f in _items(document, "pins")}
        freeze = None
        if document.has("freeze"):
            fields = document.inner("freeze")
            serial = fields.whole("serial") if fields.has("serial") else None
            freeze = Freeze(fields.whole("since"), self.sets(fields, "names"), serial)
        history: list[Record] = []
        for fields in _items(document, "history"):
            sets = self.sets(fields, "names")
            if fields.has("removed"):
                before = dict(history[-1].sets) if history else {}
                removed = set(fields.names("removed"))
                sets = {n: s for n, s in (before | sets).items() if n not in removed}
            taken = {record.serial for record in history}
            serial = fields.whole("serial")  # two records of the version before may have the same
            serial = serial if serial not in taken else max(taken) + 1
            history.append(Record(serial, fields.text("issuer"), fields.whole("taken_at"), sets))
        return Overrides(pins, freeze, tuple(history))

    def discovery(self, fields: Fields) -> Discovery:
        found = Found(
            fields.text("registry"), fields.text("role"), fields.names("names"), fields.whole("observed_at")
        )
        return Discovery(found, self._origin(fields))

    def name(self, fields: Fields) -> NameState:
        state = NameState(fields.name("name"), "")
        state.owner = fields.text("owner") if fields.has("owner") else None
        if fields.has("proven"):
            state.proven = self._statement(fields.inner("proven"))
        elif "proven" not in fields.keys():  # noqa: SIM118 - not a dict
            self.derived.add(state.name)
        if fields.has("statements"):
            for statement in self.list(fields, "statements"):
                state.stated[statement.snapshot.issuer] = Stated(statement, statement)
        if fields.has("confirmed"):  # what it confirms is the set that a freeze keeps
            state.confirmed = ((), None), fields.whole("confirmed")
        state.trial = canary.from_fields(fields.inner("trial")) if fields.has("trial") else None
        if fields.has("alive"):
            alive = fields.inner("alive")
            state.health = {
                address: Health(alive.flag(address) if alive.has(address) else None, 0.0)
                for address in alive.keys()  # noqa: SIM118 - not a dict
            }
        return state

    def earlier(self, document: Fields, names: dict[str, NameState]) -> None:
        """Read what the version before kept besides: sets in service, dead addresses, trials."""
        for name, statement in self.sets(document, "in_service").items():
            names.setdefault(name, NameState(name, "")).proven = statement
        for fields in _items(document, "held_back"):
            name = fields.name("name")
            health = {address: Health(False, 0.0) for address in _addresses(fields)}
            names.setdefault(name, NameState(name, "")).health = health
        for fields in _items(document, "trials"):
            name = fields.name("name")
            names.setdefault(name, NameState(name, "")).trial = canary.from_fields(fields)

    def sets(self, fields: Fields, key: str) -> dict[str, Statement]:
        return {statement.learned.name: statement for statement in self.list(fields, key)}

    def list(self, fields: Fields, key: str) -> list[Statement]:
        return [self._statement(item) for item in _items(fields, key)]

    def _statement(self, fields: Fields) -> Statement:
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
            refused=refused_from(fields, "state"),
        )
        return Statement(learned, self._origin(fields))

    def _origin(self, fields: Fields) -> Origin:
        issuer = fields.text("issuer")
        key_id = fields.text("key") if fields.has("key") else self._keys.get(issuer, "")
        times = fields.whole("serial"), fields.whole("issued_at"), fields.whole("expires_at")
        return Origin(issuer, *times, key_id)


def _items(document: Fields, key: str) -> Iterator[Fields]:
    """Yield the objects of a list, which may be missing."""
    listed = document.sequence(key) if document.has(key) else []
    for index, item in enumerate(listed):
        yield Fields(item, f"{key}[{index}]")


def _addresses(fields: Fields) -> tuple[str, ...]:
    try:
        addresses = canonical_addresses(fields.texts("addresses"))
    except ValueError as exc:
        raise fields.wrong("addresses", str(exc)) from exc
    if not addresses:
        raise fields.wrong("addresses", "none")
    return addresses
