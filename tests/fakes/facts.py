"""What the admin endpoint is told of a proxy that has just started."""

from __future__ import annotations

from typing import Any

from dnsproxy.admin.status import Facts
from dnsproxy.core.stats import Stats


def facts_of(**given: Any) -> Facts:
    """Return facts with ``given`` in place of the defaults, which name no ``wanted`` and no ``book``."""
    values: dict[str, Any] = {
        "sources": [],
        "rejected": {},
        "stats": Stats(),
        "upstreams": {},
        "cache_entries": 0,
        "in_flight": 0,
        "wall_now": 1050.0,
        "started_at": 1000.0,
        "draining": False,
    }
    return Facts(**{**values, **given})
