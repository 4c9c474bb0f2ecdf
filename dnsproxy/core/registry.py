"""The names that must be learned for a registry, and those that it tells itself.

Which names a cloud's registry has is for its `provider`; others the configuration lists.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from dnsproxy.core import names
from dnsproxy.core.fields import Fields

# Names of one role of a registry. One is usual; while a registry moves there are two.
MAX_FOUND = 8
# Values of `auth` and `storage` that give no name by themselves.
NAMELESS = frozenset({"none", "discover"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A name that somebody must learn, or that the configuration pins.

    ``name`` is canonical text and may start with ``*.``; ``ask`` is the name
    to send to a resolver for it: a wildcard cannot be asked for, so its parent
    stands for it (Alibaba's OSS serves every bucket of a region from the addresses of
    the regional endpoint). ``cname`` is set when the addresses are those of
    another name (PrivateLink). ``addresses`` is not empty for a pinned name.
    """

    name: str
    role: str
    registry: str
    cname: str | None = None
    addresses: tuple[str, ...] = field(default=())

    @property
    def ask(self) -> str:
        """The name to resolve."""
        return self.cname or self.name.removeprefix("*.")


@dataclass(frozen=True, slots=True)
class Override:
    """A name that a registry lists by hand."""

    name: str
    role: str
    addresses: tuple[str, ...] = ()
    cname: str | None = None


@dataclass(frozen=True, slots=True)
class Sought:
    """A role of a registry (``auth`` or ``storage``) whose names only the registry itself can tell.

    ``suffixes`` are canonical names; what it tells must lie below one of them. ``reserved`` are the patterns
    of names that it is likely to tell, which are owned until then (see `reserved`).
    """

    registry: str
    role: str
    suffixes: tuple[str, ...]
    reserved: tuple[str, ...] = field(default=(), compare=False)

    @property
    def subject(self) -> tuple[str, str]:
        """The registry and the role."""
        return self.registry, self.role

    def allows(self, name: str) -> bool:
        """Tell whether ``name`` (canonical text) may be taken: no wildcard, and not a suffix as a whole."""
        return b"*" not in names.to_key(name) and lies_below(name, self.suffixes)


@dataclass(frozen=True, slots=True)
class Found:
    """What a registry told about one of its roles.

    ``names`` is empty when it needs no other name, as after it has taken over its auth
    domain. ``observed_at`` is Unix time of the last conclusive look (see `withdrawal`); 0: there was none.
    """

    registry: str
    role: str
    names: tuple[str, ...]
    observed_at: int

    @property
    def subject(self) -> tuple[str, str]:
        """The registry and the role."""
        return self.registry, self.role


def lies_below(name: str, suffixes: Iterable[str]) -> bool:
    """Tell whether ``name`` lies below one of ``suffixes``; all are canonical text."""
    above = set(names.parents(names.to_key(name)))
    return any(names.to_key(suffix) in above for suffix in suffixes)


def superseded(earlier: Iterable[Found], later: Iterable[Found]) -> frozenset[str]:
    """Return the names in ``earlier`` that ``later`` has given up; a role it says nothing of is kept."""
    now = list(later)
    told = {entry.subject for entry in now}
    before = {name for entry in earlier if entry.subject in told for name in entry.names}
    return frozenset(before - {name for entry in now for name in entry.names})


def undiscovered(sought: Iterable[Sought], found: Iterable[Found]) -> list[Sought]:
    """Return what is sought and has never been found out."""
    told = {entry.subject for entry in found}
    return [entry for entry in sought if entry.subject not in told]


def subjects(found: Iterable[Found]) -> frozenset[tuple[str, str]]:
    """Return the registry and the role of each of ``found``."""
    return frozenset(entry.subject for entry in found)


def reserved_patterns(sought: Iterable[Sought], discovered: Container[tuple[str, str]]) -> list[str]:
    """Return the patterns of names that are owned while their roles are not among ``discovered``."""
    return [pattern for entry in sought if entry.subject not in discovered for pattern in entry.reserved]


def with_found(wanted: Iterable[Wanted], found: Iterable[Found]) -> list[Wanted]:
    """Return ``wanted`` and, after it, the found names that it does not have."""
    by_name = {entry.name: entry for entry in wanted}
    for entry in found:
        for name in entry.names:
            by_name.setdefault(name, Wanted(name, entry.role, entry.registry))
    return list(by_name.values())


def with_overrides(label: str, wanted: list[Wanted], overrides: list[Override]) -> list[Wanted]:
    """Return ``wanted`` with the names listed by hand added, or put in place of their namesakes."""
    by_name = {entry.name: entry for entry in wanted}
    for override in overrides:
        name = names.canonical(override.name)
        cname = names.canonical(override.cname) if override.cname else None
        by_name[name] = Wanted(name, override.role, label, cname, override.addresses)
    return list(by_name.values())


def found_from(document: Fields, most: int) -> tuple[Found, ...]:
    """Read ``found`` of a snapshot, ``most`` entries at the most; none where it is missing.

    Raises:
        SnapshotError: ``MALFORMED``, naming the first key that is wrong.
    """
    # Helpers of version 0.1 do not look, and do not say so.
    listed = document.sequence("found") if document.has("found") else []
    if len(listed) > most:
        raise document.wrong("found", f"more than {most}")
    entries = []
    for index, item in enumerate(listed):
        fields = Fields(item, f"found[{index}]")
        found = Found(
            fields.label("registry"), fields.label("role"), fields.names("names"), fields.whole("observed_at")
        )
        if len(found.names) > MAX_FOUND:
            raise fields.wrong("names", f"more than {MAX_FOUND}")
        entries.append(found)
    if len({entry.subject for entry in entries}) != len(entries):
        raise document.wrong("found", "one role of a registry is listed twice")
    return tuple(entries)
