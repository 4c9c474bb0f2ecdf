"""Read one source of snapshots, whatever its kind: each has a reader of its own.

What comes back is text that nobody has checked. Readers are imported with the first request:
HTTP clients take longer to load than everything that the first answer needs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

import structlog

from dnsproxy.core.upstreams import Source as SourceAddress
from dnsproxy.errors import FetchError, StartError
from dnsproxy.settings.etcd import EtcdSource
from dnsproxy.settings.sources import KubernetesSource, S3Source, Source
from dnsproxy.transport.reasons import os_reason

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Octets. Some hundred times the snapshot of a large region.
MAX_OCTETS = 8 * 1024 * 1024
# Seconds for everything from connect to the last octet; for a long poll, what is added to its wait.
DEADLINE = 10.0
WAIT_MARGIN = 5.0
# Seconds that a long poll waits at most; the helper's own limit.
MAX_WAIT = 120.0


@dataclass(frozen=True, slots=True)
class Request:
    """What the last document of a source lets the next request say.

    With ``wait`` (seconds, 0 for none) the source may keep the request until what it
    has is not ``serial``, or not ``etag``, any more. ``etag`` is sent back as received.
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
    """A token that nobody has verified; None when the source says that nothing is new.

    ``etag`` is an opaque mark of the reader's for what the source has now: an entity tag, a revision.
    """

    token: str | None
    etag: str | None = None


class Reader(Protocol):
    """Reads one source."""

    async def fetch(self, request: Request) -> Fetched:
        """Return what the source has now.

        A reader that can watch keeps a request with ``wait`` open until the source has something
        else than ``request.etag``, for that time at most. It may be cancelled at any time.

        Raises:
            FetchError, StartError, OSError, ValueError: it cannot be read; no secret in the message.
        """

    async def close(self) -> None:
        """Let go of connections; `fetch` makes them anew."""


@runtime_checkable
class Follower(Reader, Protocol):
    """A reader that learns of changes between requests as well."""

    async def changed(self) -> None:
        """Return when the source may have something else than at the last `fetch`, failed or not."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What is known of one source. Times are Unix seconds, None for never."""

    url: str
    last_attempt: float | None = None
    last_success: float | None = None
    last_error: str | None = None
    issuer: str | None = None
    serial: int | None = None


def public_url(url: str) -> str:
    """Return ``url`` without user, password, query and fragment, for logs."""
    if url.startswith("embedded:"):
        return "embedded"
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url.partition(':')[0]}: (not a usable URL)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Fetcher:
    """Fetches from any number of sources; requests leave from ``source_address``. `close` it at the end."""

    def __init__(self, source_address: SourceAddress | None = None) -> None:
        self._source_address = source_address
        self._readers: dict[str, Reader] = {}

    async def fetch(self, source: Source, request: Request) -> Fetched:
        """Return what ``source`` has now.

        Raises:
            FetchError: unreachable, too slow, too large, or not a success; the
                message names the source without its secrets.
        """
        shown = public_url(source.url)
        try:
            async with asyncio.timeout(request.deadline):
                reader = self._readers.get(source.url)
                if reader is None:
                    reader = self._readers[source.url] = make_reader(source, self._source_address)
                return await reader.fetch(request)
        except FetchError as exc:
            raise FetchError(f"{shown}: {exc}", exc.retry_after) from exc
        except StartError as exc:
            raise FetchError(f"{shown}: {exc}") from exc
        except TimeoutError as exc:
            raise FetchError(f"{shown}: no whole answer within {request.deadline:g} s") from exc
        except (OSError, ValueError) as exc:
            raise FetchError(f"{shown}: {os_reason(exc)}") from exc

    async def changed(self, source: Source) -> None:
        """Return when ``source`` may have something else than when it was last fetched.

        Never, where nothing tells.
        """
        reader = self._readers.get(source.url)
        if isinstance(reader, Follower):
            try:
                await reader.changed()
            except Exception:  # a mistake of ours; the source is read at the end of each pause all the same
                log.exception("learned.source_crashed", source=public_url(source.url))
            else:
                return
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Close what was opened."""
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            await reader.close()


def make_reader(source: Source, source_address: SourceAddress | None = None) -> Reader:
    """Return the reader for ``source``, whose requests leave from ``source_address``; nothing is opened yet.

    The libraries for objects and API servers cannot choose an address: the settings admit neither with one.

    Raises:
        StartError: what it takes is not installed.
    """
    # One branch for each kind; see the module's docstring for why the imports are here.
    if isinstance(source, EtcdSource):
        from dnsproxy.net.source_etcd import EtcdReader  # noqa: PLC0415

        return EtcdReader(source, source_address)
    if source.url.startswith("file:"):
        from dnsproxy.net.source_file import FileReader  # noqa: PLC0415

        return FileReader(Path(unquote(urlsplit(source.url).path)))
    if isinstance(source, S3Source):
        from dnsproxy.net.source_s3 import S3Reader  # noqa: PLC0415

        return S3Reader(source)
    if isinstance(source, KubernetesSource):
        from dnsproxy.net.source_kubernetes import KubernetesReader  # noqa: PLC0415

        return KubernetesReader(source)
    from dnsproxy.net.source_http import HttpReader  # noqa: PLC0415

    return HttpReader(source, source_address)


def text_of(body: bytes) -> str:
    """Return a document as text. What is not ASCII is no token; `seal.verify` says so."""
    return body.decode("ascii", "replace").strip()
