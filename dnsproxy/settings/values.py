"""The kinds of values in the configuration: durations, addresses, ranges, names."""

from __future__ import annotations

import math
import re
import sys
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from dnsproxy.core import names
from dnsproxy.core.learned import canonical_addresses

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


def _ports(value: list[int]) -> list[int]:
    return sorted(set(value))


def _resolver(value: object) -> object:
    return value if value == "system" or isinstance(value, Endpoint) else parse_endpoint(value, 53)


Duration = Annotated[float, BeforeValidator(parse_duration)]
Name = Annotated[str, AfterValidator(_name)]
Range = Annotated[Network, BeforeValidator(_network)]
Listen = Annotated[Endpoint, BeforeValidator(lambda value: parse_endpoint(value, None))]
Resolver = Annotated[Endpoint | Literal["system"], BeforeValidator(_resolver)]
Addresses = Annotated[list[str], AfterValidator(_addresses)]
Port = Annotated[int, Field(ge=1, le=65535)]
Ports = Annotated[list[Port], AfterValidator(_ports)]
Role = Literal["registry", "auth", "storage", "chart", "other"]


def system_resolvers() -> list[Endpoint | Literal["system"]]:
    """Return the default of every list of resolvers."""
    return ["system"]


class Model(BaseModel):
    """Frozen, and every unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
