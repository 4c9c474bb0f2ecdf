"""A target that is a key of an etcd cluster."""

from __future__ import annotations

from dnsproxy.errors import PublishError, StoreError
from dnsproxy.settings import etcd
from dnsproxy.transport.etcd import EtcdCluster
from dnsproxy.transport.etcd_keys import KeyState, put_over, read_key
from dnsproxy.transport.precedence import obstacle

# Times that a write begins again because somebody else has written meanwhile.
ATTEMPTS = 3


class EtcdTarget:
    """Writes over nothing but what it has read, and never over a later snapshot of the same helper."""

    def __init__(self, settings: etcd.EtcdTarget) -> None:
        self.name = settings.name
        self._key = settings.key
        self._cluster = EtcdCluster(settings)

    async def write(self, token: str) -> None:
        """See `outlets.Target`."""
        try:
            for _ in range(ATTEMPTS):
                held = await read_key(self._cluster, self._key)
                if (reason := obstacle(_text(held), token)) is not None:
                    raise PublishError(reason)
                if await put_over(self._cluster, self._key, held.mod_revision, token):
                    return
        except StoreError as exc:
            raise PublishError(publish_reason(exc, token)) from exc
        raise PublishError("others keep writing there")

    async def read(self) -> str | None:
        """See `outlets.Target`."""
        try:
            return _text(await read_key(self._cluster, self._key))
        except StoreError as exc:
            raise PublishError(str(exc)) from exc

    async def close(self) -> None:
        """See `outlets.Target`."""
        await self._cluster.close()


def _text(state: KeyState) -> str | None:
    return None if state.value is None else state.value.decode("ascii", "replace").strip()


def publish_reason(exc: StoreError, token: str) -> str:
    """Return why ``token`` was not put, with what there is to do about its size."""
    if "too large" in str(exc):
        return (
            f"the snapshot has {len(token)} octets, more than the cluster takes in one request"
            " (1.5 MiB unless its --max-request-bytes says otherwise)"
        )
    return str(exc)
