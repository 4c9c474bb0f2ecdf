"""The connections that `doctor` makes. Nothing here raises for what a peer does."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from dnsproxy.authorities import client_context
from dnsproxy.errors import StartError
from dnsproxy.ops.doctor_services import HttpReply, Reached

# Octets of a body that are read. A token has some 2000.
_MAX_BODY = 65_536
# The discard port (RFC 863): nothing is sent, the kernel only chooses a route.
_ANY_PORT = 9


def tls_context(ca_file: Path | None, *, verify: bool) -> ssl.SSLContext:
    """Return what clients trust: ``ca_file``, or the system's authorities. Without ``verify``, everything.

    Raises:
        StartError: ``ca_file`` cannot be used.
    """
    try:
        context = client_context(ca_file)
    except (OSError, ValueError) as exc:
        raise StartError(f"learn.verify.ca_file: {ca_file}: {_reason(exc)}") from exc
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def kernel_route(address: str) -> tuple[str | None, str | None]:
    """Return the kernel's error and the source address that it would use; no packet is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, _ANY_PORT))
            return None, str(sock.getsockname()[0])
    except OSError as exc:
        return _reason(exc), None


async def connect(address: str, port: int, seconds: float) -> Reached:
    """Open a TCP connection and close it."""
    return await _open(address, port, seconds, lambda _writer: "")


async def handshake(address: str, port: int, name: str, context: ssl.SSLContext, seconds: float) -> Reached:
    """Open a TLS connection as a client of ``name`` does; the detail is how long the certificate is good."""

    def until(writer: asyncio.StreamWriter) -> str:
        certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
        return f"valid until {certificate.get('notAfter', 'unknown')}"

    return await _open(address, port, seconds, until, ssl=context, server_hostname=name.removesuffix("."))


async def _open(
    address: str,
    port: int,
    seconds: float,
    look: Callable[[asyncio.StreamWriter], str],
    **options: Any,  # noqa: ANN401 - asyncio's own
) -> Reached:
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(address, port, **options)
    except TimeoutError:
        return Reached(address, f"no answer within {seconds:g} s")
    except (OSError, ValueError) as exc:
        return Reached(address, _reason(exc))
    detail = look(writer)
    writer.transport.abort()
    return Reached(address, None, detail)


class _Fixed(AbstractResolver):
    """Gives one address for every name."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the address."""
        del family
        kind = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        return [ResolveResult(hostname=host, host=self._address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


async def get(url: str, address: str, context: ssl.SSLContext, seconds: float) -> HttpReply:
    """Send ``GET url`` to ``address``; redirects are not followed."""
    connector = aiohttp.TCPConnector(resolver=_Fixed(address), ssl=context, use_dns_cache=False)
    limits = aiohttp.ClientTimeout(total=seconds)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limits, trust_env=False) as session,
            session.get(URL(url, encoded=True), allow_redirects=False) as response,
        ):
            body = await response.content.read(_MAX_BODY)
            challenges = response.headers.getall("WWW-Authenticate", [])
            return HttpReply(response.status, tuple(challenges), body)
    except TimeoutError:
        return HttpReply(error=f"no answer within {seconds:g} s")
    except (aiohttp.ClientError, ValueError, OSError) as exc:
        return HttpReply(error=_reason(exc))


def _reason(exc: Exception) -> str:
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return _reason(exc.certificate_error)
    if isinstance(exc, aiohttp.ClientConnectorError):
        return _reason(exc.os_error)
    if isinstance(exc, ssl.SSLCertVerificationError):
        return exc.verify_message or str(exc)
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {exc.reason or exc}"
    # asyncio puts a text of its own in place of the system's.
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno).lower()
    return str(exc).partition("\n")[0] or type(exc).__name__
