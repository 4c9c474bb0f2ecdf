"""What caches between helper and proxies may do with a response (RFC 9111, RFC 5861).

The snapshot is signed and says itself until when it may be used, so any cache may hand it out for that long
once the helper does not answer; while it does, a change is held back by a few seconds at the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

# Seconds that a cache answers by itself. Each adds to the time that a change takes behind a cache.
MAX_AGE = 5
NO_STORE = {"Cache-Control": "no-store"}
_STORABLE = frozenset({HTTPStatus.OK, HTTPStatus.NOT_MODIFIED})


def cache_headers(left: float, *, status: int, guarded: bool, blocking: bool) -> Mapping[str, str]:
    """Return the headers for a response with ``status``.

    ``left`` is how long the snapshot is valid still, in seconds. ``guarded`` when only some may read it: then
    no cache that several share keeps it. A response to a ``blocking`` query is for who has asked, and once.
    """
    if blocking or status not in _STORABLE or left <= 0:
        return NO_STORE
    whose = "private" if guarded else "public"
    headers = {"Cache-Control": f"{whose}, max-age={MAX_AGE}, stale-if-error={int(left)}"}
    return {**headers, "Vary": "Authorization"} if guarded else headers
