"""Helpers inside the proxy, for a proxy that reaches a resolver of the source region itself.

One for each source that is ``dns://…`` or of type ``embedded``. What they publish is signed
with a key of this host and goes through the same checks as snapshots that come from elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.errors import FetchError, StartError
from dnsproxy.helper.assemble import make_helper
from dnsproxy.helper.service import Helper
from dnsproxy.keys import ensure_private_key, local_key_path
from dnsproxy.net.fetch import Fetched, Fetcher, Request, public_url
from dnsproxy.settings import Settings
from dnsproxy.settings.sources import Source, SourceSettings
from dnsproxy.settings.values import Endpoint
from dnsproxy.supervise import supervise
from dnsproxy.system import expand_resolvers, is_own

# Seconds that a pull waits for the first look at every name.
FIRST_WAIT = 10.0


class EmbeddedHelpers:
    """The helpers by the URL of their source, and the key that they sign with.

    The folder of ``learn.state_file`` must be there and writable.

    Raises:
        StartError: the key cannot be read or made, or a resolver is this proxy itself.
    """

    def __init__(self, settings: Settings) -> None:
        key = ensure_private_key(local_key_path(settings.learn.state_file))
        public = key.public_key()
        self.keys = {seal.key_id(public): public}
        self._helpers: dict[str, Helper] = {}
        self._issuers: dict[str, str] = {}
        # Rounds that the next fetch waits for.
        self._awaited: dict[str, int] = {}
        for source in settings.learn.sources:
            if isinstance(source, SourceSettings) and source.is_local:
                resolvers = _resolvers(settings, source)
                issuer = public_url(source.url)
                self._issuers[source.url] = issuer
                seen = settings.of_registries(source.registries)
                self._helpers[source.url] = make_helper(
                    seen, issuer, resolvers, key, source_address=settings.learn.source_address
                )
        self._fetcher = Fetcher(settings.learn.source_address)

    def resume(self, snapshots: Iterable[Snapshot]) -> None:
        """Continue after the last snapshots: their serials, and what registries reported."""
        latest = {snapshot.issuer: snapshot for snapshot in snapshots}
        for url, helper in self._helpers.items():
            snapshot = latest.get(self._issuers[url])
            if snapshot is not None:
                helper.resume(snapshot)

    async def fetch(self, source: Source, request: Request) -> Fetched:
        """Return what ``source`` has now, be it one of these helpers or elsewhere.

        Raises:
            FetchError: as `Fetcher.fetch`, or no look has ended yet.
        """
        helper = self._helpers.get(source.url)
        if helper is None:
            return await self._fetcher.fetch(source, request)
        awaited = self._awaited.pop(source.url, None)
        with suppress(TimeoutError):
            async with asyncio.timeout(request.wait or FIRST_WAIT):
                if awaited is not None:
                    await helper.wait_round(awaited)
                elif request.wait and request.serial is not None:
                    await helper.wait_beyond(request.serial)
                await helper.wait_first()
        if helper.current is None:
            raise FetchError(f"{public_url(source.url)}: no look has ended yet")
        snapshot = helper.current.snapshot
        tag = f"{snapshot.serial}-{snapshot.issued_at}"
        return Fetched(None if tag == request.etag else helper.current.token, tag)

    async def changed(self, source: Source) -> None:
        """See `Fetcher.changed`; with ``wait``, `fetch` itself tells what changes in here."""
        await self._fetcher.changed(source)

    def look_now(self) -> None:
        """Have every name looked at now; the next `fetch` of each helper waits until that is done."""
        for url, helper in self._helpers.items():
            self._awaited[url] = helper.next_round
            helper.look_now()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for url, helper in self._helpers.items():
                    tasks.create_task(supervise("embedded helper", helper.run, detail=public_url(url)))
        finally:
            await self._fetcher.close()


def _resolvers(settings: Settings, source: SourceSettings) -> list[Endpoint]:
    configured = settings.helper.resolvers if source.resolver is None else [source.resolver]
    resolvers = expand_resolvers(configured)
    for resolver in resolvers:
        if is_own(resolver, settings.serve.listen):
            # It would learn its own answers, and confirm them for ever.
            shown = public_url(source.url)
            raise StartError(f"learn.sources: {shown}: {resolver} is this proxy's own listening address")
    return resolvers
