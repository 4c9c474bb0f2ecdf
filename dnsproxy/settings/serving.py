"""What `dnsproxy serve` listens on, forwards to, keeps and tells."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dnsproxy.settings.values import (
    Duration,
    Endpoint,
    Forwarding,
    Listen,
    Model,
    Name,
    Network,
    Numeric,
    Range,
    UrlPath,
    system_resolvers,
)

# Far above what one host's network takes; a mistyped number must not start a thousand processes.
MAX_WORKERS = 64


def _ranges(*texts: str) -> list[Network]:
    return [ip_network(text) for text in texts]


def _workers(value: object) -> object:
    most = MAX_WORKERS
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
        raise ValueError(f"not a number of processes; write 1 to {most}, or auto")
    return value


class TlsListenSettings(Model):
    """Listeners for DNS over TLS (RFC 7858) and over HTTPS (RFC 8484); the client says which by ALPN."""

    listen: list[Listen] = Field(default_factory=list)
    cert_file: Path | None = None
    key_file: Path | None = None
    path: UrlPath = "/dns-query"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.listen and not (self.cert_file and self.key_file):
            raise ValueError("listen needs cert_file and key_file")
        return self


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
    max_tcp_per_client: int = Field(128, ge=1, le=100_000)
    workers: Annotated[int | Literal["auto"], BeforeValidator(_workers)] = 1
    tls: TlsListenSettings = TlsListenSettings()


class TimeoutSettings(Model):
    """Bounds of one forwarded query: for one attempt, and for all of them together."""

    attempt: Annotated[Duration, Field(ge=0.01, le=30)] = 0.8
    total: Annotated[Duration, Field(ge=0.01, le=60)] = 1.8


class ForwardSettings(Model):
    """Where every other name is resolved."""

    upstreams: list[Forwarding] = Field(default_factory=system_resolvers, min_length=1)
    zones: dict[Name, list[Forwarding]] = Field(default_factory=dict)
    bootstrap: list[Numeric] = Field(default_factory=list)
    ca_file: Path | None = None
    https_method: Literal["post", "get"] = "post"
    timeout: TimeoutSettings = TimeoutSettings()
    max_in_flight: int = Field(1000, ge=1, le=60_000)

    @model_validator(mode="after")
    def _bootstrapped(self) -> Self:
        if self.bootstrap:
            return self
        for entry in (*self.upstreams, *(host for hosts in self.zones.values() for host in hosts)):
            if isinstance(entry, Endpoint) and not entry.is_numeric:
                example = entry._replace(host="10.0.0.5")
                raise ValueError(
                    f"{entry}: its address is not known; write {example}, or give forward.bootstrap"
                )
        return self


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
