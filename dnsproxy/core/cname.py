"""The CNAME chain of an answer: where it leads, what it began with, and the learned addresses at its end."""

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

Link = tuple[bytes, bytes]
"""The TTL of a CNAME record, as it is in the message, and its target, written out."""

_VERSIONS: Final = {wire.A: 4, wire.AAAA: 6}
_RCODE: Final = 0xF
# Type and class of an alias.
ALIAS: Final = struct.pack(">HH", wire.CNAME, wire.IN)


class Origin:
    """What an exchange was begun for, where that is not what it asks.

    ``question`` is that of the client, ``spelled`` what is asked without random case, of the upstreams of
    ``zone``. ``links`` are the TTLs and targets of the aliases that have led there. ``partial`` is an answer
    that could not be used, with its message: it failed or was truncated, but has aliases.
    """

    __slots__ = ("links", "partial", "question", "spelled", "zone")

    def __init__(self, question: bytes, zone: bytes) -> None:
        self.question = self.spelled = question
        self.zone = zone
        self.links: list[Link] = []
        self.partial: tuple[Response, bytes] | None = None


def leading_out(
    names: Names, data: bytes, cnames: tuple[int, ...], ends: Callable[[bytes], bool]
) -> list[Link] | None:
    """Return the CNAME chain of an answer up to the first target that ``ends`` it; None where none does.

    ``cnames`` are the offsets of its CNAME records (`Response.cnames`), ``ends`` is given the key of each
    target. Only the chain that starts at the question is followed.

    Raises:
        WireError: there are more CNAMEs than are followed, or a name cannot be read.
    """
    if len(cnames) > MAX_CNAMES:
        raise WireError(f"more than {MAX_CNAMES} CNAMEs")
    # By record: its link, and whether that ends the chain. Few answers have such a target at all.
    targets: dict[int, tuple[Link, bool]] = {}
    reaches = False
    for record in cnames:
        fixed = record + 2 if data[record] >= 0xC0 else wire.skip_name(data, record)
        target = names.read(fixed + 10)
        is_end = ends(target.lower())
        targets[record] = (data[fixed + 4 : fixed + 8], target), is_end
        reaches = reaches or is_end
    if not reaches:
        return None
    aliases = {names.read(record).lower(): record for record in cnames}
    links: list[Link] = []
    at = names.read(wire.HEADER).lower()
    while (step := aliases.pop(at, None)) is not None:
        link, is_end = targets[step]
        links.append(link)
        if is_end:
            return links
        at = link[1].lower()
    return None


def with_addresses(flags: int, question: bytes, links: list[Link], owned: Owned) -> Response:
    """Return what a scan of a chain that leads to ``owned``, and of the records of that, finds.

    What the upstream said about the target is left out, its RCODE and its AD flag with it. A type that the
    target does not have is NODATA.
    """
    question_end = wire.HEADER + len(question)
    response = Response(flags & ~(wire.AD | _RCODE), question_end)
    sections = b""
    offsets: list[int] = []
    ttls = [owned.ttl]
    owner = message.QUESTION_NAME
    for ttl, target in links:
        offsets.append(len(sections) + len(owner) + 4)
        ttls.append(0 if ttl[0] & 0x80 else int.from_bytes(ttl, "big"))
        sections += owner + ALIAS + ttl + len(target).to_bytes(2, "big")
        # The target is the owner of what follows.
        owner = (0xC000 | question_end + len(sections)).to_bytes(2, "big")
        sections += target
    qtype = question[-4] << 8 | question[-3]
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
