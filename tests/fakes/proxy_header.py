"""PROXY headers, version 2, as a load balancer makes them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOCAL, PROXY = 0x20, 0x21
# Where load balancers of the tests connect from, and clients that they name.
BALANCER = "127.0.0.53"
CLIENT, STRANGER = "198.51.100.7", "203.0.113.9"
PORT = 4242


def raw_header(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(body) if length is None else length) + body


def header(client: str = CLIENT, port: int = PORT, *, tcp: bool = False, vectors: bytes = b"") -> bytes:
    """A header that names ``client``; ``vectors`` are its TLVs."""
    address = ip_address(client)
    family = (0x11 if address.version == 4 else 0x21) + (0 if tcp else 1)
    destination = bytes(len(address.packed))
    body = address.packed + destination + struct.pack(">HH", port, 53) + vectors
    return raw_header(PROXY, family, body)
