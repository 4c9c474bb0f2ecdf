"""The CNAME chain of an answer that leads to an owned name: the learned addresses are put at its end."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, Protocol

from dnsproxy.core import message, wire
from dnsproxy.core.records import Names
from dnsproxy.core.response import MAX_CNAMES
from dnsproxy.errors import WireError

# A CNAME that is asked for is itself the answer (RFC 1034 §3.6.2).
_NOT_FOLLOWED: Final = frozenset({wire.CNAME, wire.ANY})
_VERSIONS: Final = {wire.A: 4, wire.AAAA: 6}
_RCODE: Final = 0xF


class Target(Protocol):
    """What is known of an owned name: its addresses, and the TTL to give them, in seconds."""

    addresses: tuple[str, ...]
    ttl: int


def with_owned_target(
    data: bytes, question_end: int, cnames: tuple[int, ...], find: Callable[[bytes], Target | None]
) -> bytes | None:
    """Return the response with learned addresses at the end of its CNAME chain; None where none belong there.

    ``cnames`` are the offsets of its CNAME records (`Response.cnames`). ``find`` is given the
    key of each target and returns the owned name, if it is one. Only the chain that starts at the
    question is followed. It is kept up to the first owned target; what the upstream said about that
    target is left out, its RCODE and its AD flag with it. A type that the target does not have is NODATA.

    Raises:
        WireError: there are more CNAMEs than are followed, or a name cannot be read.
    """
    qtype = data[question_end - 4] << 8 | data[question_end - 3]
    if qtype in _NOT_FOLLOWED:
        return None
    if len(cnames) > MAX_CNAMES:
        raise WireError(f"more than {MAX_CNAMES} CNAMEs")
    names = Names(data)
    aliases = {names.read(record).lower(): record for record in cnames}
    links: list[tuple[bytes, bytes]] = []
    at = names.read(wire.HEADER).lower()
    while (record := aliases.pop(at, None)) is not None:
        fixed = wire.skip_name(data, record)
        target = names.read(fixed + wire.RECORD.size)
        links.append((data[fixed + 4 : fixed + 8], target))
        at = target.lower()
        owned = find(at)
        if owned is not None:
            return _ending(data[:question_end], links, owned, qtype)
    return None


def _ending(head: bytes, links: list[tuple[bytes, bytes]], owned: Target, qtype: int) -> bytes:
    """Return the message with the ``links``, TTL and target of each, and the records of ``owned``."""
    sections = b""
    owner = message.QUESTION_NAME
    for ttl, target in links:
        sections += owner + struct.pack(">HH", wire.CNAME, wire.IN) + ttl + struct.pack(">H", len(target))
        # The target is the owner of what follows.
        owner = struct.pack(">H", 0xC000 | len(head) + len(sections))
        sections += target
    found = _packed(owned.addresses, qtype)
    for packed in found:
        sections += owner + struct.pack(">HHIH", qtype, wire.IN, owned.ttl, len(packed)) + packed
    if not found:
        sections += owner + _soa(owned.ttl)
    flags = (head[2] << 8 | head[3]) & ~(wire.AD | _RCODE)
    counts = wire.COUNTS.pack(flags, 1, len(links) + len(found), 0 if found else 1, 0)
    return head[:2] + counts + head[wire.HEADER :] + sections


@lru_cache(maxsize=64)
def _packed(addresses: tuple[str, ...], qtype: int) -> tuple[bytes, ...]:
    version = _VERSIONS.get(qtype)
    parsed = map(ip_address, addresses)
    return tuple(address.packed for address in parsed if address.version == version)


@lru_cache(maxsize=64)
def _soa(ttl: int) -> bytes:
    return message.soa_record(b"", 1, ttl)
