"""Designate this program's encrypted listeners to clients that ask for them (RFC 9462, RFC 9461)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from dnsproxy.core import names

# Parameters of SVCB (RFC 9460 §14.3.2, RFC 9461 §9).
_ALPN: Final = 1
_PORT: Final = 3
_IPV4_HINT: Final = 4
_IPV6_HINT: Final = 6
_DOH_PATH: Final = 7
_HTTP: Final[tuple[bytes, ...]] = (b"h2", b"http/1.1")
_TLS: Final[tuple[bytes, ...]] = (b"dot",)
_USUAL: Final = {_HTTP: 443, _TLS: 853}


def designations(name: str, listeners: Iterable[tuple[str, int]], path: str) -> tuple[bytes, ...]:
    """Return the data of an SVCB record for HTTPS and of one for TLS, for each port of ``listeners``.

    ``name`` is that of the certificate: RFC 9462 §4 forbids "." as the target. ``listeners`` are numeric
    addresses with their ports; those that clients can be given become hints. ``path`` is that of HTTPS.
    """
    by_port: dict[int, list[str]] = {}
    for host, port in listeners:
        hosts = by_port.setdefault(port, [])
        address = ip_address(host.partition("%")[0])
        if not (address.is_unspecified or address.is_link_local):
            hosts.append(str(address))
    target = names.to_key(name)
    template = f"{path}{{?dns}}".encode()
    found = [
        (protocols, port, hosts)
        for protocols in (_HTTP, _TLS)
        for port, hosts in sorted(by_port.items(), key=lambda each: each[0] != _USUAL[protocols])
    ]
    return tuple(
        struct.pack(">H", priority) + target + _parameters(protocols, port, hosts, template)
        for priority, (protocols, port, hosts) in enumerate(found, 1)
    )


def _parameters(protocols: tuple[bytes, ...], port: int, hosts: Iterable[str], template: bytes) -> bytes:
    addresses = [ip_address(host).packed for host in hosts]
    given = {
        _ALPN: b"".join(bytes((len(protocol),)) + protocol for protocol in protocols),
        _PORT: struct.pack(">H", port),
        _IPV4_HINT: b"".join(packed for packed in addresses if len(packed) == 4),
        _IPV6_HINT: b"".join(packed for packed in addresses if len(packed) != 4),
        _DOH_PATH: template if protocols == _HTTP else b"",
    }
    # In strictly increasing order of keys (RFC 9460 §2.2).
    return b"".join(
        struct.pack(">HH", key, len(value)) + value for key, value in sorted(given.items()) if value
    )
