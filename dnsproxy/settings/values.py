"""The kinds of values in the configuration: durations, addresses, ranges, names."""

from __future__ import annotations

import math
import re
import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from dnsproxy.core import names
from dnsproxy.core.learned import canonical_addresses
from dnsproxy.core.upstreams import Source

Network = IPv4Network | IPv6Network
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_ADMIN_URL = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?/?")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%")
_PORT = re.compile(r"[0-9]{1,5}")
# As Linux takes it, and not like an address: 15 bytes, which begin with a letter.
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
# Of ::ffff:0:0/96 (RFC 4291 §2.5.5.2).
_MAPPED_BITS = 96
# [IPv6]:port, IPv4:port, or an address alone.
_HOST_PORT = re.compile(r"\[([^\[\]]+)\](?::([^:]+))?|([^:]+)(?::([^:]+))?|(.+)")


# tls:// or https://, a host, then perhaps a port, a path, and the name in the certificate.
_SECURE = re.compile(r"(tls|https)://(?:\[([^\[\]]*)\]|([^:/#\[\]]*))(?::([^/#]*))?(/[^#]*)?(?:#(.*))?")
_HOST = re.compile(r"[a-z0-9._:-]+")
_SECURE_PORTS = {"tls": 853, "https": 443}
# Visible ASCII as it stands in a request (RFC 3986 §3.3); no query, which holds ours, and no template.
_PATH = re.compile(r"/[A-Za-z0-9/._~!$&'()*+,;=:@%-]*")
_DOH_PATH = "/dns-query"  # RFC 8484 gives none; this is what its examples and most servers have


class Endpoint(NamedTuple):
    """An address and port, with the transport: ``udp`` (TCP on truncation), ``tcp``, ``tls`` or ``https``.

    ``host`` is numeric but for the last two, where it may be a name. These alone have a
    ``server_name``, which the certificate must be for, and ``https`` a ``path``.
    """

    host: str
    port: int
    transport: str = "udp"
    server_name: str = ""
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        prefix = "" if self.transport == "udp" else f"{self.transport}://"
        name = "" if self.server_name in {"", self.host} else f"#{self.server_name}"
        return f"{prefix}{host}:{self.port}{self.path}{name}"

    @property
    def is_numeric(self) -> bool:
        """Whether the host is an address rather than a name."""
        return _as_address(self.host) is not None


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


def _as_address(text: str) -> str | None:
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _refuse_user(text: str) -> None:
    # No message may show it: what stands before the @ is a password.
    if "@" in text:
        raise ValueError("a user name or password has no place here; write the address alone")


def _refuse_zone(text: str) -> None:
    # Python reads one with an address; sockets need the number of the interface, which may change.
    if "%" in text:
        raise ValueError(
            f"{text!r} has an IPv6 zone id, which is not supported; write an address that needs none,"
            " such as one of fd00::/8"
        )


def parse_endpoint(
    value: object, default_port: int | None, known: tuple[str, ...] = ("udp", "tcp"), usual_port: int = 53
) -> Endpoint:
    """Read ``10.0.0.2``, ``10.0.0.2:53``, ``[fd00::2]:53`` or ``tcp://10.0.0.2``.

    Without ``default_port`` a port must be given; messages suggest ``usual_port``.
    """
    if not isinstance(value, str):
        examples = f"0.0.0.0:{usual_port}" if default_port is None else "10.0.0.2 or 10.0.0.2:53"
        raise ValueError(f"not an address; write for example {examples}")  # noqa: TRY004 - pydantic collects ValueError
    _refuse_user(value)
    transport, separator, rest = value.rpartition("://")
    if separator and transport not in {"udp", "tcp"}:
        listed = f"{', '.join(known[:-1])} and {known[-1]}"
        raise ValueError(f"unknown transport {transport!r}; known are {listed}")
    match = _HOST_PORT.fullmatch(rest)
    host, port_text = (match[1] or match[3] or match[5], match[2] or match[4] or "") if match else (rest, "")
    _refuse_zone(host)
    address = _as_address(host)
    if address is None:
        raise ValueError(f"{host!r} is not an IP address")
    if not port_text and default_port is None:
        raise ValueError(f"{value!r} has no port; write for example {Endpoint(address, usual_port)}")
    return Endpoint(address, _port(port_text) if port_text else default_port or 0, transport or "udp")


def _port(text: str) -> int:
    if not (_PORT.fullmatch(text) and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def _host_name(text: str) -> str:
    """Return a name or address as a certificate has it: lower case, no last dot."""
    name = _as_address(text) or names.canonical(text).rstrip(".")
    if not _HOST.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a host")
    return name


def parse_upstream(value: object) -> Endpoint:
    """Read what `parse_endpoint` does, ``tls://10.0.0.5#dns.example`` or ``https://10.0.0.5/dns-query#dns.example``.

    With ``#`` the certificate must be for the name behind it, else for the host. The host may
    be a name; somebody else must then know its address.
    """
    if not (isinstance(value, str) and value.startswith(("tls://", "https://"))):
        return parse_endpoint(value, 53, ("udp", "tcp", "tls", "https"))
    _refuse_user(value)
    match = _SECURE.fullmatch(value)
    if match is None or not (match[2] or match[3]):
        raise ValueError(
            f"cannot read {value!r}; write for example tls://10.0.0.5#dns.example"
            " or https://10.0.0.5/dns-query#dns.example"
        )
    _refuse_zone(match[2] or "")
    transport, port, path = match[1], match[4], match[5] or ""
    if match[2] and ":" not in (_as_address(match[2]) or ""):
        raise ValueError(f"{match[2]!r} is not an IPv6 address")
    host = _host_name(match[2] or match[3])
    if transport == "tls" and path:
        raise ValueError(f"{path!r}: only https:// has a path")
    if path and not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} is not a path; write for example /dns-query, without {{?dns}}")
    server_name = host if match[6] is None else _host_name(match[6])
    if transport == "https":
        path = path or _DOH_PATH
    return Endpoint(
        host, _SECURE_PORTS[transport] if port is None else _port(port), transport, server_name, path
    )


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


def _upstream(value: object) -> object:
    return value if value == "system" or isinstance(value, Endpoint) else parse_upstream(value)


def _path(value: str) -> str:
    if not _PATH.fullmatch(value):
        raise ValueError("not a path; write for example /dns-query")
    return value


def _written(title: str, pattern: str | None = None) -> WithJsonSchema:
    """Say in the JSON schema how a value stands in the file, which is not what it becomes."""
    kinds = {"title": title, "type": "string"}
    return WithJsonSchema(kinds if pattern is None else kinds | {"pattern": f"^(?:{pattern})$"})


class _DurationText:
    """The same for a duration, with the bounds that a field gives it: they hold for a plain number."""

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        bounds = handler(schema)
        return {
            "title": "duration",
            "type": ["number", "string"],
            # pydantic leaves them by its own names where a field reads text.
            "minimum": bounds.get("ge", 0),
            **({"maximum": bounds["le"]} if "le" in bounds else {}),
            "pattern": f"^(?:{_DURATION.pattern}|forever)$",
        }


class Share(NamedTuple):
    """A part of a whole, in millionths."""

    millionths: int

    def __str__(self) -> str:
        return f"{self.millionths / 10_000:g}%"

    @property
    def part(self) -> float:
        """From 0 to 1."""
        return self.millionths / 1_000_000


def parse_share(value: object) -> Share:
    """Read ``5%`` or ``0.5%``, at most ``100%``."""
    if isinstance(value, Share):
        return value
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise ValueError("not a share; write for example 5% or 0.5%, at most 100%")
    return Share(round(float(match[1]) * 10_000))


BYTE_SIZE = re.compile(r"([0-9]{1,9})(KiB|MiB|GiB)")
_BYTE_UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}


class ByteSize(NamedTuple):
    """A number of bytes."""

    in_bytes: int

    def __str__(self) -> str:
        unit = next((unit for unit, size in _BYTE_UNITS.items() if self.in_bytes % size == 0), "KiB")
        return f"{self.in_bytes // _BYTE_UNITS[unit]}{unit}"


def parse_byte_size(value: object) -> ByteSize:
    """Read ``512KiB``, ``64MiB`` or ``1GiB``."""
    if isinstance(value, ByteSize):
        return value
    match = BYTE_SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a size; write for example 512KiB, 64MiB or 1GiB")
    return ByteSize(int(match[1]) * _BYTE_UNITS[match[2]])


# Every float of the configuration is one of these: `schema.as_written` counts on it.
Duration = Annotated[float, BeforeValidator(parse_duration), _DurationText()]
Name = Annotated[str, AfterValidator(_name), _written("domain name")]
Range = Annotated[Network, BeforeValidator(_network), _written("range of addresses")]


def _listen(usual_port: int) -> BeforeValidator:
    def read(value: object) -> Endpoint:
        endpoint = parse_endpoint(value, None, usual_port=usual_port)
        mapped = _mapped(ip_address(endpoint.host))
        if mapped is not None:
            # IPv6 sockets are for IPv6 alone (IPV6_V6ONLY).
            raise ValueError(f"an IPv4 address in IPv6 form; write {endpoint._replace(host=str(mapped))}")
        return endpoint

    return BeforeValidator(read)


def _mapped(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    return address.ipv4_mapped if isinstance(address, IPv6Address) else None


def _client_range(network: Network) -> Network:
    """Refuse a range that holds no address of a client."""
    mapped = _mapped(network.network_address)
    if mapped is not None and network.prefixlen >= _MAPPED_BITS:
        plain = IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
        raise ValueError(f"matches no client: IPv4 clients are compared as IPv4; write {plain}")
    if network.is_multicast:
        raise ValueError("matches no client: a multicast address is never a source")
    return network


ClientRange = Annotated[Range, AfterValidator(_client_range)]
DnsListen = Annotated[Endpoint, _listen(53), _written("address with port")]
TlsListen = Annotated[Endpoint, _listen(853), _written("address with port")]
HelperListen = Annotated[Endpoint, _listen(8953), _written("address with port")]
AdminListen = Annotated[Endpoint, _listen(9153), _written("address with port")]
Resolver = Annotated[Endpoint | Literal["system"], BeforeValidator(_resolver), _written("resolver")]
Numeric = Annotated[
    Endpoint, BeforeValidator(lambda value: parse_endpoint(value, 53)), _written("numeric resolver")
]
Forwarding = Annotated[Endpoint | Literal["system"], BeforeValidator(_upstream), _written("upstream")]
UrlPath = Annotated[str, AfterValidator(_path), _written("path of a URL", _PATH.pattern)]
Addresses = Annotated[list[Annotated[str, _written("IP address")]], AfterValidator(_addresses)]
Port = Annotated[int, Field(ge=1, le=65535)]
Ports = Annotated[list[Port], AfterValidator(_ports)]


def _admin_url(value: str) -> str:
    _refuse_user(value)
    _refuse_zone(value)
    if not _ADMIN_URL.fullmatch(value):
        raise ValueError("not an admin endpoint; write for example http://10.0.0.1:9153")
    return value.rstrip("/")


AdminUrl = Annotated[str, AfterValidator(_admin_url), _written("admin endpoint", _ADMIN_URL.pattern)]
ShareText = Annotated[Share, BeforeValidator(parse_share), _written("share", _SHARE.pattern)]


def parse_source(value: object) -> Source:
    """Read ``10.0.0.5``, ``eth0``, or a list with at most one address of each family and one interface."""
    if isinstance(value, Source):
        return value
    found: dict[str, str] = {}
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str):
            raise ValueError("not an address or interface; write for example 10.0.0.5 or eth0")  # noqa: TRY004 - pydantic collects ValueError
        _refuse_zone(item)
        address = _as_address(item)
        if address is None and not _INTERFACE.fullmatch(item):
            raise ValueError(f"{item!r} is neither an IP address nor the name of an interface")
        if address is not None and (ip_address(address).is_unspecified or ip_address(address).is_multicast):
            raise ValueError(f"{item} is not an address that a host sends from")
        kind = "interface" if address is None else "ipv6" if ":" in address else "ipv4"
        if kind in found:
            raise ValueError(f"{item}: {found[kind]} is given already; one IPv4, one IPv6, one interface")
        found[kind] = address or item
    if not found:
        raise ValueError("an empty list; leave the key out")
    return Source(**found)


SourceText = Annotated[
    Source,
    BeforeValidator(parse_source),
    WithJsonSchema(
        {
            "title": "source address or interface",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
        }
    ),
]
Role = Literal["registry", "auth", "storage", "chart", "other"]


def system_resolvers() -> list[Endpoint | Literal["system"]]:
    """Return the default of every list of resolvers."""
    return ["system"]


# What `by_type` puts into the place of a problem; `config` takes it out again.
TYPE_TAG = "type "


def by_type(default: str, *types: str) -> Discriminator:
    """Choose among models by the value of ``type``; each has the tag ``type NAME`` in the union.

    ``default`` is meant where there is none.
    """

    def tag(value: object) -> str:
        kind = value.get("type", default) if isinstance(value, dict) else getattr(value, "type", default)
        return f"{TYPE_TAG}{kind}"

    known = f"{', '.join(types[:-1])} and {types[-1]}"
    return Discriminator(
        tag,
        custom_error_type="unknown_type",
        custom_error_message=f"type: one that is not known; known are {known}",
    )


class Model(BaseModel):
    """Frozen, and every unknown key is a mistake."""

    model_config = ConfigDict(
        # Built with the document that they are parts of, not one by one before: a fifth of the import.
        defer_build=True,
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )


def misplaced(wrong: dict[tuple[str | int, ...], str], **facts: object) -> ValidationError:
    """Return the complaints about the places in ``wrong``, below the model whose validator raises it."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("value_error", "{reason}", {"reason": reason, **facts}),
            loc=place,
            input=None,
        )
        for place, reason in wrong.items()
    ]
    return ValidationError.from_exception_data("Settings", details)
