"""The entries that the route tables of this side need for the names to be of use.

Decides only: what is known and what the configuration states come in, a `Plan` goes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Network,
    collapse_addresses,
    ip_address,
    ip_network,
)

from dnsproxy.core.addresses.filter import is_routed
from dnsproxy.core.vip_ranges import ranges_for, storage_region
from dnsproxy.ops.known import Known, KnownName, Network

# Custom entries in one VPC route table (CreateRouteEntry, vpc 2016-04-28).
MAX_CUSTOM_ROUTES = 200
# Where Alibaba Cloud keeps its services (RFC 6598).
SERVICES = IPv4Network("100.64.0.0/10")
# So does Huawei Cloud, with other rules for routes.
HUAWEI = (".myhuaweicloud.com.", ".myhuaweicloud.eu.")


@dataclass(frozen=True, slots=True)
class Route:
    """One entry that is needed.

    ``names`` and ``addresses`` are those that it is needed for; ``addresses`` is empty for
    a storage range that holds none at this time. ``covered`` tells whether
    ``network.routed`` holds all of it.
    """

    destination: Network
    roles: tuple[str, ...]
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    covered: bool


@dataclass(frozen=True, slots=True)
class Uncovered:
    """An address in service, or about to be, that ``network.routed`` of its registry does not hold."""

    name: str
    registry: str
    address: str

    def __str__(self) -> str:
        """Return it as a line for people."""
        place = f"network.routed of registry {self.registry}"
        return f"{self.name.removesuffix('.')}: {self.address} is not in {place}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All entries in order, what is not covered, and what an operator should know besides.

    ``unknown`` has a line for each role or name that may need further entries, ``unprobed`` for each address
    that no probe has been made to yet.
    """

    origin: str
    serial: int
    routes: tuple[Route, ...]
    uncovered: tuple[Uncovered, ...]
    notes: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    unprobed: tuple[str, ...] = ()

    @property
    def missing(self) -> list[Route]:
        """The entries that ``network.routed`` does not hold."""
        return [route for route in self.routes if not route.covered]


@dataclass(frozen=True, slots=True)
class _Need:
    destination: Network
    entry: KnownName


def plan_routes(known: Known, routed: Mapping[str, Sequence[Network]]) -> Plan:
    """Return the entries that ``known`` needs; ``routed`` holds ``network.routed`` by registry label."""
    needs = [_Need(network, entry) for entry in known.names for network in _destinations(entry)]
    destinations = _aggregate(need.destination for need in needs)
    routes = tuple(_route(destination, needs, routed) for destination in destinations)
    uncovered = tuple(
        Uncovered(entry.name, entry.registry, address)
        for entry in known.names
        for address in entry.learned
        if not is_routed(address, routed.get(entry.registry, ()))
    )
    notes, unknown = tuple(_notes(known, routed, routes)), tuple(_unknown(known))
    return Plan(known.origin, known.serial, routes, uncovered, notes, unknown, tuple(_unprobed(known)))


def _destinations(entry: KnownName) -> Iterator[Network]:
    ranges = ranges_for(entry.name)
    outside = [a for a in entry.learned if not any(ip_address(a) in network for network in ranges)]
    # With every address elsewhere it is PrivateLink, or ranges that nobody has told us of.
    if len(outside) < len(entry.learned) or not entry.learned:
        yield from ranges
    for address in outside:
        yield ip_network(address)


def _aggregate(networks: Iterable[Network]) -> list[Network]:
    """Return ``networks`` without those inside another; adjacent ranges, not addresses, become one.

    Nothing is covered that was not asked for. Two neighbouring addresses belong to two
    names and come and go alone, so they stay two entries.
    """
    distinct = set(networks)
    ranges: list[Network] = []
    for version in (4, 6):
        wide = [n for n in distinct if n.version == version and n.prefixlen < n.max_prefixlen]
        ranges += collapse_addresses(wide)  # type: ignore[type-var]  # one version at a time
    hosts = [n for n in distinct if n.prefixlen == n.max_prefixlen]
    apart = [n for n in hosts if not any(n.network_address in held for held in ranges)]
    return sorted([*ranges, *apart], key=lambda n: (n.version, int(n.network_address), n.prefixlen))


def _route(destination: Network, needs: Iterable[_Need], routed: Mapping[str, Sequence[Network]]) -> Route:
    inside = [need for need in needs if _is_inside(need.destination, destination)]
    entries = list(dict.fromkeys(need.entry for need in inside))
    addresses = {a: None for e in entries for a in e.learned if ip_address(a) in destination}
    labels = {entry.registry for entry in entries}
    return Route(
        destination,
        tuple(dict.fromkeys(entry.role for entry in entries)),
        tuple(entry.name for entry in entries),
        tuple(addresses),
        covered=all(_holds(routed.get(label, ()), destination) for label in labels),
    )


def _holds(ranges: Sequence[Network], destination: Network) -> bool:
    same = [network for network in ranges if network.version == destination.version]
    merged: Iterable[Network] = collapse_addresses(same)  # type: ignore[type-var]  # one version
    return any(_is_inside(destination, network) for network in merged)


def _is_inside(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


def _notes(known: Known, routed: Mapping[str, Sequence[Network]], routes: Sequence[Route]) -> Iterator[str]:
    for label in dict.fromkeys(entry.registry for entry in known.names):
        if not routed.get(label):
            yield f"registry {label}: network.routed is empty, so none of its addresses counts as routed"
    for entry in known.names:
        yield from _name_notes(entry)
    if len(routes) > MAX_CUSTOM_ROUTES:
        yield (
            f"{len(routes)} entries; a VPC route table takes {MAX_CUSTOM_ROUTES} custom ones "
            "unless its quota is raised: route wider ranges"
        )
    if any(map(_is_alibaba_service, routes)):
        yield (
            f"destinations in {SERVICES} are taken only with a transit router attachment as the next hop, "
            "and are needed in the VPC route table and in the transit routers of both regions"
        )


def _unknown(known: Known) -> Iterator[str]:
    for registry, role in known.undiscovered:
        yield f"registry {registry}: role {role} is not discovered yet, so its routes are not known"
    for entry in known.names:
        name = entry.name.removesuffix(".")
        if not entry.learned:
            yield f"{name}: no address is known yet"


def _unprobed(known: Known) -> Iterator[str]:
    reason = "not probed yet" if known.exact else f"not known to be probed: {known.origin} has no results"
    for entry in known.names:
        for address in entry.unprobed:
            yield f"{entry.name.removesuffix('.')}: {address} is {reason}"


def _is_alibaba_service(route: Route) -> bool:
    # A name may be a domain of the user's own: only what is known to be another cloud's is left out.
    if route.destination.version != 4 or not route.destination.subnet_of(SERVICES):
        return False
    return not all(name.endswith(HUAWEI) for name in route.names)


def _name_notes(entry: KnownName) -> Iterator[str]:
    name, ranges = entry.name.removesuffix("."), ranges_for(entry.name)
    region = storage_region(entry.name)
    if region is not None and not ranges:
        yield f"{name}: no storage ranges are known for region {region}; route those of its documentation"
    outside = [a for a in entry.learned if not any(ip_address(a) in network for network in ranges)]
    if ranges and outside:
        yield (
            f"{name}: {', '.join(outside)} in none of the known storage ranges of {region}: PrivateLink, "
            "or a range that this version does not know"
        )
