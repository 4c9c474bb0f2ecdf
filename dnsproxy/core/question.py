"""What a scanned question is: not for a forwarder, or one answer among those that a cache keeps apart."""

from __future__ import annotations

from typing import Final

from dnsproxy.core import names, wire
from dnsproxy.core.wire import Query

# Types that are not data: there is no zone to transfer here and no key to agree on.
_META_FIRST: Final = 249
_META_LAST: Final = 254


def refusal(query: Query) -> int:
    """Return the RCODE for a well-formed query that is not a forwarder's business, or 0."""
    if query.qclass != wire.IN or _META_FIRST <= query.qtype <= _META_LAST:
        return wire.REFUSED
    return wire.FORMERR if query.qtype == wire.OPT else 0


def is_refused_type(qtype: int) -> bool:
    """Tell whether no query for ``qtype`` is answered, as `refusal` has it."""
    return _META_FIRST <= qtype <= _META_LAST or qtype == wire.OPT


_VERSION: Final = frozenset({b"\x07version\x04bind\x00", b"\x07version\x06server\x00"})
_IDENTITY: Final = frozenset({b"\x02id\x06server\x00", b"\x08hostname\x04bind\x00"})


def chaos_text(query: Query, version: str | None, identity: str | None) -> str | None:
    """Return the text for a question of class CH (RFC 4892 §2), None when it is refused."""
    if query.qtype not in {wire.TXT, wire.ANY}:
        return None
    if query.key in _VERSION:
        return version
    return identity if query.key in _IDENTITY else None


def zone_key(key: bytes, qtype: int) -> bytes:
    """Return the name whose zone answers for ``key``: of a DS that is the parent (RFC 4035 §3.1.4.1)."""
    return names.parent(key) if qtype == wire.DS else key


def cache_key(query: Query) -> bytes:
    """Return name, type, class and what else changes the answer: DO and CD (RFC 4035 §3.2)."""
    end = query.question_end
    key = query.key + query.data[end - 4 : end]
    if query.flags & wire.CD:
        return key + (b"\x11" if query.do else b"\x10")
    return key + (b"\x01" if query.do else b"\x00")


def may_be_special(key: bytes) -> bool:
    """Tell whether the last label may be one of `special`, by its last two letters; false for most names.

    Every miss comes by here: this costs 40 instructions, walking the labels 2,000.
    """
    end = len(key)
    if end < 7:
        return False
    tail = key[end - 3] << 8 | key[end - 2]
    # arpa, localhost, invalid, onion, local
    return tail == 0x7061 or tail == 0x7374 or tail == 0x6964 or tail == 0x6F6E or tail == 0x616C  # noqa: PLR1714 - a set is made for each `in`
