"""Names that no upstream should be asked for: special-use domains and private reverse zones.

Each is answered here unless `forward.zones` has a zone that holds it. Sources: RFC 6761
(localhost, invalid), RFC 7686 (onion), RFC 6762 §22.1 (local), RFC 8375 (home.arpa),
RFC 6303 §4 and RFC 7793 (reverse zones). ``test`` and ``example`` are left to the upstreams,
since networks do use them inside.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Final

from dnsproxy.core import message, names, wire

# RFC 6303 §3 has 10800 s for the SOA of an empty zone.
TTL: Final = 10_800
_LOOPBACK: Final = {wire.A: "127.0.0.1", wire.AAAA: "::1"}

_NAMES: Final = ("localhost", "invalid", "onion", "local", "home.arpa")
_NETWORKS: Final = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.2.0/24", "192.168.0.0/16", "198.51.100.0/24", "203.0.113.0/24", "255.255.255.255/32"),
    *("::/128", "::1/128", "fd00::/8", "fe80::/10", "2001:db8::/32"),
)
# Kubernetes' default domain lies in what is multicast DNS's; it is unicast wherever it is asked for.
_NOT_SPECIAL: Final = ("cluster.local",)


def _reverse_zones(text: str) -> list[str]:
    """Return the reverse zones of a network, cut where labels end."""
    network = ip_network(text)
    step = 8 if network.version == 4 else 4
    length = -(-network.prefixlen // step) * step
    zones = []
    for part in network.subnets(new_prefix=length):
        labels = ip_address(part.network_address).reverse_pointer.split(".")
        zones.append(".".join(labels[(network.max_prefixlen - length) // step :]))
    return zones


def _build() -> dict[bytes, bytes | None]:
    """Return each zone's key with the SOA that its negative answers carry; None for what is not special."""
    zones = [*_NAMES, *(zone for text in _NETWORKS for zone in _reverse_zones(text))]
    found: dict[bytes, bytes | None] = {}
    for key in map(names.to_key, zones):
        found[key] = message.soa_record(key, 1, TTL)
    return {**found, **dict.fromkeys(map(names.to_key, _NOT_SPECIAL))}


class SpecialZones:
    """The table of them. Made at the first look, as most proxies are never asked for one."""

    def __init__(self) -> None:
        self._zones: dict[bytes, bytes | None] = {}
        self._longest = 0

    def find(self, key: bytes) -> bytes | None:
        """Return the special zone that holds ``key``, None when there is none."""
        if not self._zones:
            self._zones = _build()
            self._longest = max(map(len, self._zones))
        position = 0
        longest_at = len(key) - self._longest
        while length := key[position]:
            if position >= longest_at:
                zone = key[position:]
                if zone in self._zones:
                    return None if self._zones[zone] is None else zone
            position += length + 1
        return None

    def soa(self, zone: bytes) -> bytes:
        """Return the SOA record of a negative answer below ``zone``, which `find` has returned."""
        return self._zones[zone] or b""

    def answer(self, zone: bytes, key: bytes, qtype: int) -> tuple[int, tuple[int, int, int], bytes]:
        """Return the RCODE, the counts and the sections for a question below ``zone``."""
        if zone == _LOCALHOST:
            address = _LOOPBACK.get(qtype)
            if address is not None:
                (record,) = message.address_records(message.QUESTION_NAME, [address], TTL)
                return wire.NOERROR, (1, 0, 0), record
            return wire.NOERROR, (0, 1, 0), self._zones[zone] or b""
        soa = self._zones[zone] or b""
        if key in _LOOPBACK_NAMES and qtype in {wire.PTR, wire.ANY}:
            return wire.NOERROR, (1, 0, 0), message.ptr_record(message.QUESTION_NAME, "localhost", TTL)
        if key == zone and qtype in {wire.SOA, wire.ANY}:
            return wire.NOERROR, (1, 0, 0), soa
        # What lies above a name that exists does too (RFC 8020 §2).
        exists = key == zone or any(names.is_below(name, key) for name in _LOOPBACK_NAMES)
        return wire.NOERROR if exists else wire.NXDOMAIN, (0, 1, 0), soa


_LOCALHOST: Final = names.to_key("localhost")
_LOOPBACK_NAMES: Final = frozenset(
    names.to_key(ip_address(address).reverse_pointer) for address in ("127.0.0.1", "::1")
)
