"""A source that is an object of an S3-compatible store: looked at again and again, by its entity tag."""

from __future__ import annotations

from dnsproxy.errors import FetchError, StoreError
from dnsproxy.net.fetch import Fetched, Request, text_of
from dnsproxy.settings.sources import S3Source
from dnsproxy.transport.objectstore import ObjectStore


class S3Reader:
    """Reads the object of ``source``."""

    def __init__(self, source: S3Source) -> None:
        self._store = ObjectStore(source)

    async def fetch(self, request: Request) -> Fetched:
        """See `fetch.Reader`."""
        try:
            stored = await self._store.get(unless=request.etag)
        except StoreError as exc:
            raise FetchError(str(exc)) from exc
        except FileNotFoundError as exc:
            raise FetchError("there is no such object: no helper has published there yet") from exc
        return (
            Fetched(None, request.etag) if stored is None else Fetched(text_of(stored.content), stored.mark)
        )

    async def close(self) -> None:
        """Nothing is held that would have to be closed."""
