"""The names of one role of a registry, and the evidence that a name needs before it is withdrawn.

A response that names no host is no evidence against a known name: it may come from a front end, or concern
one blob only. A known name is withdrawn after the registry has named another host, or itself, in its place:
in at least `LOOKS` looks in a row, spread over at least `KEEP` seconds. No I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dnsproxy.core.registry import MAX_FOUND

# Conclusive looks in a row that must leave a name out before it is withdrawn. As many inconclusive looks are
# needed before a role of which nothing is known counts as one without names.
LOOKS = 3
# Seconds between the first of these looks and the last. Clients keep tokens for minutes, and the nodes of a
# registry that is being moved name different hosts. A pause between two looks counts as no time.
KEEP = 3600.0
# Looks that must have named a host before it keeps its place although all places are taken.
_STEADY = 2


@dataclass(slots=True)
class _Evidence:
    """Looks that ``named`` a host, and those in a row that ``missed`` it, over ``absent`` seconds."""

    named: int
    missed: int = 0
    absent: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """Effect of a conclusive look: names ``withdrawn``, and ``refused`` because all places are taken."""

    withdrawn: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class RoleNames:
    """At most `MAX_FOUND` names.

    ``longest_gap`` is the number of seconds between two looks above which the helper has paused. ``now`` is
    monotonic time. ``is_known`` is False until a look, or a snapshot, says which names the role has.
    """

    def __init__(self, longest_gap: float) -> None:
        self.is_known = False
        self._longest_gap = longest_gap
        self._names: dict[str, _Evidence] = {}
        self._concluded_at: float | None = None
        self._inconclusive = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The known names, sorted."""
        return tuple(sorted(self._names))

    def restore(self, names: Iterable[str]) -> None:
        """Add the names of an earlier snapshot, or of another helper of the group; withdraw none."""
        self.is_known = True
        for name in names:
            self._admit(name, _STEADY, frozenset())

    def conclude(self, named: Collection[str], now: float) -> Change:
        """Record a look in which the registry named these hosts; none when it named itself."""
        gap = 0.0 if self._concluded_at is None else now - self._concluded_at
        counted = gap if 0.0 <= gap <= self._longest_gap else 0.0
        self._concluded_at = now
        self.is_known = True
        for name, evidence in self._names.items():
            if name in named:
                evidence.named += 1
                evidence.missed, evidence.absent = 0, 0.0
            else:
                # Time counts from the first look that leaves the name out.
                evidence.absent += counted if evidence.missed else 0.0
                evidence.missed += 1
        withdrawn = tuple(name for name in self.names if _is_disproved(self._names[name]))
        for name in withdrawn:
            del self._names[name]
        refused = tuple(name for name in sorted(named) if not self._admit(name, 1, named))
        return Change(withdrawn, refused)

    def note_inconclusive(self) -> None:
        """Record a look from which no name follows. No known name changes."""
        self._inconclusive += 1
        if self._inconclusive >= LOOKS:
            self.is_known = True

    def _admit(self, name: str, looks: int, named: Collection[str]) -> bool:
        if name in self._names:
            return True
        if len(self._names) >= MAX_FOUND:
            replaceable = [
                (-evidence.missed, known)
                for known, evidence in self._names.items()
                if evidence.named < _STEADY and known not in named
            ]
            if not replaceable:
                return False
            del self._names[min(replaceable)[1]]
        self._names[name] = _Evidence(looks)
        return True


def _is_disproved(evidence: _Evidence) -> bool:
    return evidence.missed >= LOOKS and evidence.absent >= KEEP
