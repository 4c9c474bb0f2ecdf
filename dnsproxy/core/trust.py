"""Whom a proxy believes, and about what: keys that speak for every registry, and keys for some.

A helper whose key is limited to registries cannot speak for the names of others, nor for other helpers:
its snapshots go by a name of their own, so that no serial of its making stands in another one's way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from dnsproxy.core import names, seal
from dnsproxy.core.learned import Scope, Snapshot
from dnsproxy.core.registry import Found


@dataclass(frozen=True, slots=True)
class Limited(Scope):
    """The scope of a key that is limited to ``registries``.

    ``reserved`` are the keys of the names that other registries have, wildcards among them: what one of
    these registries is said to have told is not taken where it is one of them, or below a wildcard.
    """

    registries: frozenset[str] = frozenset()
    reserved: frozenset[bytes] = frozenset()

    def admit(self, found: Iterable[Found]) -> tuple[Found, ...]:
        """Return what is sought here out of ``found``, without the names that may not be taken."""
        # Not super(): the class that `slots` makes is another one than that of this function.
        admitted = Scope.admit(self, found)
        return tuple(
            replace(entry, names=tuple(name for name in entry.names if not self._is_reserved(name)))
            for entry in admitted
        )

    def _is_reserved(self, name: str) -> bool:
        key = names.to_key(name)
        below = (b"\x01*" + parent for parent in names.parents(key))
        return key in self.reserved or any(wildcard in self.reserved for wildcard in below)

    @property
    def label(self) -> str:
        """What goes before the issuer: the same for keys of the same registries, and for no other."""
        return "+".join(quote(registry, safe="") for registry in sorted(self.registries))


@dataclass(frozen=True, slots=True)
class Trust:
    """``keys`` are all that are believed, by id: those in ``limited`` within that, others in ``scope``."""

    keys: seal.TrustedKeys
    scope: Scope
    limited: Mapping[str, Limited] = field(default_factory=dict)

    @classmethod
    def none(cls) -> Trust:
        """Return one that trusts no key."""
        return cls({}, Scope(frozenset()))

    def open(self, token: str) -> tuple[Snapshot, Scope]:
        """Return the snapshot in ``token``, and which names its key may speak for.

        Raises:
            SnapshotError: as `seal.verify`.
        """
        snapshot = seal.verify(token, self.keys)
        limited = self.limited.get(seal.signer(token))
        if limited is None:
            return snapshot, self.scope
        return replace(snapshot, issuer=f"{limited.label}/{snapshot.issuer}"), limited
