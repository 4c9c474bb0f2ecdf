"""Snapshots: what a helper has seen, and whether a proxy may believe it.

A `Snapshot` is one helper's whole view at one time. Its ``serial`` grows only
when an address changes; ``issued_at`` grows each time the helper has looked
again. `judge` compares a candidate with the last accepted snapshot of the same
issuer; it is the only function of the proxy that is given wall-clock time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from dnsproxy.core import names
from dnsproxy.core.fields import Fields
from dnsproxy.core.registry import Found, Sought, found_from, superseded
from dnsproxy.errors import Rejection, SnapshotError

# A proxy whose clock runs behind the helper's still takes its snapshots; five
# minutes is what Kerberos and most token verifiers grant (RFC 4120 §7.5.8).
CLOCK_SKEW = 300
ROLES = frozenset({"registry", "auth", "storage", "chart", "other"})
# Bounds of what is read from the network. Far above real use (a region has tens
# of names, a name a handful of addresses), far below what would hurt.
MAX_NAMES = 20_000
MAX_ADDRESSES = 256
MAX_RESOLVERS = 64
# Refused sets of one name: its present addresses, or what is left of them where a proxy may not answer all.
MAX_REFUSED = 8


@dataclass(frozen=True, slots=True)
class LearnedName:
    """One name as a helper saw it.

    ``name`` is canonical text, perhaps a wildcard. ``addresses`` are canonical
    IPv4 or IPv6 text, sorted. ``ttl`` is what the resolver said, in seconds.
    ``observed_at`` is Unix time of the last response that confirmed the
    addresses. ``status`` is ``ok``, or ``stale`` when the last look failed and
    the addresses are from an earlier one, or ``failed`` when none were ever seen.
    ``changed_at`` is Unix time, with a fraction, at which the helper first saw this
    address set; None from earlier helpers, which do not say. ``refused`` are sets of
    these addresses that proxies have tried and rolled back (`core.canary`).
    """

    name: str
    role: str
    registry: str
    addresses: tuple[str, ...]
    cname: str | None
    ttl: int
    observed_at: int
    resolvers: tuple[str, ...]
    status: str
    changed_at: float | None = None
    refused: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One helper's signed view. Times are Unix seconds, ``serial`` is opaque but growing.

    ``found`` says what registries told about themselves, one entry per registry and role; a
    role that is missing there has not been found out, which takes nothing back.
    """

    issuer: str
    serial: int
    issued_at: int
    expires_at: int
    names: tuple[LearnedName, ...]
    found: tuple[Found, ...] = ()

    @property
    def identity(self) -> tuple[str, int, int]:
        """Issuer, serial and time of issue: no two documents of a helper share all three."""
        return self.issuer, self.serial, self.issued_at

    @property
    def address_count(self) -> int:
        """Addresses of all names together."""
        return sum(len(entry.addresses) for entry in self.names)

    def to_payload(self) -> dict[str, Any]:
        """Return the JSON object that is signed (the wire format of the snapshot)."""
        return {
            "iss": self.issuer,
            "iat": self.issued_at,
            "exp": self.expires_at,
            "serial": self.serial,
            "names": [
                {
                    "name": entry.name,
                    "role": entry.role,
                    "registry": entry.registry,
                    "addresses": list(entry.addresses),
                    "cname": entry.cname,
                    "ttl": entry.ttl,
                    "observed_at": entry.observed_at,
                    "resolvers": list(entry.resolvers),
                    "status": entry.status,
                    **({} if entry.changed_at is None else {"changed_at": entry.changed_at}),
                    **({"refused": list(map(list, entry.refused))} if entry.refused else {}),
                }
                for entry in self.names
            ],
            "found": [
                {
                    "registry": entry.registry,
                    "role": entry.role,
                    "names": list(entry.names),
                    "observed_at": entry.observed_at,
                }
                for entry in self.found
            ],
        }

    @classmethod
    def from_payload(cls, payload: object) -> Snapshot:
        """Read the JSON object of `to_payload`; unknown keys are for later versions and are passed over.

        Raises:
            SnapshotError: ``MALFORMED``, naming the first key that is wrong.
        """
        document = Fields(payload, "snapshot")
        listed = document.sequence("names")
        if len(listed) > MAX_NAMES:
            raise SnapshotError(Rejection.MALFORMED, f"names: more than {MAX_NAMES}")
        entries = tuple(_name_from(item, f"names[{index}]") for index, item in enumerate(listed))
        if len({entry.name for entry in entries}) != len(entries):
            raise SnapshotError(Rejection.MALFORMED, "names: one name is listed twice")
        return cls(
            issuer=document.label("iss"),
            serial=document.whole("serial"),
            issued_at=document.whole("iat"),
            expires_at=document.whole("exp"),
            names=entries,
            found=found_from(document, MAX_NAMES),
        )


def _addresses_from(fields: Fields, key: str) -> tuple[str, ...]:
    listed = fields.texts(key)
    if len(listed) > MAX_ADDRESSES:
        raise fields.wrong(key, f"more than {MAX_ADDRESSES} addresses")
    try:
        return canonical_addresses(listed)
    except ValueError as exc:
        raise fields.wrong(key, str(exc)) from exc


def canonical_addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct addresses in canonical text, IPv4 first, each family in order.

    Raises:
        ValueError: one of them is not an IP address, or has a scope id.
    """
    parsed = {ip_address(text) for text in texts}
    if any(address.version == 6 and address.scope_id for address in parsed):
        raise ValueError("an address with a scope id means nothing on another host")
    return tuple(str(a) for a in sorted(parsed, key=lambda address: (address.version, int(address))))


def _name_from(item: object, place: str) -> LearnedName:
    fields = Fields(item, place)
    role = fields.label("role")
    status = fields.label("status")
    addresses = _addresses_from(fields, "addresses")
    return LearnedName(
        name=fields.name("name"),
        # A role or status from a later version is still a name with addresses.
        role=role if role in ROLES else "other",
        registry=fields.label("registry"),
        addresses=addresses,
        cname=fields.optional_name("cname"),
        ttl=fields.whole("ttl"),
        observed_at=fields.whole("observed_at"),
        resolvers=fields.labels("resolvers", MAX_RESOLVERS),
        status=status,
        changed_at=fields.optional_moment("changed_at"),
        refused=refused_from(fields, place),
    )


def refused_from(fields: Fields, place: str) -> tuple[tuple[str, ...], ...]:
    """Return the sets of addresses under the key ``refused``, which may be missing.

    Raises:
        SnapshotError: ``MALFORMED``; ``place`` names it.
    """
    listed = fields.sequence("refused") if fields.has("refused") else []
    if len(listed) > MAX_REFUSED:
        raise fields.wrong("refused", f"more than {MAX_REFUSED}")
    sets = (Fields({"refused": item}, place) for item in listed)
    return tuple(_addresses_from(found, "refused") for found in sets)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which names a proxy lets a helper speak for.

    ``keys`` are the keys of the configured names. A helper that signs another
    name (``www.bank.example``) must not be able to take it over. What it says
    to have found is taken for ``sought`` roles only, and below their suffixes.
    """

    keys: frozenset[bytes]
    sought: tuple[Sought, ...] = ()

    def allows(self, name: str) -> bool:
        """Tell whether ``name`` (canonical text) is configured here."""
        return names.to_key(name) in self.keys

    def admit(self, found: Iterable[Found]) -> tuple[Found, ...]:
        """Return what is sought here out of ``found``, without the names that may not be taken."""
        sought = {entry.subject: entry for entry in self.sought}
        return tuple(
            replace(entry, names=tuple(filter(sought[entry.subject].allows, entry.names)))
            for entry in found
            if entry.subject in sought
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """Take ``snapshot``, which holds only names in scope.

    ``foreign`` are the names left out; ``kept`` are those for which the
    candidate has no address while one was known before. ``compared_with`` is the snapshot that it replaces.
    """

    snapshot: Snapshot
    foreign: tuple[str, ...]
    kept: tuple[str, ...]
    compared_with: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The candidate is the snapshot that is in use already."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Keep what is in use; ``detail`` is for the log."""

    reason: Rejection
    detail: str


Verdict = Accepted | Unchanged | Rejected


def judge(current: Snapshot | None, candidate: Snapshot, wall_now: float, scope: Scope) -> Verdict:
    """Decide whether ``candidate`` may replace ``current``, both from the same issuer.

    ``wall_now`` is Unix time in seconds. Order of checks: time window, age
    against ``current``, scope, emptiness.
    """
    if candidate.expires_at + CLOCK_SKEW <= wall_now:
        return Rejected(Rejection.EXPIRED, f"expired {wall_now - candidate.expires_at:.0f} s ago")
    if candidate.issued_at - CLOCK_SKEW > wall_now:
        ahead = candidate.issued_at - wall_now
        return Rejected(Rejection.NOT_YET_VALID, f"issued {ahead:.0f} s in the future")
    if current is not None:
        if (candidate.serial, candidate.issued_at) == (current.serial, current.issued_at):
            return Unchanged()
        if _is_behind(candidate, current, wall_now):
            return Rejected(Rejection.OLDER, f"{_age(candidate)}, in use {_age(current)}")
    return judge_content(current, candidate, scope)


def _is_behind(candidate: Snapshot, current: Snapshot, wall_now: float) -> bool:
    """Tell whether ``candidate`` was made before ``current``.

    The serial leads, since it grows even when a helper's clock is set back. But a
    serial begins as a time in milliseconds: one that lies in the future is left over from a
    clock that was wrong, and a helper that has lost its state cannot know it. It orders nothing, or
    such a helper would be refused until that time comes.
    """
    latest = wall_now + CLOCK_SKEW
    if current.issued_at > latest:
        # Taken while this host's own clock was as far ahead as the helper's.
        return False
    if max(current.serial, candidate.serial) > latest * 1000:
        return (candidate.issued_at, candidate.serial) < (current.issued_at, current.serial)
    return (candidate.serial, candidate.issued_at) < (current.serial, current.issued_at)


def _age(snapshot: Snapshot) -> str:
    return f"serial {snapshot.serial} of {snapshot.issued_at}"


def judge_content(current: Snapshot | None, candidate: Snapshot, scope: Scope) -> Accepted | Rejected:
    """As `judge`, without time window and age."""
    ours, foreign = in_scope(candidate, scope)
    if foreign and not ours.names:
        return Rejected(Rejection.NOT_OURS, f"none of its {len(foreign)} names is configured here")
    known = {e.name for e in current.names if e.addresses} if current else set()
    if known and not ours.address_count:
        return Rejected(Rejection.SHRANK_TO_EMPTY, f"no address for any name, {len(known)} known")
    offered_names = {e.name for e in ours.names if e.addresses}
    given_up = superseded(current.found, ours.found) if current else frozenset()
    return Accepted(ours, foreign, tuple(sorted(known - offered_names - given_up)), current)


def in_scope(candidate: Snapshot, scope: Scope) -> tuple[Snapshot, tuple[str, ...]]:
    """Return what of ``candidate`` may be taken, and the names that may not."""
    found = scope.admit(candidate.found)
    # As in `registry.with_found`, the first role that has a name owns it.
    admitted = {name: entry.registry for entry in reversed(found) for name in entry.names}
    offered_all = [entry.name for entry in candidate.names]
    foreign = tuple(name for name in offered_all if name not in admitted and not scope.allows(name))
    left_out = set(foreign)
    # The limits of a discovered name are those of its registry, which the helper must not choose.
    # A helper saw nothing after it signed: a later time is from a clock that has been set back since.
    newest = candidate.issued_at
    listed = (
        replace(e, registry=admitted.get(e.name, e.registry), observed_at=min(e.observed_at, newest))
        for e in candidate.names
        if e.name not in left_out
    )
    found = tuple(replace(entry, observed_at=min(entry.observed_at, newest)) for entry in found)
    return replace(candidate, names=tuple(listed), found=found), foreign
