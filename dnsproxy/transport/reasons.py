"""Say in a few words, without secrets, why a transport failed."""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp


def os_reason(exc: Exception) -> str:
    """Return the reason of an `OSError`, or the text of another exception."""
    if isinstance(exc, socket.gaierror):
        return "the host name cannot be resolved"
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {exc.reason or exc}"
    # asyncio puts a text of its own in place of the system's.
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno)
    return str(exc) or type(exc).__name__


def client_reason(exc: aiohttp.ClientError) -> str:
    """Return the reason of an error of aiohttp's client."""
    import aiohttp  # noqa: PLC0415 - as everywhere but in the helper: loaded with the first request

    # The text of some of these holds the whole URL, with its secrets.
    if isinstance(exc, aiohttp.InvalidURL):
        return "not a usable URL"
    if isinstance(exc, aiohttp.ClientResponseError):
        return "not an HTTP response"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"certificate not trusted: {exc.certificate_error}"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return os_reason(exc.os_error)
    return str(exc) or type(exc).__name__
