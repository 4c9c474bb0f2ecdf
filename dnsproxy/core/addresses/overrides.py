"""What an operator ordered: pins, a freeze, a roll-back; and the history to roll back to. All are values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dnsproxy.core import names
from dnsproxy.core.addresses.table import Origin, Statement
from dnsproxy.core.learned import MAX_ADDRESSES, canonical_addresses
from dnsproxy.core.memory import RECORDED_ADDRESS, RECORDED_NAME, history_limit
from dnsproxy.errors import OrderError


@dataclass(frozen=True, slots=True)
class Pin:
    """Fixed addresses of a name, ``since`` Unix seconds."""

    addresses: tuple[str, ...]
    since: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """The sets that are kept since ``since`` (Unix seconds); ``serial`` after a roll-back to that record."""

    since: int
    sets: Mapping[str, Statement]
    serial: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The owner's set of each name after a snapshot that changed one, taken at ``taken_at`` (Unix seconds).

    ``serial`` identifies the record.
    """

    serial: int
    issuer: str
    taken_at: int
    sets: Mapping[str, Statement]


@dataclass(frozen=True, slots=True)
class Overrides:
    """Everything that is ordered, and the history, oldest first."""

    pins: Mapping[str, Pin] = field(default_factory=dict)
    freeze: Freeze | None = None
    history: tuple[Record, ...] = ()

    def find(self, serial: int) -> Record | None:
        """Return the record of ``serial``."""
        return next((record for record in self.history if record.serial == serial), None)


def recorded(
    history: tuple[Record, ...], sets: Mapping[str, Statement], cause: Origin, limit: int, wall_now: float
) -> tuple[Record, ...]:
    """Return the last ``limit`` of ``history``, with a record of ``sets`` when they differ from its last.

    Fewer where records like the last one would take more than `memory.history_limit`.
    """
    last = history[-1].sets if history else {}
    # A set that is the same as before is the same object, so that the file has it once.
    sets = {
        name: before if (before := last.get(name)) and before.address_set == held.address_set else held
        for name, held in sets.items()
    }
    if sets.keys() != last.keys() or any(held is not last[name] for name, held in sets.items()):
        # Two helpers may use one serial, and a helper that lost its state may use an earlier one again.
        taken = {record.serial for record in history}
        serial = cause.serial if cause.serial not in taken else max(taken) + 1
        history = (*history, Record(serial, cause.issuer, int(wall_now), sets))
    addresses = sum(len(held.learned.addresses) for held in sets.values())
    size = RECORDED_NAME * len(sets) + RECORDED_ADDRESS * addresses
    most = max(1, history_limit(len(sets)) // max(1, size))
    return history[-min(limit, most) :] if limit else ()


def fixed_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses of a pin in canonical text.

    Raises:
        OrderError: one of them is not an address, there is none, or there are too many.
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


def canonical_name(name: str) -> str:
    """Return ``name`` in canonical text.

    Raises:
        OrderError: it is not a domain name.
    """
    try:
        return names.canonical(name)
    except ValueError as exc:
        raise OrderError(str(exc)) from exc
