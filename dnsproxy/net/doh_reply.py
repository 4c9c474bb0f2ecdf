"""What is sent back for a DNS over HTTPS request, whichever HTTP it came by."""

from __future__ import annotations

from typing import NamedTuple

from dnsproxy.core import doh
from dnsproxy.errors import DropReason

_STATUSES = {
    DropReason.OVERLOADED: doh.BUSY,
    DropReason.TOO_MANY_WAITERS: doh.BUSY,
    DropReason.REFUSED_CLIENT: doh.FORBIDDEN,
}
_MORE_HEADERS = {doh.METHOD_NOT_ALLOWED: [("allow", "GET, POST")], doh.BUSY: [("retry-after", "1")]}


class Reply(NamedTuple):
    """Status, headers (names in lower case) and content."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def reply_to(found: bytes | int) -> Reply:
    """Return the reply with a DNS message, or for the status of a request that is refused."""
    if isinstance(found, bytes):
        headers = [
            ("content-type", doh.MEDIA_TYPE),
            ("content-length", str(len(found))),
            ("cache-control", f"max-age={doh.freshness(found)}"),
        ]
        return Reply(doh.OK, headers, found)
    body = f"{doh.TEXTS.get(found, doh.TEXTS[doh.BAD_REQUEST])}\n".encode()
    headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
    return Reply(found, headers + _MORE_HEADERS.get(found, []), body)


def status_of(reason: DropReason) -> int:
    """Return the status for a query that gets no response."""
    return _STATUSES.get(reason, doh.BAD_REQUEST)
