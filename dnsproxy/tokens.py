"""Bearer tokens (RFC 6750): read from a file, compared in constant time."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path

from dnsproxy.errors import StartError

# Header of a response of the admin endpoint: what the token of the request is good for.
TOKEN_SCOPE = "X-Dnsproxy-Token"  # noqa: S105 - its name
ORDERS, READS = "orders", "reads"
# Characters. No token in use comes near; a path that leads elsewhere is not read whole.
_MAX_TOKEN = 16_384


def read_token(path: Path) -> str:
    """Return the bearer token in ``path``, without the white space around it.

    Raises:
        StartError: the file cannot be read, is empty, or is not one word of ASCII.
    """
    try:
        with path.open(encoding="ascii") as file:
            token = file.read(_MAX_TOKEN).strip()
    except OSError as exc:
        raise StartError(f"{path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise StartError(f"{path}: a token is ASCII text") from exc
    if not token.isprintable() or len(token.split()) != 1:
        raise StartError(f"{path}: a token is one word, and is not empty")
    return token


def is_bearer(authorization: str, token: str) -> bool:
    """Tell whether the value of an Authorization header carries ``token``."""
    scheme, _, given = authorization.partition(" ")
    return _is_same(given.strip().encode("utf-8", "surrogateescape"), token) and scheme.lower() == "bearer"


def is_basic(authorization: str, token: str) -> bool:
    """Tell whether it carries ``token`` as the password of Basic authentication (RFC 7617), by any user."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        decoded = base64.b64decode(given.strip().encode("ascii"), validate=True)
    except ValueError:
        return False
    _, colon, password = decoded.partition(b":")
    return bool(colon) and _is_same(password, token)


def _is_same(given: bytes, token: str) -> bool:
    # As bytes: compare_digest refuses text that is not ASCII.
    return hmac.compare_digest(given, token.encode("utf-8"))
