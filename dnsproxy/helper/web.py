"""GET over HTTPS for discovery: names through the helper's own resolvers, nothing followed, all bounded."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from dnsproxy.authorities import client_context
from dnsproxy.core.upstreams import Source
from dnsproxy.errors import DiscoverError, Doubt, ResolveError
from dnsproxy.transport.source_address import socket_factory

# Seconds for the TCP and TLS connection.
CONNECT_DEADLINE = 5.0
# Octets of a body, which is a token's or a manifest's. Manifests have some 1,000, a token up to 8,000.
MAX_BODY = 1_048_576
# Octets of one header field; a signed Location has some 600.
MAX_FIELD = 8190

AddressesOf = Callable[[str], Awaitable[tuple[str, ...]]]
"""From a canonical name to its addresses; raises `ResolveError`."""


@dataclass(frozen=True, slots=True)
class Page:
    """A response; ``body`` is empty unless ``status`` is 200 and the body was read."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Web:
    """Use `open_web`; it closes what was opened."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(
        self, what: str, url: URL, headers: Mapping[str, str] | None = None, *, read: bool = True
    ) -> Page:
        """Return the response from ``url``; ``what`` represents it in messages. There is no deadline here.

        Without ``read`` the connection is closed after the headers.

        Raises:
            DiscoverError: no response, one that is too large, or not HTTP. The message
                has nothing of the URL, which may be signed.
        """
        sent = CIMultiDict({"Accept-Encoding": "identity", **(headers or {})})
        try:
            async with self._session.get(url, headers=sent, allow_redirects=False) as response:
                body = await _read(what, response) if read and response.status == HTTPStatus.OK else b""
                return Page(response.status, response.headers, body)
        except TimeoutError as exc:
            # Of one connection; the deadline of the whole is met further up.
            raise DiscoverError(Doubt.TIMEOUT, f"{what}: no connection") from exc
        except aiohttp.ClientError as exc:
            raise _failure(what, exc) from None  # its text holds the URL
        except (OSError, ValueError) as exc:
            raise DiscoverError(Doubt.UNREACHABLE, f"{what}: {type(exc).__name__}") from None


@asynccontextmanager
async def open_web(
    addresses_of: AddressesOf, ca_file: Path | None, source: Source | None = None
) -> AsyncIterator[Web]:
    """Trust the authorities in ``ca_file`` (PEM), or the system's; connections leave from ``source``.

    Raises:
        DiscoverError: the file cannot be used.
    """
    context = await asyncio.to_thread(_context, ca_file)
    connector = aiohttp.TCPConnector(
        resolver=_Resolver(addresses_of),
        use_dns_cache=False,
        ssl=context,
        force_close=True,
        socket_factory=socket_factory(source),
    )
    # Nothing is unpacked: a small body must not become a large one.
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_line_size=MAX_FIELD,
        max_field_size=MAX_FIELD,
    ) as session:
        yield Web(session)


class _Resolver(AbstractResolver):
    """Resolves for aiohttp as the helper does: through its own resolvers, pins and aliases."""

    def __init__(self, addresses_of: AddressesOf) -> None:
        self._addresses_of = addresses_of

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - both families are wanted
    ) -> list[ResolveResult]:
        try:
            found = await self._addresses_of(f"{host.lower().rstrip('.')}.")
        except ResolveError as exc:
            raise OSError(str(exc)) from exc
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return client_context(ca_file)
    except (OSError, ValueError) as exc:
        raise DiscoverError(Doubt.CERTIFICATE, f"ca_file {ca_file}: {_os_reason(exc)}") from exc


async def _read(what: str, response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > MAX_BODY:
            raise DiscoverError(Doubt.TOO_LARGE, f"{what}: larger than {MAX_BODY} octets")
    return bytes(body)


def _failure(what: str, exc: aiohttp.ClientError) -> DiscoverError:
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return DiscoverError(Doubt.CERTIFICATE, f"{what}: certificate not trusted: {exc.certificate_error}")
    if isinstance(exc, aiohttp.ClientConnectorError):
        return DiscoverError(Doubt.UNREACHABLE, f"{what}: {_os_reason(exc.os_error)}")
    if isinstance(exc, aiohttp.ClientResponseError):
        return DiscoverError(Doubt.NOT_HTTP, f"{what}: not an HTTP response, or larger than is read")
    return DiscoverError(Doubt.UNREACHABLE, f"{what}: {type(exc).__name__}")


def _os_reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {exc.reason or exc}"
    # asyncio puts a text of its own in place of the system's.
    return os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else str(exc)
