"""The address filter: whether a learned address may be answered, and whether this side has a route to it.

A valid signature proves origin, not that the address is usable here. What `refusal` refuses is never
answered; an address without a route is only reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from dnsproxy.core.addresses.table import Statement

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


class Refusal(StrEnum):
    """Why an address is not answered. The value is the metric's label."""

    UNSPECIFIED = "unspecified"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link_local"
    MULTICAST = "multicast"
    RESERVED = "reserved"
    METADATA = "metadata"
    CONFLICT = "conflict"
    NOT_ALLOWED = "not_allowed"
    PUBLIC = "public"


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


# No registry has such an address (RFC 6890): a client that connects to one reaches itself or its neighbours.
# Of IPv6 only 2000::/3 and fc00::/7 are in use
# (RFC 4291 §2.4); ::/3 also holds the ways to write an IPv4 address as IPv6.
_SPECIAL: tuple[tuple[Refusal, tuple[Network, ...]], ...] = (
    # Services of a cloud for the host itself: credentials, resolvers. A client that is led to one hands its
    # requests over, and a proxy in front of it would make credentials reachable. Line by line: Alibaba,
    # Amazon, Azure, Google, Oracle, Tencent, Huawei (resolvers), Linode, Scaleway, UCloud, Volcengine.
    (
        Refusal.METADATA,
        _networks(
            *("100.100.100.200", "fd00:100::100:200", "100.100.2.136", "100.100.2.138"),
            *("100.100.2.116/31", "100.100.2.118"),
            *("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::/32"),
            "168.63.129.16",
            "fd20:ce::254",
            *("192.0.0.192", "fd00:c1::a9fe:a9fe"),
            *("169.254.0.23", "169.254.10.10"),
            *("100.125.1.250", "100.125.17.29", "100.125.21.250", "100.125.64.250", "100.125.107.250"),
            *("100.125.128.250", "100.125.129.250", "100.125.135.29", "100.125.136.29"),
            *("fe80::a9fe:a9fe", "fd00:a9fe:a9fe::1"),
            *("169.254.42.42", "fd00:42::42"),
            "100.80.80.80",
            "100.96.0.96",
        ),
    ),
    (Refusal.UNSPECIFIED, _networks("0.0.0.0/8", "::/128")),
    (Refusal.LOOPBACK, _networks("127.0.0.0/8", "::1/128")),
    (Refusal.LINK_LOCAL, _networks("169.254.0.0/16", "fe80::/10")),
    (Refusal.MULTICAST, _networks("224.0.0.0/4", "ff00::/8")),
    (
        Refusal.RESERVED,
        _networks(
            *("240.0.0.0/4", "::/3", "4000::/2", "8000::/2", "c000::/3", "e000::/4", "f000::/5"),
            *("f800::/6", "fe00::/9", "fec0::/10"),
        ),
    ),
)
# Ranges of IPv6 whose addresses hold an IPv4 address, and at which bit: mapped, NAT64 (RFC 6052, RFC 8215),
# and 6to4 (RFC 3056).
_EMBEDDING: tuple[tuple[Network, int], ...] = tuple(
    (ip_network(text), bit)
    for text, bit in (("::ffff:0:0/96", 96), ("64:ff9b::/96", 96), ("64:ff9b:1::/48", 96), ("2002::/16", 16))
)
# No address of these can accept a connection, whatever a configuration says.
_NEVER = frozenset({Refusal.UNSPECIFIED, Refusal.MULTICAST})
# RFC 1918, RFC 6598 (where Alibaba Cloud keeps its services), RFC 4193.
_INTERNAL = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")


@dataclass(frozen=True, slots=True)
class Limits:
    """The configured limits of the addresses of one name.

    ``routed`` are the ranges that this side's route tables reach, ``conflicts`` those that it uses itself,
    ``allowed`` those that the name may be in (empty: no such limit). ``internal``: public addresses are
    refused.
    """

    routed: tuple[Network, ...] = ()
    conflicts: tuple[Network, ...] = ()
    allowed: tuple[Network, ...] = ()
    internal: bool = True


@dataclass(frozen=True, slots=True)
class LimitTable:
    """The limits of configured names, and those of discovered names by their registry."""

    by_name: Mapping[str, Limits] = field(default_factory=dict)
    by_registry: Mapping[str, Limits] = field(default_factory=dict)

    def of(self, name: str, registry: str) -> Limits:
        """Return the limits of ``name`` (canonical text), the strictest when neither is known."""
        return self.by_name.get(name) or self.by_registry.get(registry) or Limits()


@dataclass(frozen=True, slots=True)
class Finding:
    """A refused address; ``detail`` is for people."""

    address: str
    reason: Refusal
    detail: str


def is_routed(address: str, routed: Iterable[Network]) -> bool | None:
    """Tell whether one of the ranges ``routed`` holds ``address``; None when no range is stated.

    Raises:
        ValueError: ``address`` is not an IP address.
    """
    ranges = tuple(routed)
    return _holding(ip_address(address), ranges) is not None if ranges else None


@lru_cache(maxsize=16_384)  # the same few addresses are looked at with every snapshot
def refusal(address: str, limits: Limits) -> Finding | None:
    """Return why ``address`` must not be answered for a name with ``limits``; None when it may.

    A range of ``allowed`` that lies within a special range (loopback, link-local, reserved, or exactly the
    address of a metadata service) admits it, and any range of ``allowed`` admits public addresses: the
    operator wrote down what the name has. An IPv6 address that holds an IPv4 address is refused for either. A
    route that is more specific than the conflict wins, as in a route table.

    Raises:
        ValueError: ``address`` is not an IP address.
    """
    parsed = ip_address(address)
    for form, bit in _forms(parsed):
        for reason, ranges in _SPECIAL:
            special = _holding(form, ranges)
            if special is None:
                continue
            if reason in _NEVER or not _admitted(parsed, bit + special.prefixlen, limits.allowed):
                return Finding(address, reason, f"{address} is in {special}")
    conflict = _holding(parsed, limits.conflicts)
    if conflict is not None:
        route = _holding(parsed, limits.routed)
        if route is None or route.prefixlen <= conflict.prefixlen:
            return Finding(
                address, Refusal.CONFLICT, f"{address} is in {conflict}, which this side uses itself"
            )
    if limits.allowed:
        if _holding(parsed, limits.allowed) is None:
            return Finding(address, Refusal.NOT_ALLOWED, f"{address} is in none of the name's allowed ranges")
    elif limits.internal and _holding(parsed, _INTERNAL) is None:
        return Finding(address, Refusal.PUBLIC, f"{address} is public; the name is an internal one")
    return None


def usable_part(statement: Statement, limits: Limits) -> tuple[Statement | None, tuple[Finding, ...]]:
    """Return ``statement`` without its refused addresses, None when none is left, and what was refused."""
    found = tuple(f for a in statement.learned.addresses if (f := refusal(a, limits)) is not None)
    if not found:
        return statement, ()
    refused = {finding.address for finding in found}
    left = tuple(address for address in statement.learned.addresses if address not in refused)
    return (statement.with_addresses(left) if left else None), found


def _holding(address: Address, ranges: Iterable[Network]) -> Network | None:
    """Return the most specific of ``ranges`` that holds ``address``."""
    holding = (network for network in ranges if address in network)
    return max(holding, key=lambda network: network.prefixlen, default=None)


def _forms(address: Address) -> Iterator[tuple[Address, int]]:
    """Yield ``address``, and the IPv4 address that it holds with the bit at which that begins."""
    yield address, 0
    for network, bit in _EMBEDDING:
        if address in network:
            yield IPv4Address(int(address) >> (96 - bit) & 0xFFFFFFFF), bit


def _admitted(address: Address, prefixlen: int, allowed: Iterable[Network]) -> bool:
    return any(address in network and network.prefixlen >= prefixlen for network in allowed)
