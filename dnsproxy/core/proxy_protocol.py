"""The header of PROXY protocol, version 2: a load balancer says which client a query comes from.

https://www.haproxy.org/download/2.3/doc/proxy-protocol.txt, section 2.2.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dnsproxy.errors import DropReason, WireError

# Bytes of a header with its type-length-value vectors (TLV), which are not used. A TLS client's take 100.
MAX_HEADER: Final = 512

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
# By family and transport, as TCP or UDP over either: bytes of an address. Both transports come over both.
_ADDRESS: Final = {0x11: 4, 0x12: 4, 0x21: 16, 0x22: 16}
_UNSPECIFIED: Final = 0x00
# What an IPv4 address begins with in the form of an IPv6 one (RFC 4291 §2.5.5.2).
_MAPPED: Final = bytes(10) + b"\xff\xff"


class Header(NamedTuple):
    """A header of ``length`` bytes. ``address`` is the client's, packed, and ``port``.

    Without an address (LOCAL, UNSPEC) the peer itself is the client.
    """

    length: int
    address: bytes = b""
    port: int = 0


def header_length(data: bytes) -> int:
    """Return how many bytes the header has that ``data`` is the start of; 16 while that is not known.

    Raises:
        WireError: it is none, or one that is not accepted.
    """
    if not _SIGNATURE.startswith(data[:12]):
        raise _refusal("no PROXY header")
    if len(data) < _FIXED:
        return _FIXED
    if data[12] != _LOCAL and data[12] != _PROXY:
        raise _refusal("another version or command")
    length = _FIXED + (data[14] << 8 | data[15])
    if length > MAX_HEADER:
        raise _refusal(f"{length} bytes")
    return length


def read_header(data: bytes) -> Header:
    """Return the header at the start of ``data``.

    Raises:
        WireError: there is none, or one that is not accepted: incomplete, longer than `MAX_HEADER`, of
            another version, or with addresses of neither IPv4 nor IPv6.
    """
    length = header_length(data)
    if len(data) < length:
        raise _refusal("incomplete")
    family = data[13]
    if data[12] == _LOCAL or family == _UNSPECIFIED:
        return Header(length)
    size = _ADDRESS.get(family)
    if size is None:
        raise _refusal(f"family {family:#04x}")
    # Source and destination address, source and destination port.
    ports = _FIXED + 2 * size
    if length < ports + 4:
        raise _refusal("too short for its addresses")
    address = data[_FIXED : _FIXED + size]
    if address.startswith(_MAPPED):
        address = address[12:]
    return Header(length, address, data[ports] << 8 | data[ports + 1])


def _refusal(text: str) -> WireError:
    return WireError(text, DropReason.PROXY_HEADER)
