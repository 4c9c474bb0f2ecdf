"""A source that is an entry of a ConfigMap or Secret, watched through the API server."""

from __future__ import annotations

from dnsproxy.errors import FetchError, StoreError
from dnsproxy.net.fetch import Fetched, Request
from dnsproxy.settings.sources import KubernetesSource
from dnsproxy.transport.apiserver import ApiObject, Entry, GoneError


class KubernetesReader:
    """Reads the entry of ``source``; the mark of what it holds is the object's resourceVersion."""

    def __init__(self, source: KubernetesSource) -> None:
        self._object = ApiObject(source)
        self._key = source.key

    async def fetch(self, request: Request) -> Fetched:
        """See `fetch.Reader`."""
        try:
            if request.wait and request.etag is not None:
                try:
                    entry = await self._object.watch(request.etag, request.wait)
                except GoneError:
                    entry = await self._object.get()
            else:
                entry = await self._object.get()
        except StoreError as exc:
            raise FetchError(str(exc)) from exc
        except FileNotFoundError as exc:
            raise FetchError(str(exc)) from exc
        if entry is None or entry.version == request.etag:
            return Fetched(None, request.etag)
        return Fetched(self._text(entry), entry.version)

    def _text(self, entry: Entry) -> str:
        if entry.text is None:
            raise FetchError(f"no key {self._key} in it: no helper has published there yet")
        return entry.text.strip()

    async def close(self) -> None:
        """See `fetch.Reader`."""
        await self._object.close()
