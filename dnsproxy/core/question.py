"""What a scanned question is: not for a forwarder, or one answer among those that a cache keeps apart."""

from __future__ import annotations

from typing import Final

from dnsproxy.core import wire
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


def cache_key(query: Query) -> bytes:
    """Return name, type, class and what else changes the answer: DO and CD (RFC 4035 §3.2)."""
    end = query.question_end
    key = query.key + query.data[end - 4 : end]
    if query.flags & wire.CD:
        return key + (b"\x11" if query.do else b"\x10")
    return key + (b"\x01" if query.do else b"\x00")
