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


# One character-string of a TXT record (RFC 1035 §3.3.14), in ASCII.
ShortText = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]


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


class RateLimitSettings(Model):
    """Queries per second over UDP for each client, 0 for no limit; a client is an address or a prefix."""

    per_client: int = Field(0, ge=0, le=1_000_000)
    exempt: list[Range] = Field(default_factory=list)
    ipv4_prefix: int = Field(32, ge=8, le=32)
    ipv6_prefix: int = Field(64, ge=16, le=128)


class IdentitySettings(Model):
    """What is told of this server to those who ask in class CH (RFC 4892); null is REFUSED."""

    version: ShortText | None = None
    server: ShortText | None = None


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
    rate_limit: RateLimitSettings = RateLimitSettings()
    identity: IdentitySettings = IdentitySettings()


class ProbeSettings(Model):
    """Background probes: seconds between two, replies in a row until up, failures in a row until down."""

    interval: Annotated[Duration, Field(ge=1)] = 60.0
    rise: int = Field(2, ge=1, le=100)
    fall: int = Field(3, ge=1, le=100)


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
    policy: Literal["fastest", "sequential", "random", "race"] = "fastest"
    probe: ProbeSettings = ProbeSettings()
    case_randomization: bool = False
    minimal_any: bool = False

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
    stale: Annotated[Duration, Field(le=604_800)] = 86_400.0
    prefetch: bool = True
    nxdomain_cut: bool = False


class AdminSettings(Model):
    """The HTTP endpoint for operators."""

    listen: Listen | None = Endpoint("127.0.0.1", 9153)
    token_file: Path | None = None


class LogSettings(Model):
    """Logging; ``auto`` is readable on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
