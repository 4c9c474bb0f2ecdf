"""Read one source of snapshots: HTTP with long polling, or a file.

What comes back is text that nobody has checked. aiohttp is imported with the
first request: it takes longer to load than everything that the first answer needs.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from dnsproxy.authorities import client_context
from dnsproxy.errors import FetchError, StartError
from dnsproxy.settings.learning import SourceSettings
from dnsproxy.tokens import read_token

if TYPE_CHECKING:
    import aiohttp

# Octets. Some hundred times the snapshot of a large region.
MAX_OCTETS = 8 * 1024 * 1024
# Seconds for everything from connect to the last octet; for a long poll, what is added to its wait.
DEADLINE = 10.0
WAIT_MARGIN = 5.0
# Seconds for the TCP (and TLS) connection.
CONNECT_DEADLINE = 5.0
# Seconds that a long poll waits at most; the helper's own limit.
MAX_WAIT = 120.0
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Request:
    """What the last document of a source lets the next request say.

    With ``wait`` (seconds, 0 for none) the source may keep the request until
    its serial is not ``serial`` any more. ``etag`` is sent back as received.
    """

    serial: int | None = None
    etag: str | None = None
    wait: float = 0.0

    @property
    def deadline(self) -> float:
        """Seconds that the whole exchange may take."""
        return self.wait + WAIT_MARGIN if self.wait else DEADLINE


@dataclass(frozen=True, slots=True)
class Fetched:
    """A token that nobody has verified; None when the source says that nothing is new."""

    token: str | None
    etag: str | None = None


def public_url(url: str) -> str:
    """Return ``url`` without user, password, query and fragment, for logs."""
    if url.startswith("embedded:"):
        return "embedded"
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url.partition(':')[0]}: (not a usable URL)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def can_wait(url: str) -> bool:
    """Tell whether a long poll may be asked for.

    Of a helper, elsewhere or inside this program; not of a file, nor where the URL has a
    query of its own, which may be signed as a whole (object stores).
    """
    return url.startswith(("http", "dns:", "embedded:")) and "?" not in url


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What is known of one source. Times are Unix seconds, None for never."""

    url: str
    last_attempt: float | None = None
    last_success: float | None = None
    last_error: str | None = None
    issuer: str | None = None
    serial: int | None = None


class Fetcher:
    """Fetches from any number of sources over one HTTP session. `close` it at the end."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[Path, tuple[int, ssl.SSLContext]] = {}

    async def fetch(self, source: SourceSettings, request: Request) -> Fetched:
        """Return what ``source`` has now.

        Raises:
            FetchError: unreachable, too slow, too large, or not a success; the
                message names the source without its secrets.
        """
        shown = public_url(source.url)
        try:
            async with asyncio.timeout(request.deadline):
                if source.url.startswith("file:"):
                    path = Path(unquote(urlsplit(source.url).path))
                    return Fetched(_text(await asyncio.to_thread(_read_file, path)))
                return await self._get(source, request)
        except FetchError as exc:
            raise FetchError(f"{shown}: {exc}") from exc
        except StartError as exc:
            raise FetchError(f"{shown}: token_file: {exc}") from exc
        except TimeoutError as exc:
            raise FetchError(f"{shown}: no whole answer within {request.deadline:g} s") from exc
        except (OSError, ValueError) as exc:
            raise FetchError(f"{shown}: {_os_reason(exc)}") from exc

    async def _get(self, source: SourceSettings, request: Request) -> Fetched:
        import aiohttp  # noqa: PLC0415 - see the module's docstring

        headers = {"Accept-Encoding": "identity", "Accept": "application/jose"}
        if source.token_file is not None:
            token = await asyncio.to_thread(read_token, source.token_file)
            headers["Authorization"] = f"Bearer {token}"
        if request.etag is not None:
            headers["If-None-Match"] = request.etag
        url = source.url.partition("#")[0]
        if request.wait and request.serial is not None:
            url += f"?wait={request.serial}&timeout={request.wait:g}"
        context = await asyncio.to_thread(self._context, source.ca_file) if source.ca_file else True
        try:
            async with self._open().get(url, headers=headers, ssl=context, allow_redirects=False) as response:
                return await _receive(response, asked=request.etag is not None)
        except TimeoutError as exc:  # aiohttp's are its ClientError as well
            raise FetchError(f"no connection within {CONNECT_DEADLINE:g} s") from exc
        except aiohttp.ClientError as exc:
            raise FetchError(_client_reason(exc)) from exc

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415 - see the module's docstring

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE)
            # Nothing is unpacked: a small body must not become a large one.
            self._session = aiohttp.ClientSession(
                timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _context(self, ca_file: Path) -> ssl.SSLContext:
        try:
            changed = ca_file.stat().st_mtime_ns
            held = self._contexts.get(ca_file)
            if held is None or held[0] != changed:
                held = changed, client_context(ca_file)
                self._contexts[ca_file] = held
        except (OSError, ValueError) as exc:
            raise FetchError(f"ca_file {ca_file}: {_os_reason(exc)}") from exc
        return held[1]

    async def close(self) -> None:
        """Close the HTTP session, if one was opened."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _receive(response: aiohttp.ClientResponse, *, asked: bool) -> Fetched:
    if response.status == HTTPStatus.NOT_MODIFIED and asked:
        return Fetched(None, response.headers.get("ETag"))
    if response.status != HTTPStatus.OK:
        raise FetchError(_status_reason(response.status))
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > MAX_OCTETS:
            raise FetchError(f"larger than {MAX_OCTETS} octets")
    return Fetched(_text(bytes(body)), response.headers.get("ETag"))


def _read_file(path: Path) -> bytes:
    # Without O_NONBLOCK the opening of a pipe waits for its writer, for ever perhaps.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FetchError("not a regular file")
        content = file.read(MAX_OCTETS + 1)
    if len(content) > MAX_OCTETS:
        raise FetchError(f"larger than {MAX_OCTETS} octets")
    return content


def _text(body: bytes) -> str:
    # What is not ASCII is no token; `seal.verify` says so.
    return body.decode("ascii", "replace").strip()


def _status_reason(status: int) -> str:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    hint = (
        " (redirects are not followed)" if 300 <= status < 400 and status != HTTPStatus.NOT_MODIFIED else ""
    )
    return f"status {status}{phrase}{hint}"


def _client_reason(exc: aiohttp.ClientError) -> str:
    import aiohttp  # noqa: PLC0415 - see the module's docstring

    # The text of some of these holds the whole URL, with its secrets.
    if isinstance(exc, aiohttp.InvalidURL):
        return "not a usable URL"
    if isinstance(exc, aiohttp.ClientResponseError):
        return "not an HTTP response"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"certificate not trusted: {exc.certificate_error}"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return _os_reason(exc.os_error)
    return str(exc) or type(exc).__name__


def _os_reason(exc: Exception) -> str:
    if isinstance(exc, socket.gaierror):
        return "the host name cannot be resolved"
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {exc.reason or exc}"
    # asyncio puts a text of its own in place of the system's.
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno)
    return str(exc) or type(exc).__name__
