"""What follows what: one snapshot after another, with serials that grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dnsproxy.core.learned import LearnedName, Snapshot
from dnsproxy.core.registry import Found

# Seconds. A proxy that cannot reach its helper for longer starts without a fresh
# snapshot but keeps serving its own state file.
LIFETIME = 86_400


@dataclass(frozen=True, slots=True)
class Published:
    """A snapshot and its signed form."""

    snapshot: Snapshot
    token: str


def order(snapshot: Snapshot) -> tuple[int, int]:
    """Return what grows from one document of a helper to the next: serial, then time of issue."""
    return snapshot.serial, snapshot.issued_at


def next_snapshot(
    last: Snapshot | None,
    issuer: str,
    entries: tuple[LearnedName, ...],
    wall_now: float,
    found: tuple[Found, ...] = (),
    *,
    restarted: bool = False,
) -> Snapshot:
    """Return the snapshot after ``last``; ``wall_now`` is Unix time in seconds.

    The serial grows when a name, an address, a CNAME, a status, a refusal or a finding has changed.
    It also grows when the clock was set back, or proxies would take an earlier
    time of issue for an older snapshot; and when the helper has ``restarted``, for ``last`` may be
    from a backup, older than what proxies have.
    """
    issued_at = int(wall_now)
    if last is None:
        serial = int(wall_now * 1000)
    elif (
        restarted
        or _essence(last.names, last.found) != _essence(entries, found)
        or issued_at < last.issued_at
    ):
        serial = max(last.serial + 1, int(wall_now * 1000))
    else:
        serial = last.serial
    return Snapshot(issuer, serial, issued_at, issued_at + LIFETIME, entries, found)


def _essence(entries: Sequence[LearnedName], found: Sequence[Found]) -> set[tuple[object, ...]]:
    names = {(entry.name, entry.addresses, entry.cname, entry.status, entry.refused) for entry in entries}
    return names | {(*entry.subject, entry.names) for entry in found}
