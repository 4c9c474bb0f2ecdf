"""The CNAME chain of an answer that leads to an owned name: the learned addresses are put at its end."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from dnsproxy.core import message, wire
from dnsproxy.core.policy import Owned
from dnsproxy.core.records import Names
from dnsproxy.core.response import MAX_CNAMES, Response
from dnsproxy.errors import WireError

# A CNAME that is asked for is itself the answer (RFC 1034 §3.6.2).
_NOT_FOLLOWED: Final = frozenset({wire.CNAME, wire.ANY})
_VERSIONS: Final = {wire.A: 4, wire.AAAA: 6}
_RCODE: Final = 0xF
_ALIAS: Final = struct.pack(">HH", wire.CNAME, wire.IN)


def with_owned_target(
    data: bytes, question_end: int, cnames: tuple[int, ...], find: Callable[[bytes], Owned | None]
) -> Response | None:
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
    # By record: its TTL, its target, and what is known of that. Few answers have an owned target at all.
    targets: dict[int, tuple[bytes, bytes, Owned | None]] = {}
    reaches = False
    for record in cnames:
        fixed = record + 2 if data[record] >= 0xC0 else wire.skip_name(data, record)
        target = names.read(fixed + 10)
        owned = find(target.lower())
        targets[record] = data[fixed + 4 : fixed + 8], target, owned
        reaches = reaches or owned is not None
    if not reaches:
        return None
    aliases = {names.read(record).lower(): record for record in cnames}
    links: list[tuple[bytes, bytes]] = []
    at = names.read(wire.HEADER).lower()
    while (step := aliases.pop(at, None)) is not None:
        ttl, target, owned = targets[step]
        links.append((ttl, target))
        if owned is not None:
            return _ending(data, question_end, links, owned)
        at = target.lower()
    return None


def _ending(data: bytes, question_end: int, links: list[tuple[bytes, bytes]], owned: Owned) -> Response:
    """Return what a scan of the chain and of the records of ``owned`` finds.

    ``links`` are the TTL and the target of each CNAME.
    """
    response = Response((data[2] << 8 | data[3]) & ~(wire.AD | _RCODE), question_end)
    sections = b""
    offsets: list[int] = []
    ttls = [owned.ttl]
    owner = message.QUESTION_NAME
    for ttl, target in links:
        offsets.append(len(sections) + len(owner) + 4)
        ttls.append(0 if ttl[0] & 0x80 else int.from_bytes(ttl, "big"))
        sections += owner + _ALIAS + ttl + len(target).to_bytes(2, "big")
        # The target is the owner of what follows.
        owner = (0xC000 | question_end + len(sections)).to_bytes(2, "big")
        sections += target
    qtype = data[question_end - 4] << 8 | data[question_end - 3]
    found = _packed(owned.addresses, qtype)
    first = len(sections) + len(owner) + 4
    if found:
        head = owner + wire.RECORD.pack(qtype, wire.IN, owned.ttl, len(found[0]))
        response.sections = sections + head + head.join(found)
        offsets += range(first, len(response.sections), len(head) + len(found[0]))
    else:
        response.sections = sections + owner + _soa(owned.ttl)
        offsets.append(first)
        response.negative = True
    response.counts = (len(links) + len(found), 0 if found else 1, 0)
    response.ttl_offsets = tuple(offsets)
    response.ttl = min(ttls)
    response.max_ttl = max(ttls)
    return response


@lru_cache(maxsize=64)
def _packed(addresses: tuple[str, ...], qtype: int) -> tuple[bytes, ...]:
    version = _VERSIONS.get(qtype)
    parsed = map(ip_address, addresses)
    return tuple(address.packed for address in parsed if address.version == version)


@lru_cache(maxsize=64)
def _soa(ttl: int) -> bytes:
    return message.soa_record(b"", 1, ttl)
