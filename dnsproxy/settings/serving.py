"""What `dnsproxy serve` listens on, forwards to, keeps and tells."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dnsproxy.settings.values import (
    Duration,
    Endpoint,
    Listen,
    Model,
    Name,
    Network,
    Range,
    Resolver,
    system_resolvers,
)


def _ranges(*texts: str) -> list[Network]:
    return [ip_network(text) for text in texts]


class ServeSettings(Model):
    """The DNS listeners."""

    listen: list[Listen] = Field(
        default_factory=lambda: [Endpoint("0.0.0.0", 53), Endpoint("::", 53)], min_length=1
    )
    allow: list[Range] = Field(
        default_factory=lambda: _ranges(
            *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
            *("::1/128", "fc00::/7", "fe80::/10"),
        )
    )
    max_tcp_clients: int = Field(512, ge=1, le=100_000)


class TimeoutSettings(Model):
    """Bounds of one forwarded query: for one attempt, and for all of them together."""

    attempt: Annotated[Duration, Field(ge=0.01, le=30)] = 0.8
    total: Annotated[Duration, Field(ge=0.01, le=60)] = 1.8


class ForwardSettings(Model):
    """Where every other name is resolved."""

    upstreams: list[Resolver] = Field(default_factory=system_resolvers, min_length=1)
    zones: dict[Name, list[Resolver]] = Field(default_factory=dict)
    timeout: TimeoutSettings = TimeoutSettings()
    max_in_flight: int = Field(1000, ge=1, le=60_000)


class CacheSettings(Model):
    """The answer cache; ``size`` counts entries, 0 turns it off."""

    size: int = Field(100_000, ge=0, le=10_000_000)
    min_ttl: Annotated[Duration, Field(le=3600)] = 0.0
    max_ttl: Annotated[Duration, Field(ge=1, le=604_800)] = 3600.0
    negative_ttl: Annotated[Duration, Field(le=10_800)] = 60.0


class AdminSettings(Model):
    """The HTTP endpoint for operators."""

    listen: Listen | None = Endpoint("127.0.0.1", 9153)
    token_file: Path | None = None


class LogSettings(Model):
    """Logging; ``auto`` is readable on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
