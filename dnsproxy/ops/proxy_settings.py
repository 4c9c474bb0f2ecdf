"""The settings of a proxy that commands need beside its names: from the configuration, or from the proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from dnsproxy.ops.client import NO_FILES, AdminClient, AdminFiles
from dnsproxy.ops.known import Known, Network, NothingKnownError, ask_known, configured
from dnsproxy.settings import Settings


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """One registry; ``routed`` is its ``network.routed``."""

    name: str
    provider: str
    discovers_auth: bool
    routed: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """``names`` are those of the configuration; ``ports``, ``tls`` and ``ca_file`` those of ``learn.verify``.

    With ``is_remote`` they are a proxy's that may run on another host, whose files cannot be read here.
    """

    registries: tuple[RegistrySettings, ...]
    names: Known
    ports: tuple[int, ...]
    tls: bool
    ca_file: Path | None
    is_remote: bool = False

    @property
    def routed(self) -> dict[str, tuple[Network, ...]]:
        """``network.routed`` by the label of the registry."""
        return {registry.name: registry.routed for registry in self.registries}


def from_settings(settings: Settings) -> ProxySettings:
    """Return those of a configuration."""
    registries = tuple(
        RegistrySettings(entry.name, entry.provider, entry.auth == "discover", tuple(entry.network.routed))
        for entry in settings.registries
    )
    verify = settings.learn.verify
    return ProxySettings(registries, configured(settings), tuple(verify.ports), verify.tls, verify.ca_file)


def from_proxy(admin: str, files: AdminFiles = NO_FILES) -> tuple[ProxySettings, Known]:
    """Return those of the proxy at ``admin``, and what it knows.

    Raises:
        AdminError: it does not answer.
        NothingKnownError: it answers with another document.
    """
    known = ask_known(admin, files)
    return from_document(AdminClient(admin, files).call("GET", "/api/v1/registries"), known), known


def from_document(document: Mapping[str, Any], known: Known) -> ProxySettings:
    """Return what the document of ``/api/v1/registries`` has; the names are those of ``known``.

    Raises:
        NothingKnownError: it is another document.
    """
    try:
        verify = document["verify"]
        return ProxySettings(
            tuple(
                RegistrySettings(
                    str(entry["name"]),
                    str(entry["provider"]),
                    entry["discovers_auth"] is True,
                    tuple(map(ip_network, entry["routed"])),
                )
                for entry in document["registries"]
            ),
            known,
            tuple(map(int, verify["ports"])),
            verify["tls"] is True,
            None if verify["ca_file"] is None else Path(str(verify["ca_file"])),
            is_remote=True,
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise NothingKnownError(f"{known.origin}: not a document of registries ({exc!r})") from exc
