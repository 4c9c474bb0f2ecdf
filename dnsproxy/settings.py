"""The configuration as frozen models. Every key, its unit, range and default stands here.

`config.load` reads a file into `Settings`; nothing else builds one outside tests.
"""

from __future__ import annotations

import math
import re
import sys
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dnsproxy.core import names
from dnsproxy.core.learned import canonical_addresses
from dnsproxy.core.registry import Override, Wanted, acr_names, with_overrides

Network = IPv4Network | IPv6Network
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_PORT = re.compile(r"[0-9]{1,5}")
# [IPv6]:port, IPv4:port, or an address alone.
_HOST_PORT = re.compile(r"\[([^\[\]]+)\](?::([^:]+))?|([^:]+)(?::([^:]+))?|(.+)")


class Endpoint(NamedTuple):
    """A numeric address and port, with the transport to use: ``udp`` (TCP on truncation) or ``tcp``."""

    host: str
    port: int
    transport: str = "udp"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        prefix = "" if self.transport == "udp" else f"{self.transport}://"
        return f"{prefix}{host}:{self.port}"


def parse_duration(value: object) -> float:
    """Return seconds from ``30s``, ``800ms``, ``1h``, ``forever`` or a plain number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = math.inf if value > sys.float_info.max else float(value)
    elif value == "forever":
        seconds = math.inf
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = float(match[1]) * _UNITS[match[2]]
    else:
        raise ValueError("not a duration; write for example 800ms, 30s, 5m, 1h or 1d")
    if not seconds >= 0:
        raise ValueError("a duration cannot be negative")
    return seconds


def parse_endpoint(value: object, default_port: int | None) -> Endpoint:
    """Read ``10.0.0.2``, ``10.0.0.2:53``, ``[fd00::2]:53`` or ``tcp://10.0.0.2``."""
    if not isinstance(value, str):
        raise ValueError("not an address; write for example 10.0.0.2 or 10.0.0.2:53")  # noqa: TRY004 - pydantic collects ValueError
    transport, separator, rest = value.rpartition("://")
    if separator and transport not in {"udp", "tcp"}:
        raise ValueError(f"unknown transport {transport!r}; known are udp and tcp")
    match = _HOST_PORT.fullmatch(rest)
    host, port_text = (match[1] or match[3] or match[5], match[2] or match[4] or "") if match else (rest, "")
    try:
        address = str(ip_address(host))
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address") from None
    if not port_text and default_port is None:
        raise ValueError(f"{value!r} has no port; write for example {value}:53")
    if port_text and not (_PORT.fullmatch(port_text) and 1 <= int(port_text) <= 65535):
        raise ValueError(f"{port_text!r} is not a port (1 to 65535)")
    return Endpoint(address, int(port_text) if port_text else default_port or 0, transport or "udp")


def _network(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("not a range; write for example 10.0.0.0/8")  # noqa: TRY004 - pydantic collects ValueError
    try:
        return ip_network(value)
    except ValueError as exc:
        raise ValueError(f"not a range: {exc}") from None


def _name(value: str) -> str:
    return names.canonical(value)


def _addresses(value: list[str]) -> list[str]:
    return list(canonical_addresses(value))


def _resolver(value: object) -> object:
    return value if value == "system" or isinstance(value, Endpoint) else parse_endpoint(value, 53)


Duration = Annotated[float, BeforeValidator(parse_duration)]
Name = Annotated[str, AfterValidator(_name)]
Range = Annotated[Network, BeforeValidator(_network)]
Listen = Annotated[Endpoint, BeforeValidator(lambda value: parse_endpoint(value, None))]
Resolver = Annotated[Endpoint | Literal["system"], BeforeValidator(_resolver)]
Addresses = Annotated[list[str], AfterValidator(_addresses)]
Role = Literal["registry", "auth", "storage", "chart", "other"]


def _system() -> list[Endpoint | Literal["system"]]:
    return ["system"]


class Model(BaseModel):
    """Frozen, and every unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class NameSettings(Model):
    """A name listed by hand: learned when neither addresses nor cname is given."""

    name: Name
    role: Role = "other"
    addresses: Addresses = Field(default_factory=list)
    cname: Name | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.addresses and self.cname:
            raise ValueError("give addresses or cname, not both")
        if self.cname and self.name.startswith("*."):
            raise ValueError("a wildcard cannot have a cname")
        return self


class RegistrySettings(Model):
    """A registry instance and the names that belong to it."""

    name: str = Field(min_length=1, max_length=64)
    provider: Literal["acr", "generic"] = "acr"
    region: str | None = None
    instance: str | None = None
    chart: bool = False
    auth: Literal["regional", "none"] | Name = "regional"
    storage: Literal["regional", "none"] | Name = "regional"
    names: list[NameSettings] = Field(default_factory=list)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.provider == "acr" and not (self.region and self.instance):
            raise ValueError("provider acr needs region and instance")
        if self.provider == "generic" and not self.names:
            raise ValueError("provider generic needs names")
        self.wanted()  # raises ValueError when region and instance do not make valid names
        return self

    def wanted(self) -> list[Wanted]:
        """Return the names to learn or pin for this registry."""
        expanded: list[Wanted] = []
        if self.provider == "acr":
            expanded = acr_names(
                self.name,
                str(self.instance),
                str(self.region),
                chart=self.chart,
                auth=self.auth,
                storage=self.storage,
            )
        overrides = [Override(n.name, n.role, tuple(n.addresses), n.cname) for n in self.names]
        return with_overrides(self.name, expanded, overrides)


class TlsSettings(Model):
    """Files of a TLS server; both, or neither for plain HTTP."""

    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("give cert_file and key_file together")
        if self.client_ca_file and not self.cert_file:
            raise ValueError("client_ca_file needs cert_file and key_file")
        return self


class HelperSettings(Model):
    """The part that runs in the source region."""

    id: str = Field("helper", min_length=1, max_length=64)
    listen: Listen = Endpoint("127.0.0.1", 8953)
    tls: TlsSettings = TlsSettings()
    token_file: Path | None = None
    resolvers: list[Resolver] = Field(default_factory=_system, min_length=1)
    interval: Annotated[Duration, Field(ge=1, le=3600)] = 30.0
    signing_key_file: Path = Path("/etc/dnsproxy/helper.key")
    publish_file: Path | None = None


class SourceSettings(Model):
    """Where snapshots are pulled from."""

    url: str = Field(pattern=r"^(https?://[^/\s]+/\S*|file:///\S+)$")
    token_file: Path | None = None
    ca_file: Path | None = None


class LearnSettings(Model):
    """How the proxy learns."""

    sources: list[SourceSettings] = Field(default_factory=list)
    trusted_keys: list[Path] = Field(default_factory=list)
    state_file: Path = Path("/var/lib/dnsproxy/learned.jws")
    refresh: Annotated[Duration, Field(ge=0.1, le=3600)] = 15.0
    ttl: int = Field(30, ge=1, le=3600)
    max_stale: Duration = math.inf

    @model_validator(mode="after")
    def _trust(self) -> Self:
        if self.sources and not self.trusted_keys:
            raise ValueError("sources need trusted_keys to check what they publish")
        return self


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

    upstreams: list[Resolver] = Field(default_factory=_system, min_length=1)
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


class Settings(Model):
    """The whole file."""

    registries: list[RegistrySettings] = Field(default_factory=list)
    helper: HelperSettings = HelperSettings()
    learn: LearnSettings = LearnSettings()
    serve: ServeSettings = ServeSettings()
    forward: ForwardSettings = ForwardSettings()
    cache: CacheSettings = CacheSettings()
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _distinct_labels(self) -> Self:
        labels = [registry.name for registry in self.registries]
        if len(set(labels)) != len(labels):
            raise ValueError("registries: two have the same name")
        return self

    def wanted(self) -> list[Wanted]:
        """Return the names of all registries; the first registry that lists a name owns it."""
        by_name: dict[str, Wanted] = {}
        for registry in self.registries:
            for entry in registry.wanted():
                by_name.setdefault(entry.name, entry)
        return list(by_name.values())


def schema() -> dict[str, Any]:
    """Return the JSON schema of the file."""
    return Settings.model_json_schema(mode="validation")
