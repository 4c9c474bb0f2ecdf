"""What the settings say about learned addresses: the trusted keys, the registries of each, and the policy."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dnsproxy.core import names, seal
from dnsproxy.core.addresses.canary import CanaryPolicy
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.learned import Scope
from dnsproxy.core.trust import Limited, Trust
from dnsproxy.errors import StartError
from dnsproxy.keys import read_trusted_keys
from dnsproxy.settings import Settings
from dnsproxy.settings.registries import RegistrySettings


def read_trust(settings: Settings) -> Trust:
    """Return whom ``learn.trusted_keys`` believes about what.

    A key that stands there more than once may speak for all that these entries allow.

    Raises:
        StartError: keys cannot be read or are no Ed25519 public keys; with every reason.
    """
    keys: dict[str, Ed25519PublicKey] = {}
    allowed: dict[str, frozenset[str] | None] = {}
    complaints: list[str] = []
    for entry in settings.learn.trusted_keys:
        file = entry if isinstance(entry, Path) else entry.file
        registries = None if isinstance(entry, Path) else frozenset(entry.registries)
        try:
            found = read_trusted_keys([file])
        except StartError as exc:
            complaints += exc.reasons
            continue
        keys |= found
        for key_id in found:
            before = allowed.get(key_id, frozenset())
            allowed[key_id] = None if registries is None or before is None else before | registries
    if complaints:
        raise StartError(*complaints)
    limited = {key_id: limit(settings, only) for key_id, only in allowed.items() if only is not None}
    return Trust(keys, Scope(_names_of(settings.registries), tuple(settings.sought())), limited)


def with_own(trust: Trust, own: seal.TrustedKeys) -> Trust:
    """Return ``trust`` with the keys of this host, which speak for every registry."""
    limited = {key_id: scope for key_id, scope in trust.limited.items() if key_id not in own}
    return Trust({**trust.keys, **own}, trust.scope, limited)


def limit(settings: Settings, only: frozenset[str]) -> Limited:
    """Return the scope of a key that may speak for the registries labelled ``only``."""
    mine = [registry for registry in settings.registries if registry.name in only]
    others = [registry for registry in settings.registries if registry.name not in only]
    keys = _names_of(mine)
    sought = tuple(entry for registry in mine for entry in registry.sought())
    return Limited(keys, sought, only, _names_of(others) - keys)


def _names_of(registries: Iterable[RegistrySettings]) -> frozenset[bytes]:
    return frozenset(names.to_key(entry.name) for registry in registries for entry in registry.wanted())


def address_policy(settings: Settings, trust: Trust) -> AddressPolicy:
    """Return the policy of the address life cycle."""
    learn, canary = settings.learn, settings.learn.canary
    managed = settings.wanted()
    # A name that the configuration pins is probed only where it has ports of its own.
    pinned: dict[str, tuple[int, ...]] = {entry.name: () for entry in managed if entry.addresses}
    identity = settings.admin.identity or os.uname().nodename
    return AddressPolicy(
        managed=tuple(managed),
        sought=tuple(settings.sought()),
        keys={key: trust.limited[key].registries if key in trust.limited else None for key in trust.keys},
        limits=settings.limits(),
        ports=tuple(learn.verify.ports),
        own_ports=pinned | settings.probed_ports(),
        tls=learn.verify.tls,
        authority=learn.verify.ca_file,
        interval=learn.verify.interval,
        accept=learn.verify.on_failure == "accept",
        max_stale=learn.max_stale,
        history=learn.history,
        canary=CanaryPolicy(canary.share.part, canary.hold, canary.fall, identity) if canary else None,
    )
