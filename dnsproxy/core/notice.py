"""What `learn.on_change` is told: the difference between what it was told last and what holds now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VERSION = 1


@dataclass(frozen=True, slots=True)
class Situation:
    """One name: the addresses ``served``, those ``learned`` last, and those of both without a route."""

    role: str
    registry: str
    served: tuple[str, ...]
    learned: tuple[str, ...]
    unrouted: tuple[str, ...]


def notice(
    told: Mapping[str, Situation], current: Mapping[str, Situation], *, serial: int, frozen: bool
) -> dict[str, Any] | None:
    """Return the JSON object to tell; None when nothing has changed.

    ``names`` has the names that changed: ``old`` and ``new`` are the addresses answered before
    and now, ``learned`` those that a helper named last, which may still be held back.
    ``routes_needed`` of the whole are those of all names, changed or not.
    """
    gone = Situation("other", "", (), (), ())
    changed = sorted(name for name in {*told, *current} if told.get(name, gone) != current.get(name, gone))
    if not changed:
        return None
    return {
        "version": VERSION,
        "serial": serial,
        "frozen": frozen,
        "names": [_name(name, told.get(name, gone), current.get(name)) for name in changed],
        "routes_needed": sorted({address for held in current.values() for address in held.unrouted}),
    }


def _name(name: str, old: Situation, new: Situation | None) -> dict[str, Any]:
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
