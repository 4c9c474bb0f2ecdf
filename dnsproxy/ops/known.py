"""What is known of each name: from a running proxy, or from its state file when none runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from dnsproxy.core import names, seal
from dnsproxy.core.book import Book, Entry
from dnsproxy.core.learned import Accepted, judge_content
from dnsproxy.core.orders import PINNED, Orders, pinned_entry
from dnsproxy.core.registry import Wanted, with_found
from dnsproxy.core.trust import Trust
from dnsproxy.errors import DnsproxyError, SnapshotError
from dnsproxy.keys import local_key_path, read_private_key
from dnsproxy.net.orderfile import orders_path, read_orders
from dnsproxy.net.statefile import read_state
from dnsproxy.ops.client import NO_FILES, AdminClient, AdminError, AdminFiles
from dnsproxy.settings import Settings
from dnsproxy.trust import read_trust, with_own

Network = IPv4Network | IPv6Network


class NothingKnownError(DnsproxyError):
    """Neither a running proxy nor a state file could be read; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class KnownName:
    """One name: ``addresses`` are empty while none is known; ``age`` is in seconds, None for pinned names.

    ``waiting`` are learned addresses that the proxy holds back until they work.
    """

    name: str
    role: str
    registry: str
    addresses: tuple[str, ...]
    source: str | None
    serial: int | None
    age: float | None
    waiting: tuple[str, ...] = ()

    @property
    def learned(self) -> tuple[str, ...]:
        """All addresses that it has or may have soon."""
        return tuple(dict.fromkeys((*self.addresses, *self.waiting)))

    def matches(self, name: str) -> bool:
        """Tell whether it answers for ``name`` (canonical text), as itself or as a wildcard."""
        if self.name.startswith("*."):
            key, parent = names.to_key(name), names.to_key(self.name[2:])
            return key != parent and names.is_below(key, parent)
        return self.name == name


@dataclass(frozen=True, slots=True)
class Known:
    """Everything known, and where it was read: ``origin`` is for people.

    With ``exact`` the addresses are what a proxy answers with at this time. Without,
    they are what helpers have said: the proxy may hold some of them back.
    """

    origin: str
    exact: bool
    serial: int
    names: tuple[KnownName, ...]

    def find(self, name: str) -> KnownName | None:
        """Return what answers for ``name``: itself, else the longest wildcard above it."""
        canonical = names.canonical(name)
        matching = [entry for entry in self.names if entry.matches(canonical)]
        exact = (entry for entry in matching if entry.name == canonical)
        return next(exact, None) or max(matching, key=lambda entry: len(entry.name), default=None)


def from_status(document: Mapping[str, Any], origin: str) -> Known:
    """Return what the status document of ``/api/v1/status`` tells.

    Raises:
        NothingKnownError: it is no such document.
    """
    try:
        entries = tuple(
            KnownName(
                name=str(entry["name"]),
                role=str(entry["role"]),
                registry=str(entry["registry"]),
                addresses=tuple(map(str, entry["addresses"])),
                source=entry["source"],
                serial=entry["serial"],
                age=entry["age"],
                waiting=tuple(
                    str(detail["address"])
                    for detail in entry.get("details") or ()
                    if detail["state"] == "held_back"
                ),
            )
            for entry in document["names"]
        )
        return Known(origin, True, int(document["serial"]), entries)
    except (KeyError, TypeError, ValueError) as exc:
        raise NothingKnownError(f"{origin}: not a status document ({exc!r})") from exc


def from_state(settings: Settings, wall_now: float) -> Known:
    """Return what state file, orders and the pins of the configuration tell; ``wall_now`` is Unix seconds.

    Raises:
        NothingKnownError: the file cannot be read.
        StartError: a trusted key, or the one of this host, cannot be read.
    """
    path = settings.learn.state_file
    wanted = settings.wanted()
    try:
        tokens = read_state(path)
    except OSError as exc:
        raise NothingKnownError(f"{path}: {exc.strerror or exc}") from exc
    book = _book(tokens, settings)
    orders = _orders(path)
    kept = {**orders.in_service, **(orders.freeze.entries if orders.freeze else {})}
    kept |= {name: pinned_entry(name, pin) for name, pin in orders.pins.items()}
    entries = tuple(
        _from_book(entry, book.entries.get(entry.name), kept.get(entry.name), wall_now)
        for entry in with_found(wanted, book.found())
    )
    return Known(str(path), False, book.serial, entries)


def _orders(state_file: Path) -> Orders:
    try:
        return read_orders(orders_path(state_file))
    except (OSError, ValueError, RecursionError, SnapshotError):
        return Orders()  # the proxy sets such a file aside and goes on; so does this


def _trust(settings: Settings) -> Trust:
    trust = read_trust(settings)
    local = local_key_path(settings.learn.state_file)
    if any(source.is_local for source in settings.learn.sources) and local.exists():
        own = read_private_key(local).public_key()
        trust = with_own(trust, {seal.key_id(own): own})
    return trust


def _book(tokens: Sequence[str], settings: Settings) -> Book:
    trust = _trust(settings)
    book = Book()
    for token in tokens:
        try:
            snapshot, scope = trust.open(token)
        except SnapshotError:
            continue  # the proxy sets such a document aside and uses the others; so does this
        verdict = judge_content(book.latest.get(snapshot.issuer), snapshot, scope)
        if isinstance(verdict, Accepted):
            book = book.merged(verdict.snapshot)
    return book


def _from_book(entry: Wanted, newest: Entry | None, kept: Entry | None, wall_now: float) -> KnownName:
    """Return what is known: ``kept`` is what orders or probes keep in service in place of ``newest``."""
    held = kept or newest
    if entry.addresses or held is None:
        source = "pinned" if entry.addresses else None
        return KnownName(entry.name, entry.role, entry.registry, entry.addresses, source, None, None)
    is_pinned = held.snapshot.issuer == PINNED
    waiting = newest.learned.addresses if newest is not None and not is_pinned else ()
    return KnownName(
        name=entry.name,
        role=entry.role,
        registry=entry.registry,
        addresses=held.learned.addresses,
        source=held.snapshot.issuer,
        serial=None if is_pinned else held.snapshot.serial,
        age=None if is_pinned else max(0.0, wall_now - held.learned.observed_at),
        waiting=tuple(address for address in waiting if address not in held.learned.addresses),
    )


def configured(settings: Settings) -> Known:
    """Return the names of the configuration, with their pins and nothing else."""
    entries = tuple(_from_book(entry, None, None, 0.0) for entry in settings.wanted())
    return Known("the configuration", False, 0, entries)


def read_known(settings: Settings, admin: str | None, wall_now: float, files: AdminFiles = NO_FILES) -> Known:
    """Ask the running proxy, at ``admin`` or where the configuration says; without one read the state file.

    Raises:
        AdminError: ``admin`` was given and does not answer.
        NothingKnownError: there is neither a proxy nor a usable state file.
        StartError: as `from_state`.
    """
    if admin is not None:
        return from_status(AdminClient(admin, files).call("GET", "/api/v1/status"), admin)
    try:
        document = AdminClient.from_settings(settings.admin, files).call("GET", "/api/v1/status")
        return from_status(document, f"the proxy at {settings.admin.listen}")
    except AdminError as exc:
        known = from_state(settings, wall_now)
        if known.serial == 0 and not any(entry.addresses for entry in known.names):
            raise NothingKnownError(f"{exc}; and {known.origin} holds nothing usable") from exc
        return known


def routed_ranges(settings: Settings) -> dict[str, tuple[Network, ...]]:
    """Return ``network.routed`` of each registry by its label."""
    return {registry.name: tuple(registry.network.routed) for registry in settings.registries}
