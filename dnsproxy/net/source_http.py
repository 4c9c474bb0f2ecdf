"""A source at an http or https URL, such as a helper: entity tags, and long polls where it takes them."""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus
from pathlib import Path

import aiohttp

from dnsproxy.authorities import client_context
from dnsproxy.core.upstreams import Source
from dnsproxy.errors import FetchError, StartError
from dnsproxy.net import fetch
from dnsproxy.net.fetch import Fetched, Request, text_of
from dnsproxy.settings.sources import SourceSettings
from dnsproxy.tokens import read_token
from dnsproxy.transport.reasons import client_reason, os_reason
from dnsproxy.transport.source_address import socket_factory

# Seconds for the TCP (and TLS) connection.
CONNECT_DEADLINE = 5.0
_CHUNK = 65_536
# Digits of a Retry-After field that is read.
_RETRY_DIGITS = 6


class HttpReader:
    """Gets ``source`` over one HTTP session, whose connections leave from ``source_address``."""

    def __init__(self, source: SourceSettings, source_address: Source | None = None) -> None:
        self._source = source
        self._source_address = source_address
        self._session: aiohttp.ClientSession | None = None
        self._context: tuple[int, ssl.SSLContext] | None = None

    async def fetch(self, request: Request) -> Fetched:
        """See `fetch.Reader`."""
        source = self._source
        headers = {"Accept-Encoding": "identity", "Accept": "application/jose"}
        if source.token_file is not None:
            headers["Authorization"] = f"Bearer {await _token(source.token_file)}"
        if request.etag is not None:
            headers["If-None-Match"] = request.etag
        url = source.url.partition("#")[0]
        if request.wait and request.serial is not None:
            url += f"?wait={request.serial}&timeout={request.wait:g}"
        context = await asyncio.to_thread(self._trust, source.ca_file) if source.ca_file else True
        try:
            async with self._open().get(url, headers=headers, ssl=context, allow_redirects=False) as response:
                return await _receive(response, asked=request.etag is not None)
        except TimeoutError as exc:  # aiohttp's are its ClientError as well
            raise FetchError(f"no connection within {CONNECT_DEADLINE:g} s") from exc
        except aiohttp.ClientError as exc:
            raise FetchError(client_reason(exc)) from exc

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE)
            # Nothing is unpacked: a small body must not become a large one.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=socket_factory(self._source_address)),
                timeout=timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _trust(self, ca_file: Path) -> ssl.SSLContext:
        try:
            changed = ca_file.stat().st_mtime_ns
            if self._context is None or self._context[0] != changed:
                self._context = changed, client_context(ca_file)
        except (OSError, ValueError) as exc:
            raise FetchError(f"ca_file {ca_file}: {os_reason(exc)}") from exc
        return self._context[1]

    async def close(self) -> None:
        """Close the HTTP session, if one was opened."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _token(path: Path) -> str:
    try:
        return await asyncio.to_thread(read_token, path)
    except StartError as exc:
        raise FetchError(f"token_file: {exc}") from exc


async def _receive(response: aiohttp.ClientResponse, *, asked: bool) -> Fetched:
    if response.status == HTTPStatus.NOT_MODIFIED and asked:
        return Fetched(None, response.headers.get("ETag"))
    if response.status != HTTPStatus.OK:
        raise FetchError(_status_reason(response.status), _retry_after(response))
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > fetch.MAX_OCTETS:
            raise FetchError(f"larger than {fetch.MAX_OCTETS} octets")
    return Fetched(text_of(bytes(body)), response.headers.get("ETag"))


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Return the seconds of a Retry-After field; a date, which needs the clocks to agree, is ignored."""
    text = response.headers.get("Retry-After", "")
    is_number = text.isascii() and text.isdecimal() and len(text) <= _RETRY_DIGITS
    return float(text) if is_number else None


def _status_reason(status: int) -> str:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    hint = (
        " (redirects are not followed)" if 300 <= status < 400 and status != HTTPStatus.NOT_MODIFIED else ""
    )
    return f"status {status}{phrase}{hint}"
