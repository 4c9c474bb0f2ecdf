"""A target that is an object of an S3-compatible store."""

from __future__ import annotations

import structlog

from dnsproxy.errors import PublishError, StoreError
from dnsproxy.settings.publishing import S3Target as S3TargetSettings
from dnsproxy.transport.objectstore import ChangedMeanwhileError, ObjectStore, Stored
from dnsproxy.transport.precedence import obstacle

# Times that a write begins again because somebody else has written meanwhile.
ATTEMPTS = 3

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class S3Target:
    """Writes over nothing but what it has read or written, never over a later snapshot of the same helper.

    A store that knows no conditional writes is read before each write; then the moment between the two is not
    guarded.
    """

    def __init__(self, settings: S3TargetSettings) -> None:
        self.name = settings.name
        self._store = ObjectStore(settings)
        self._held: Stored | None = None
        self._told = False

    async def write(self, token: str) -> None:
        """See `outlets.Target`."""
        try:
            for _ in range(ATTEMPTS):
                if self._held is None or not self._store.writes_conditionally:
                    self._held = await self._get()
                if (reason := obstacle(_text(self._held), token)) is not None:
                    self._held = None
                    raise PublishError(reason)
                try:
                    self._held = await self._store.put(token.encode("ascii"), self._held)
                except ChangedMeanwhileError:
                    self._held = None
                    continue
                self._tell()
                return
        except StoreError as exc:
            self._held = None
            raise PublishError(str(exc)) from exc
        raise PublishError("others keep writing there")

    def _tell(self) -> None:
        if not self._store.writes_conditionally and not self._told:
            self._told = True
            log.warning("helper.target_unguarded", target=self.name)

    async def read(self) -> str | None:
        """See `outlets.Target`."""
        try:
            return _text(await self._get())
        except StoreError as exc:
            raise PublishError(str(exc)) from exc

    async def _get(self) -> Stored | None:
        try:
            return await self._store.get()
        except FileNotFoundError:
            return None

    async def close(self) -> None:
        """Nothing is held that would have to be closed."""


def _text(stored: Stored | None) -> str | None:
    return None if stored is None else stored.content.decode("ascii", "replace").strip()
