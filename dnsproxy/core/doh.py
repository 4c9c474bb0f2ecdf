"""DNS over HTTPS (RFC 8484) as far as it is not HTTP itself: which request is a query, what a reply says."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final
from urllib.parse import parse_qs

from dnsproxy.core import wire
from dnsproxy.core.response import scan_response, with_ttls
from dnsproxy.errors import WireError

MEDIA_TYPE: Final = "application/dns-message"
# The longest message, and the longest request target that is read: a query of 6 kB by GET.
MAX_MESSAGE: Final = wire.TCP_LIMIT
MAX_TARGET: Final = 8192
# Escapes in the parameters of a target. The message needs none but for its padding, and 2,700 cost 0.6 ms.
_MAX_ESCAPES: Final = 64
# Seconds that a message is given at most by an Age header; more would be no TTL (RFC 2181 §8).
_MAX_AGE: Final = 0x7FFFFFFF
# Bytes of a reply that an HTTP cache has kept: its TTLs are changed before it is looked at.
MAX_AGED: Final = 16_384
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")

# Statuses that say what is wrong with a request (RFC 9110 §15), and what is written below them.
OK: Final = 200
BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
METHOD_NOT_ALLOWED: Final = 405
TOO_LARGE: Final = 413
TOO_LONG: Final = 414
WRONG_TYPE: Final = 415
BUSY: Final = 503
TEXTS: Final = {
    BAD_REQUEST: "not a DNS query",
    FORBIDDEN: "not for this client",
    NOT_FOUND: "no such path",
    METHOD_NOT_ALLOWED: "use GET or POST",
    TOO_LARGE: "longer than a DNS message",
    TOO_LONG: "the target is too long; use POST",
    WRONG_TYPE: f"the content must be {MEDIA_TYPE}",
    BUSY: "too many queries wait",
}


def read_request(path: str, method: str, target: str, content_type: str, body: bytes) -> bytes | int:
    """Return the message in a request to ``path``, or the status to refuse the request with."""
    asked, _, parameters = target.partition("?")
    if len(target) > MAX_TARGET:
        return TOO_LONG
    if asked != path:
        return NOT_FOUND
    if method == "GET":
        return _from_parameters(parameters)
    if method != "POST":
        return METHOD_NOT_ALLOWED
    if _media_type(content_type) != MEDIA_TYPE:
        return WRONG_TYPE
    return body if len(body) <= MAX_MESSAGE else TOO_LARGE


def _from_parameters(parameters: str) -> bytes | int:
    if parameters.count("%") > _MAX_ESCAPES:
        return BAD_REQUEST
    try:
        (text,) = parse_qs(parameters, max_num_fields=16, errors="strict").get("dns", [])
    except ValueError:  # not exactly one, too many of others, or not UTF-8
        return BAD_REQUEST
    # RFC 8484 §6 wants no padding; who puts it there means no other message.
    text = text.rstrip("=")
    if not _BASE64URL.fullmatch(text):
        return BAD_REQUEST
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return BAD_REQUEST


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def get_target(path: str, message: bytes) -> str:
    """Return the target that asks ``message`` by GET."""
    return f"{path}?dns={urlsafe_b64encode(message).rstrip(b'=').decode('ascii')}"


def freshness(message: bytes) -> int:
    """Return the seconds that HTTP caches may keep a response: its smallest TTL, 0 without one (§5.1)."""
    try:
        return scan_response(message, _question_end(message)).ttl or 0
    except (WireError, wire.MalformedError, IndexError):
        return 0


def read_reply(status: int, content_type: str, age: str, body: bytes) -> bytes:
    """Return the message of an upstream's reply, its TTLs made less by ``age``, the Age header (§5.1).

    Raises:
        WireError: the reply is no DNS message; the text is one line for the operator.
    """
    if not 200 <= status < 300:
        raise WireError(f"HTTP status {status}")
    if _media_type(content_type) != MEDIA_TYPE:
        raise WireError(f"content of type {_media_type(content_type)[:40] or 'unknown'!r}")
    if not (age.isascii() and age.isdigit()) or int(age[:10]) == 0:
        return body
    if len(body) > MAX_AGED:
        raise WireError(f"more than {MAX_AGED} bytes with an Age")
    seconds = min(int(age[:10]), _MAX_AGE)
    try:
        start = _question_end(body)
        offsets = scan_response(body, start).ttl_offsets
    except (wire.MalformedError, IndexError) as exc:
        raise WireError("a question that does not end inside the message") from exc
    return body[:start] + with_ttls(body[start:], offsets, 0, _MAX_AGE, seconds)


def _question_end(message: bytes) -> int:
    if len(message) < wire.HEADER:
        raise WireError("shorter than a header")
    if not (message[4] or message[5]):
        return wire.HEADER
    return wire.skip_name(message, wire.HEADER) + 4
