"""The event that `learn.on_change` gets: what differs from the event before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dnsproxy.core.addresses.lifecycle import AddressLifecycle

VERSION = 1


@dataclass(frozen=True, slots=True)
class NameStatus:
    """One name: the addresses ``served``, those ``learned`` last, and those of both without a route."""

    role: str
    registry: str
    served: tuple[str, ...]
    learned: tuple[str, ...]
    unrouted: tuple[str, ...]


def change_event(
    reported: Mapping[str, NameStatus], current: Mapping[str, NameStatus], *, serial: int, frozen: bool
) -> dict[str, Any] | None:
    """Return the event as a JSON object; None when nothing differs from what was ``reported``.

    ``names`` has the names that changed: ``old`` and ``new`` are the addresses answered before and now,
    ``learned`` those that the helper stated last, which may still be held back. ``routes_needed`` of the
    whole are those of all names, changed or not.
    """
    gone = NameStatus("other", "", (), (), ())
    changed = sorted(
        name for name in {*reported, *current} if reported.get(name, gone) != current.get(name, gone)
    )
    if not changed:
        return None
    return {
        "version": VERSION,
        "serial": serial,
        "frozen": frozen,
        "names": [_name(name, reported.get(name, gone), current.get(name)) for name in changed],
        "routes_needed": sorted({address for held in current.values() for address in held.unrouted}),
    }


def name_statuses(state: AddressLifecycle) -> dict[str, NameStatus]:
    """Return the status of each name that has an address."""
    found = {}
    for entry in state.managed():
        served, stated = state.served(entry.name), state.owned(entry.name)
        answered = entry.addresses or (served.learned.addresses if served else ())
        refused = {finding.address for finding in state.refused_of(entry.name)}
        learned = tuple(a for a in (stated.learned.addresses if stated else ()) if a not in refused)
        if answered or learned:
            routed = state.routed(entry, {*answered, *learned})
            unrouted = tuple(sorted(address for address in routed if routed[address] is False))
            found[entry.name] = NameStatus(entry.role, entry.registry, answered, learned, unrouted)
    return found


def _name(name: str, old: NameStatus, new: NameStatus | None) -> dict[str, Any]:
    named = new or old
    return {
        "name": name,
        "role": named.role,
        "registry": named.registry,
        "old": list(old.served),
        "new": list(new.served) if new else [],
        "learned": list(new.learned) if new else [],
        "routes_needed": list(new.unrouted) if new else [],
    }
