"""What `dnsproxy serve` listens on, forwards to, keeps and tells."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from dnsproxy.core import names
from dnsproxy.core.memory import CACHE_BYTES_PER_ENTRY, CACHE_ENTRY
from dnsproxy.settings.schema import duration_text
from dnsproxy.settings.values import (
    BYTE_SIZE,
    AdminListen,
    ByteSize,
    ClientRange,
    DnsListen,
    Duration,
    Endpoint,
    Forwarding,
    Model,
    Name,
    Network,
    Numeric,
    SourceText,
    TlsListen,
    UrlPath,
    misplaced,
    parse_byte_size,
    system_resolvers,
)

# Far above what one host's network takes; a mistyped number must not start a thousand processes.
MAX_WORKERS = 64


# One character-string of a TXT record (RFC 1035 §3.3.14), in ASCII.
HostName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._-]+$")]
ShortText = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]


def _ranges(*texts: str) -> list[Network]:
    return [ip_network(text) for text in texts]


def _workers(value: object) -> object:
    most = MAX_WORKERS
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
        raise ValueError(f"not a number of processes; write 1 to {most}, or auto")
    return value


Workers = Annotated[
    int | Literal["auto"],
    BeforeValidator(_workers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}, {"const": "auto"}]}),
]


# Entries; far above what a process of Python can look after.
MAX_CACHE = 10_000_000
_MOST_CACHE_BYTES = MAX_CACHE * CACHE_BYTES_PER_ENTRY


def _cache_size(value: object) -> object:
    if isinstance(value, str | ByteSize):
        size = parse_byte_size(value)
        if size.in_bytes > _MOST_CACHE_BYTES:
            raise ValueError(f"larger than {ByteSize(_MOST_CACHE_BYTES)}")
        return size
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_CACHE:
        raise ValueError(f"not a size; write 0 to {MAX_CACHE} entries, or for example 64MiB")
    return value


CacheSize = Annotated[
    int | ByteSize,
    BeforeValidator(_cache_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_CACHE},
                {"title": "size in bytes", "type": "string", "pattern": f"^(?:{BYTE_SIZE.pattern})$"},
            ]
        }
    ),
]


class TlsListenSettings(Model):
    """Listeners for DNS over TLS (RFC 7858) and over HTTPS (RFC 8484); the client says which by ALPN."""

    listen: list[TlsListen] = Field(default_factory=list)
    """Numeric addresses with ports, such as 0.0.0.0:853 and 0.0.0.0:443. Both protocols are served on each:
    HTTPS for clients that offer h2 or http/1.1 by ALPN, TLS for others. Clients that ask for
    `_dns.resolver.arpa` (RFC 9462) are sent here, by the first host name of the certificate.
    """
    cert_file: Path | None = None
    """PEM file of the certificate, with intermediate ones; needed with `listen`, and read again when it
    changes.
    """
    key_file: Path | None = None
    """PEM file of its private key; likewise."""
    path: UrlPath = "/dns-query"
    """Path of the URL for DNS over HTTPS."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.listen and not (self.cert_file and self.key_file):
            raise ValueError("listen needs cert_file and key_file")
        return self


class RateLimitSettings(Model):
    """Queries per second over UDP for each client, 0 for no limit; a client is an address or a prefix."""

    per_client: int = Field(0, ge=0, le=1_000_000)
    """Queries per second over UDP and client; 0 for no limit. Of those beyond it every second one is told to
    use TCP, the others are dropped.
    """
    exempt: list[ClientRange] = Field(default_factory=list)
    """Client ranges without a limit."""
    ipv4_prefix: int = Field(32, ge=8, le=32)
    """IPv4 addresses that share so many bits are one client, for all limits."""
    ipv6_prefix: int = Field(64, ge=16, le=128)
    """The same for IPv6."""


class IdentitySettings(Model):
    """What is told of this server to those who ask in class CH (RFC 4892); null is REFUSED."""

    version: ShortText | None = None
    """Text for `version.bind`; null: refused."""
    server: ShortText | None = None
    """Text for `id.server`; null: refused."""


class ServeSettings(Model):
    """The DNS listeners."""

    listen: list[DnsListen] = Field(
        default_factory=lambda: [Endpoint("0.0.0.0", 53), Endpoint("::", 53)], min_length=1
    )
    """Numeric addresses with ports; UDP and TCP on each."""
    allow: list[ClientRange] = Field(
        default_factory=lambda: _ranges(
            *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
            *("::1/128", "fc00::/7", "fe80::/10"),
        )
    )
    """Client ranges to answer; others get REFUSED over UDP, their connections are closed. The list replaces
    the default.
    """
    proxy_protocol: list[ClientRange] = Field(default_factory=list)
    """Ranges of load balancers that put a header of PROXY protocol, version 2, before each message over UDP
    and at the start of each connection, before the TLS handshake or after it: dnsdist with
    `useProxyProtocol=true`, HAProxy with `send-proxy-v2`. What the header names is the client for `allow`,
    all limits and logs. A load balancer must be in `allow` too, and gets no answer without a header.
    """
    max_tcp_clients: int = Field(512, ge=1, le=100_000)
    """TCP and TLS connections at one time, of all clients. When all are taken, one of the client with the
    most is closed for a client with fewer.
    """
    max_tcp_per_client: int = Field(128, ge=1, le=100_000)
    """The same, of one client; which addresses are one client is set in `rate_limit`."""
    lameduck: Annotated[Duration, Field(le=3600)] = 5.0
    """How long queries are still answered after SIGTERM, while `/ready` has load balancers send queries
    elsewhere. Queries in flight take up to 1.8 s more, so that by default the stop is over before
    `docker stop` kills after 10 s. 0 for a sidecar and wherever no load balancer is in front. SIGINT, or a
    second SIGTERM, ends it at once.
    """
    workers: Workers = 1
    """Processes that answer, each with a cache of its own of `cache.size`; `auto`: one for each processor
    that this program may use. Above 1, one more process learns and tells the workers.
    """
    tls: TlsListenSettings = TlsListenSettings()
    """Listeners for DNS over TLS and DNS over HTTPS."""
    rate_limit: RateLimitSettings = RateLimitSettings()
    """A limit for each client; off by default."""
    identity: IdentitySettings = IdentitySettings()
    """What `version.bind` and `id.server` (class CH) are answered with."""

    @model_validator(mode="after")
    def _admit_proxies(self) -> Self:
        for network in self.proxy_protocol:
            if not any(network.overlaps(allowed) for allowed in self.allow):
                raise ValueError(f"proxy_protocol: {network} is in no range of allow; add it there")
        return self


class ProbeSettings(Model):
    """Background probes: seconds between two, replies in a row until up, failures in a row until down."""

    interval: Annotated[Duration, Field(ge=1)] = 60.0
    """Time between two probes of an upstream; `forever`: the dead ones only, which are probed after 1, 2, 4
    ... 30 s.
    """
    rise: int = Field(2, ge=1, le=100)
    """It is up after so many replies in a row."""
    fall: int = Field(3, ge=1, le=100)
    """It is down after so many failures in a row."""


class TimeoutSettings(Model):
    """Bounds of one forwarded query: for one attempt, and for all of them together.

    The default leaves resolvers the time to find a name that they do not have in their cache, and still
    answers before stub resolvers, which wait for 5 s.
    """

    attempt: Annotated[Duration, Field(ge=0.01, le=30)] = 0.8
    """Longest time until a query without a reply is sent again, to the next upstream if there is one; less
    where replies are usually quicker. There are three attempts at most; a late reply to any of them counts.
    """
    total: Annotated[Duration, Field(ge=0.01, le=60)] = 4.8
    """Longest time for one query; then it is answered SERVFAIL. Expired answers are sent after 1.8 s."""


def _zones(value: object) -> object:
    """Refuse zones that are the same in two spellings, and names that are no zones."""
    if not isinstance(value, dict):
        return value
    seen: dict[str, str] = {}
    wrong: dict[tuple[str | int, ...], str] = {}
    for key in value:
        try:
            zone = names.canonical(str(key))
        except ValueError:
            continue  # reported as a name that is none
        first = seen.setdefault(zone, key)
        if zone == ".":
            wrong[key,] = "not a zone: the servers for all names are forward.upstreams"
        elif zone.startswith("*."):
            wrong[key,] = f"write {zone[2:].removesuffix('.')}: a zone holds every name below it"
        elif first != key:
            wrong[key,] = f"the same zone as {first}"
    if wrong:
        raise misplaced(wrong)
    return value


class ForwardSettings(Model):
    """Where every other name is resolved."""

    upstreams: list[Forwarding] = Field(default_factory=system_resolvers, min_length=1)
    """As `helper.resolvers`; the order is the preference. Also `tls://10.0.0.5#dns.example` (port 853) and
    `https://10.0.0.5/dns-query#dns.example` (port 443, HTTP/2): the certificate must be for the name
    behind `#`, or else for the host as written.
    """
    zones: Annotated[dict[Name, list[Forwarding]], BeforeValidator(_zones)] = Field(default_factory=dict)
    """Zones with resolvers of their own, such as `corp.example.com: [10.0.0.53]`; the longest match counts.
    Special-use names (localhost, local, home.arpa, invalid, onion, reverse zones of private ranges) are
    answered by the proxy itself unless a zone here holds them; a PTR query for a private address of learned
    or pinned names with these names.
    """
    bootstrap: list[Numeric] = Field(default_factory=list)
    """Resolvers, as `10.0.0.2` or `tcp://10.0.0.2`, that tell the addresses of upstreams whose host is a
    name, such as `tls://dns.example`. Not this proxy. Without any, upstreams must be numeric.
    """
    source: SourceText | None = None
    """What queries to upstreams are sent from: an address of this host, an interface such as `eth0`, or a
    list of one IPv4 address, one IPv6 address and one interface; null: as the routes have it. While the host
    does not have it, upstreams fail and learned names are answered.
    """
    ca_file: Path | None = None
    """PEM file of the authority of the upstreams' certificates; null: the system's."""
    https_method: Literal["post", "get"] = "post"
    """How `https://` upstreams are asked."""
    timeout: TimeoutSettings = TimeoutSettings()
    """Bounds of one forwarded query."""
    max_in_flight: int = Field(1000, ge=1, le=60_000)
    """Forwarded queries at one time. When all are taken, the oldest of the client with the most gives way: at
    once to a client with fewer, to another query of its own if it has waited 0.2 s.
    """
    policy: Literal["fastest", "sequential", "random", "race"] = "fastest"
    """Which upstream is asked first, of those that answer: `fastest` (by the decaying mean of their times;
    one query in 50 tries another), `sequential` (the first in the list), `random`, or `race` (as fastest,
    two at the same time). An upstream that fails is followed by the next with every policy.
    """
    probe: ProbeSettings = ProbeSettings()
    """Background probes of upstreams. One that leads back to this proxy is found by them, and left out."""
    case_randomization: bool = False
    """Ask with the letters of names in random case (0x20), against forgers. An upstream that does not keep
    the case is asked over TCP.
    """
    minimal_any: bool = False
    """Answer queries for ANY with one HINFO record (RFC 8482) in place of forwarding them."""

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
    """The answer cache; ``size`` counts entries or bytes, 0 turns it off."""

    size: CacheSize = 100_000
    """Entries, which may take 1 KiB of memory each on average, or bytes of memory, such as `64MiB`; 0: no
    cache. Answers that are used least are evicted. A usual answer costs 600 to 800 bytes.
    """
    min_ttl: Annotated[Duration, Field(le=3600)] = 0.0
    """Lower bound put on the TTLs of answers."""
    max_ttl: Annotated[Duration, Field(ge=1, le=604_800)] = 3600.0
    """Upper bound put on the TTLs of answers."""
    negative_ttl: Annotated[Duration, Field(le=10_800)] = 60.0
    """Upper bound for "no such name" and "no such data"."""
    stale: Annotated[Duration, Field(le=604_800)] = 86_400.0
    """How long an expired answer is still given when upstreams fail, with a TTL of 30 s; 0: never."""
    prefetch: bool = True
    """Ask anew for answers that are in use, in the last tenth of their life."""
    nxdomain_cut: bool = False
    """A name that does not exist has none below it (RFC 8020). Some servers deny names that do."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min_ttl > self.max_ttl:
            lower, upper = duration_text(self.min_ttl), duration_text(self.max_ttl)
            raise misplaced({("min_ttl",): f"{lower} is above max_ttl, which is {upper}"})
        return self

    @property
    def entries(self) -> int:
        """The maximum of entries."""
        return self.size.in_bytes // CACHE_ENTRY if isinstance(self.size, ByteSize) else self.size

    @property
    def max_bytes(self) -> int:
        """The maximum of bytes that they cost."""
        return self.size.in_bytes if isinstance(self.size, ByteSize) else self.size * CACHE_BYTES_PER_ENTRY


class AdminTlsSettings(Model):
    """Files that make the endpoint HTTPS; both, or neither for plain HTTP."""

    cert_file: Path | None = None
    """PEM file of the certificate, with intermediate ones; null: plain HTTP. Read again when it changes."""
    key_file: Path | None = None
    """PEM file of its private key; together with `cert_file`."""

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("give cert_file and key_file together")
        return self


class AdminSettings(Model):
    """The HTTP endpoint for operators."""

    listen: AdminListen | None = Endpoint("127.0.0.1", 9153)
    """Numeric address and port; null: none."""
    token_file: Path | None = None
    """File with the bearer token to ask for; null: none is asked for, and orders are taken from this host
    alone. A browser gives it as its password.
    """
    read_token_file: Path | None = None
    """File with a second token that reads (metrics, status, canary) and gives no orders; together with
    `token_file`. For Prometheus, `helper.canary` and `dnsproxy fleet`.
    """
    tls: AdminTlsSettings = AdminTlsSettings()
    """Files that make the endpoint HTTPS."""
    hosts: list[HostName] = Field(default_factory=list)
    """Further names by which operators reach the endpoint, such as that of a Service or load balancer.
    Without a token, the Host of a request must be one of them, `identity`, the address of `listen` (for
    0.0.0.0 and ::, any address) or a loopback name.
    """
    identity: str | None = Field(None, min_length=1, max_length=255)
    """What this proxy calls itself in metrics and to `dnsproxy fleet`; null: the name of its host."""

    @model_validator(mode="after")
    def _both_tokens(self) -> Self:
        if self.read_token_file is not None and self.token_file is None:
            raise ValueError("read_token_file needs token_file")
        return self
