"""What is known of each name: from a running proxy, or from its state file when none runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from dnsproxy.core import names, seal
from dnsproxy.core.addresses.lifecycle import AddressLifecycle
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.addresses.table import PINNED
from dnsproxy.core.registry import Wanted, undiscovered
from dnsproxy.core.trust import Trust
from dnsproxy.errors import DnsproxyError
from dnsproxy.keys import local_key_path, read_private_key
from dnsproxy.net.statefile import load_state
from dnsproxy.ops.client import NO_FILES, AdminClient, AdminError, AdminFiles
from dnsproxy.settings import Settings
from dnsproxy.trust import address_policy, read_trust, with_own

Network = IPv4Network | IPv6Network


class NothingKnownError(DnsproxyError):
    """Neither a running proxy nor a state file could be read; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class KnownName:
    """One name: ``addresses`` are empty while none is known; ``age`` is in seconds, None for pinned names.

    ``waiting`` are learned addresses that the proxy holds back until they work, ``unprobed`` those that it
    probes, but has no result of.
    """

    name: str
    role: str
    registry: str
    addresses: tuple[str, ...]
    source: str | None
    serial: int | None
    age: float | None
    waiting: tuple[str, ...] = ()
    unprobed: tuple[str, ...] = ()

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
    they are what helpers have said: the proxy may hold some of them back. ``undiscovered`` are the registries
    and roles whose names are not known yet.
    """

    origin: str
    exact: bool
    serial: int
    names: tuple[KnownName, ...]
    undiscovered: tuple[tuple[str, str], ...] = ()

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
                name=names.canonical(str(entry["name"])),
                role=str(entry["role"]),
                registry=str(entry["registry"]),
                addresses=tuple(map(_address, entry["addresses"])),
                source=entry["source"],
                serial=entry["serial"],
                age=entry["age"],
                waiting=tuple(
                    _address(detail["address"])
                    for detail in entry.get("details") or ()
                    if detail["state"] == "held_back"
                ),
                unprobed=tuple(_unprobed(entry)),
            )
            for entry in document["names"]
        )
        roles = tuple((str(role["registry"]), str(role["role"])) for role in document["undiscovered"])
        return Known(origin, True, int(document["serial"]), entries, roles)
    except (KeyError, TypeError, ValueError) as exc:
        raise NothingKnownError(f"{origin}: not a status document ({exc!r})") from exc


def _address(text: object) -> str:
    return str(ip_address(str(text)))


def _unprobed(entry: Mapping[str, Any]) -> Iterator[str]:
    if not entry["ports"] or entry["source"] == "pinned":
        return
    details = {str(detail["address"]): detail for detail in entry["details"]}
    for address in dict.fromkeys((*map(str, entry["addresses"]), *details)):
        detail = details.get(address, {"state": "serving", "probe": {}})
        if detail["state"] != "refused" and not detail["probe"]:
            yield address


def from_state(settings: Settings, wall_now: float) -> Known:
    """Return what a proxy would answer after a start from its state file; ``wall_now`` is Unix seconds.

    Raises:
        NothingKnownError: the file cannot be read.
        StartError: a trusted key, or the one of this host, cannot be read.
    """
    path, trust = settings.learn.state_file, _trust(settings)
    state = AddressLifecycle(address_policy(settings, trust))
    try:
        load_state(path, state, trust)
    except OSError as exc:
        raise NothingKnownError(f"{path}: {exc.strerror or exc}") from exc
    while not state.settle(len(state.names) + 1, 0.0, wall_now):
        pass
    entries = tuple(_known(state, entry, wall_now) for entry in state.managed())
    roles = tuple(entry.subject for entry in undiscovered(settings.sought(), state.discovered()))
    return Known(str(path), False, state.serial, entries, roles)


def _trust(settings: Settings) -> Trust:
    trust = read_trust(settings)
    local = local_key_path(settings.learn.state_file)
    if any(source.is_local for source in settings.learn.sources) and local.exists():
        own = read_private_key(local).public_key()
        trust = with_own(trust, {seal.key_id(own): own})
    return trust


def _known(state: AddressLifecycle, entry: Wanted, wall_now: float) -> KnownName:
    served, stated = state.served(entry.name), state.owned(entry.name)
    if entry.addresses or served is None:
        source = "pinned" if entry.addresses else None
        return KnownName(entry.name, entry.role, entry.registry, entry.addresses, source, None, None)
    addresses, is_pinned = served.learned.addresses, served.snapshot.issuer == PINNED
    waiting = stated.learned.addresses if stated is not None and not is_pinned else ()
    learned = tuple(dict.fromkeys((*addresses, *waiting)))
    return KnownName(
        name=entry.name,
        role=entry.role,
        registry=entry.registry,
        addresses=addresses,
        source=served.snapshot.issuer,
        serial=None if is_pinned else served.snapshot.serial,
        age=None if is_pinned else max(0.0, wall_now - served.learned.observed_at),
        waiting=tuple(address for address in waiting if address not in addresses),
        # The file has no results of probes.
        unprobed=learned if state.policy.ports_of(entry.name) and not is_pinned else (),
    )


def configured(settings: Settings) -> Known:
    """Return the names of the configuration, with their pins and nothing else."""
    state = AddressLifecycle(AddressPolicy(tuple(settings.wanted())))
    entries = tuple(_known(state, entry, 0.0) for entry in state.managed())
    return Known("the configuration", False, 0, entries)


def ask_known(admin: str, files: AdminFiles = NO_FILES) -> Known:
    """Return what the proxy at ``admin`` knows.

    Raises:
        AdminError: it does not answer.
        NothingKnownError: it answers with another document.
    """
    return from_status(AdminClient(admin, files).call("GET", "/api/v1/status"), admin)


def read_known(settings: Settings, admin: str | None, wall_now: float, files: AdminFiles = NO_FILES) -> Known:
    """Ask the running proxy, at ``admin`` or where the configuration says; without one read the state file.

    Raises:
        AdminError: ``admin`` was given and does not answer.
        NothingKnownError: there is neither a proxy nor a usable state file.
        StartError: as `from_state`.
    """
    if admin is not None:
        return ask_known(admin, files)
    try:
        document = AdminClient.from_settings(settings.admin, files).call("GET", "/api/v1/status")
        return from_status(document, f"the proxy at {settings.admin.listen}")
    except AdminError as exc:
        known = from_state(settings, wall_now)
        if known.serial == 0 and not any(entry.addresses for entry in known.names):
            raise NothingKnownError(f"{exc}; and {known.origin} holds nothing usable") from exc
        return known
