"""Snapshots: what a helper has seen, and whether a proxy may believe it.

A `Snapshot` is one helper's whole view at one time. Its ``serial`` grows only
when an address changes; ``issued_at`` grows each time the helper has looked
again. `judge` compares a candidate with the last accepted snapshot of the same
issuer; it is the only function of the proxy that is given wall-clock time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from dnsproxy.core import names
from dnsproxy.errors import Rejection, SnapshotError

# A proxy whose clock runs behind the helper's still takes its snapshots; five
# minutes is what Kerberos and most token verifiers grant (RFC 4120 §7.5.8).
CLOCK_SKEW = 300
ROLES = frozenset({"registry", "auth", "storage", "chart", "other"})
# Bounds of what is read from the network. Far above real use (a region has tens
# of names, a name a handful of addresses), far below what would hurt.
MAX_NAMES = 20_000
MAX_ADDRESSES = 256


@dataclass(frozen=True, slots=True)
class LearnedName:
    """One name as a helper saw it.

    ``name`` is canonical text, perhaps a wildcard. ``addresses`` are canonical
    IPv4 or IPv6 text, sorted. ``ttl`` is what the resolver said, in seconds.
    ``observed_at`` is Unix time of the last response that confirmed the
    addresses. ``status`` is ``ok``, or ``stale`` when the last look failed and
    the addresses are from an earlier one, or ``failed`` when none were ever seen.
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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One helper's signed view. Times are Unix seconds, ``serial`` is opaque but growing."""

    issuer: str
    serial: int
    issued_at: int
    expires_at: int
    names: tuple[LearnedName, ...]

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
                }
                for entry in self.names
            ],
        }

    @classmethod
    def from_payload(cls, payload: object) -> Snapshot:
        """Read the JSON object of `to_payload`; unknown keys are for later versions and are passed over.

        Raises:
            SnapshotError: ``MALFORMED``, naming the first key that is wrong.
        """
        document = _Fields(payload, "snapshot")
        listed = document.sequence("names")
        if len(listed) > MAX_NAMES:
            raise SnapshotError(Rejection.MALFORMED, f"names: more than {MAX_NAMES}")
        entries = tuple(_name_from(item, f"names[{index}]") for index, item in enumerate(listed))
        if len({entry.name for entry in entries}) != len(entries):
            raise SnapshotError(Rejection.MALFORMED, "names: one name is listed twice")
        return cls(
            issuer=document.text("iss"),
            serial=document.whole("serial"),
            issued_at=document.whole("iat"),
            expires_at=document.whole("exp"),
            names=entries,
        )


class _Fields:
    """Typed access to a JSON object; every failure names the key."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, Mapping):
            raise SnapshotError(Rejection.MALFORMED, f"{place}: not an object")
        self._value = value
        self._place = place

    def _wrong(self, key: str, expected: str) -> SnapshotError:
        return SnapshotError(Rejection.MALFORMED, f"{self._place}.{key}: not {expected}")

    def text(self, key: str) -> str:
        value = self._value.get(key)
        if not isinstance(value, str) or not value or not _is_unicode(value):
            raise self._wrong(key, "a text")
        return value

    def whole(self, key: str) -> int:
        value = self._value.get(key)
        # 2**63 keeps what a JSON peer in another language can hold; bool is an int in Python.
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise self._wrong(key, "a whole number")
        return value

    def sequence(self, key: str) -> list[object]:
        value = self._value.get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        return value

    def texts(self, key: str) -> list[str]:
        texts = []
        for item in self.sequence(key):
            if not isinstance(item, str) or not _is_unicode(item):
                raise self._wrong(key, "a list of texts")
            texts.append(item)
        return texts

    def name(self, key: str) -> str:
        try:
            return names.canonical(self.text(key))
        except ValueError as exc:
            raise SnapshotError(Rejection.MALFORMED, f"{self._place}.{key}: {exc}") from exc

    def optional_name(self, key: str) -> str | None:
        return None if self._value.get(key) is None else self.name(key)

    def addresses(self, key: str) -> tuple[str, ...]:
        listed = self.texts(key)
        if len(listed) > MAX_ADDRESSES:
            raise self._wrong(key, f"at most {MAX_ADDRESSES} addresses")
        try:
            return canonical_addresses(listed)
        except ValueError as exc:
            raise SnapshotError(Rejection.MALFORMED, f"{self._place}.{key}: {exc}") from exc


def _is_unicode(text: str) -> bool:
    # JSON can spell half of a surrogate pair. No log, metric or file could hold it.
    return not any("\ud800" <= character <= "\udfff" for character in text)


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
    fields = _Fields(item, place)
    role = fields.text("role")
    status = fields.text("status")
    addresses = fields.addresses("addresses")
    return LearnedName(
        name=fields.name("name"),
        # A role or status from a later version is still a name with addresses.
        role=role if role in ROLES else "other",
        registry=fields.text("registry"),
        addresses=addresses,
        cname=fields.optional_name("cname"),
        ttl=fields.whole("ttl"),
        observed_at=fields.whole("observed_at"),
        resolvers=tuple(fields.texts("resolvers")),
        status=status,
    )


@dataclass(frozen=True, slots=True)
class Scope:
    """Which names a proxy lets a helper speak for.

    ``keys`` are the keys of the configured names. A helper that signs another
    name (``www.bank.example``) must not be able to take it over.
    """

    keys: frozenset[bytes]

    def allows(self, name: str) -> bool:
        """Tell whether ``name`` (canonical text) is configured here."""
        return names.to_key(name) in self.keys


@dataclass(frozen=True, slots=True)
class Accepted:
    """Take ``snapshot``, which holds only names in scope.

    ``foreign`` are the names left out; ``kept`` are those for which the
    candidate has no address while one was known before.
    """

    snapshot: Snapshot
    foreign: tuple[str, ...]
    kept: tuple[str, ...]


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
    return judge_content(current, candidate, scope)


def judge_content(current: Snapshot | None, candidate: Snapshot, scope: Scope) -> Verdict:
    """As `judge`, without the time window: for what this proxy had accepted before and kept on disk."""
    if current is not None:
        held, offered = (current.serial, current.issued_at), (candidate.serial, candidate.issued_at)
        if offered == held:
            return Unchanged()
        if offered < held:
            return Rejected(Rejection.OLDER, f"serial {candidate.serial}, in use {current.serial}")
    foreign = tuple(entry.name for entry in candidate.names if not scope.allows(entry.name))
    ours = replace(candidate, names=tuple(e for e in candidate.names if e.name not in set(foreign)))
    if foreign and not ours.names:
        return Rejected(Rejection.NOT_OURS, f"none of its {len(foreign)} names is configured here")
    known = {e.name for e in current.names if e.addresses} if current else set()
    if known and not ours.address_count:
        return Rejected(Rejection.SHRANK_TO_EMPTY, f"no address for any name, {len(known)} known")
    offered_names = {e.name for e in ours.names if e.addresses}
    return Accepted(ours, foreign, tuple(sorted(known - offered_names)))
