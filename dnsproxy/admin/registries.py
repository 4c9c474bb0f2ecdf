"""The settings that `dnsproxy routes` and `doctor` need on a host without the configuration."""

from __future__ import annotations

from typing import Any

from dnsproxy.settings import Settings


def registries_document(settings: Settings) -> dict[str, Any]:
    """Return the document of ``/api/v1/registries``."""
    verify = settings.learn.verify
    return {
        "registries": [
            {
                "name": registry.name,
                "provider": registry.provider,
                "discovers_auth": registry.auth == "discover",
                "routed": [str(network) for network in registry.network.routed],
            }
            for registry in settings.registries
        ],
        "verify": {
            "ports": list(verify.ports),
            "tls": verify.tls,
            "ca_file": None if verify.ca_file is None else str(verify.ca_file),
        },
    }
