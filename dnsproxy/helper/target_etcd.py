"""A target that is a key of an etcd cluster."""

from __future__ import annotations

from dnsproxy.errors import PublishError, StoreError
from dnsproxy.settings import etcd
from dnsproxy.transport.etcd import EtcdCluster
from dnsproxy.transport.etcd_keys import put, read_key


class EtcdTarget:
    """Puts each snapshot to the key. Who else may write there is for etcd's roles to say."""

    def __init__(self, settings: etcd.EtcdTarget) -> None:
        self.name = settings.name
        self._key = settings.key
        self._cluster = EtcdCluster(settings)

    async def write(self, token: str) -> None:
        """See `outlets.Target`."""
        try:
            await self._cluster.call("/v3/kv/put", put(self._key, token))
        except StoreError as exc:
            raise PublishError(publish_reason(exc, token)) from exc

    async def read(self) -> str | None:
        """See `outlets.Target`."""
        try:
            state = await read_key(self._cluster, self._key)
        except StoreError as exc:
            raise PublishError(str(exc)) from exc
        return state.value.decode("ascii", "replace") if state.value is not None else None

    async def close(self) -> None:
        """See `outlets.Target`."""
        await self._cluster.close()


def publish_reason(exc: StoreError, token: str) -> str:
    """Return why ``token`` was not put, with what there is to do about its size."""
    if "too large" in str(exc):
        return (
            f"the snapshot has {len(token)} octets, more than the cluster takes in one request"
            " (1.5 MiB unless its --max-request-bytes says otherwise)"
        )
    return str(exc)
