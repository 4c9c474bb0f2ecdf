"""A target that is an entry of a ConfigMap or Secret."""

from __future__ import annotations

from dnsproxy.errors import PublishError, StoreError
from dnsproxy.settings.publishing import KubernetesTarget as KubernetesTargetSettings
from dnsproxy.transport.apiserver import ApiObject, ConflictError, Entry
from dnsproxy.transport.precedence import obstacle

# Times that a write begins again because somebody else has written meanwhile.
ATTEMPTS = 3


class KubernetesTarget:
    """Writes over the version that it has seen, and never over a later snapshot of the same helper."""

    def __init__(self, settings: KubernetesTargetSettings) -> None:
        self.name = settings.name
        self._object = ApiObject(settings)
        self._held: Entry | None = None

    async def write(self, token: str) -> None:
        """See `outlets.Target`."""
        try:
            for _ in range(ATTEMPTS):
                if self._held is None:
                    self._held = await self._get()
                if self._held is not None and (reason := obstacle(self._held.text, token)) is not None:
                    self._held = None
                    raise PublishError(reason)
                try:
                    self._held = await self._object.put(token, self._held)
                except (ConflictError, FileNotFoundError):  # written or deleted since it was read
                    self._held = None
                    continue
                return
        except StoreError as exc:
            self._held = None
            raise PublishError(str(exc)) from exc
        raise PublishError("others keep writing there")

    async def read(self) -> str | None:
        """See `outlets.Target`."""
        try:
            entry = await self._get()
        except StoreError as exc:
            raise PublishError(str(exc)) from exc
        return None if entry is None else entry.text

    async def _get(self) -> Entry | None:
        try:
            return await self._object.get()
        except FileNotFoundError:
            return None

    async def close(self) -> None:
        """See `outlets.Target`."""
        await self._object.close()
