"""Make a `Helper` out of the settings: what to look at, whom to ask, what to find out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dnsproxy.core import seal
from dnsproxy.core.learned import canonical_addresses
from dnsproxy.core.registry import Wanted
from dnsproxy.core.upstreams import Source
from dnsproxy.errors import ResolveError, StartError
from dnsproxy.helper.discover import Target, discover
from dnsproxy.helper.outlets import Outlets
from dnsproxy.helper.resolve import Patience, look
from dnsproxy.helper.seek import Seeker
from dnsproxy.helper.service import Helper
from dnsproxy.keys import read_trusted_keys
from dnsproxy.settings import Settings
from dnsproxy.settings.learning import HelperSettings
from dnsproxy.settings.values import Endpoint

if TYPE_CHECKING:
    from dnsproxy.helper.election import Election

_PATIENCE = Patience()


class Directory:
    """Finds the addresses of the registries that are asked, as the helper learns them for others.

    ``wanted`` gives pins and aliases (PrivateLink); all else is asked of ``resolvers``.
    """

    def __init__(
        self, wanted: Sequence[Wanted], resolvers: Sequence[Endpoint], patience: Patience = _PATIENCE
    ) -> None:
        self._wanted: Mapping[str, Wanted] = {entry.name: entry for entry in wanted}
        self._resolvers = resolvers
        self._patience = patience

    async def addresses_of(self, name: str) -> tuple[str, ...]:
        """Return the addresses of ``name`` (canonical text).

        Raises:
            ResolveError: no resolver gave one.
        """
        entry = self._wanted.get(name, Wanted(name, "other", ""))
        if entry.addresses:
            return entry.addresses
        looks = await look(entry, self._resolvers, self._patience)
        found = canonical_addresses(address for seen in looks for address in seen.addresses)
        if not found:
            raise ResolveError("; ".join(seen.error for seen in looks if seen.error))
        return found


def targets(settings: Settings) -> list[Target]:
    """Return the registries that are to be asked, with the roles sought of each."""
    found = []
    for registry in settings.registries:
        roles = frozenset(entry.role for entry in registry.sought())
        if roles and registry.host:
            found.append(Target(registry.name, registry.host, roles, registry.discover))
    return found


def make_helper(  # noqa: PLR0913 - all but four are given by name
    settings: Settings,
    issuer: str,
    resolvers: Sequence[Endpoint],
    key: Ed25519PrivateKey,
    publish_file: Path | None = None,
    outlets: Outlets | None = None,
    election: Election | None = None,
    trusted: seal.TrustedKeys | None = None,
    *,
    source_address: Source | None = None,
) -> Helper:
    """Return a helper for the registries of ``settings`` that asks ``resolvers`` and signs with ``key``.

    What it asks, resolvers and registries, it asks from ``source_address``.
    """
    wanted = settings.wanted()
    interval = settings.helper.interval
    patience = Patience(source=source_address)
    directory = Directory(wanted, resolvers, patience)
    sought = targets(settings)
    seeker = Seeker(
        sought,
        lambda target: discover(target, directory.addresses_of, source_address),
        interval=interval,
    )
    return Helper(
        issuer,
        wanted,
        lambda entry: look(entry, resolvers, patience),
        key,
        interval=interval,
        publish_file=publish_file,
        outlets=outlets,
        election=election,
        trusted=trusted,
        seeker=seeker if sought else None,
    )


def group_keys(options: HelperSettings) -> dict[str, Ed25519PublicKey]:
    """Return the public keys of the other helpers of the group, by key id.

    Raises:
        StartError: one of them cannot be read.
    """
    try:
        return read_trusted_keys(options.office.peer_keys if options.office else [])
    except StartError as exc:
        raise StartError(*(f"helper.publish: peer_keys: {reason}" for reason in exc.reasons)) from exc


def make_election(
    options: HelperSettings, key: Ed25519PrivateKey, peers: Mapping[str, Ed25519PublicKey]
) -> Election | None:
    """Return the election that ``options`` ask for; None without."""
    if options.office is None:
        return None
    from dnsproxy.helper.election import Election  # noqa: PLC0415 - where one is configured only

    own = key.public_key()
    return Election(options.office, options.id, {seal.key_id(own): own, **peers})
