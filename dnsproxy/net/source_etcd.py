"""A source that is a key of an etcd cluster, which is watched."""

from __future__ import annotations

import asyncio

from dnsproxy.core.upstreams import Source
from dnsproxy.errors import FetchError, StoreError
from dnsproxy.net.fetch import Fetched, Request, text_of
from dnsproxy.settings.etcd import EtcdSource
from dnsproxy.transport.etcd import EtcdCluster
from dnsproxy.transport.etcd_follow import KeyFollower
from dnsproxy.transport.etcd_keys import KeyState, read_key


class EtcdReader:
    """Reads and watches the key of ``source``. The mark is the cluster's id and the key's last revision."""

    def __init__(self, source: EtcdSource, source_address: Source | None = None) -> None:
        self._key = source.key
        self._cluster = EtcdCluster(source, source_address=source_address)
        self._follower = KeyFollower(self._cluster, source.key)

    async def fetch(self, request: Request) -> Fetched:
        """See `fetch.Reader`."""
        known = _known(request.etag)
        try:
            if known is None or not request.wait:
                return _fetched(await read_key(self._cluster, self._key), None)
            return await self._next(known, request.wait)
        except StoreError as exc:
            raise FetchError(str(exc)) from exc

    async def _next(self, known: KeyState, seconds: float) -> Fetched:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        state = await self._follower.after(known, seconds)
        # A key that was deleted may be put again, at once perhaps.
        while not state.exists and loop.time() < end:
            state = await self._follower.after(state, end - loop.time())
        return _fetched(state, known)

    async def close(self) -> None:
        """See `fetch.Reader`."""
        self._follower.close()
        await self._cluster.close()


def _known(mark: str | None) -> KeyState | None:
    cluster, colon, revision = (mark or "").partition(":")
    if not (colon and revision.isdecimal()):
        return None
    return KeyState(cluster, int(revision), int(revision))


def _fetched(state: KeyState, known: KeyState | None) -> Fetched:
    if not state.exists:
        raise FetchError("there is no such key: no helper has published there, or somebody has deleted it")
    mark = f"{state.cluster}:{state.mod_revision}"
    is_known = known is not None and state.is_same(known)
    return Fetched(None if is_known else text_of(state.value or b""), mark)
