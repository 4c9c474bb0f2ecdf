"""How addresses get here by one configuration: trusted keys, embedded helpers, sources."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from dnsproxy.address_service import AddressService, AddressSettings
from dnsproxy.core.addresses.lifecycle import OpenedSnapshot
from dnsproxy.core.totals import PullResult
from dnsproxy.core.trust import Trust
from dnsproxy.errors import SnapshotError, StartError
from dnsproxy.net.puller import SnapshotPuller, log
from dnsproxy.net.statefile import check_writable, open_snapshot
from dnsproxy.settings import Settings
from dnsproxy.supervise import supervise
from dnsproxy.transport.extras import missing_extras, needs_extra
from dnsproxy.trust import read_trust, with_own

if TYPE_CHECKING:
    from dnsproxy.embedded import EmbeddedHelpers


class LearningPipeline:
    """Sources → puller → address service; ``earlier`` is what another configuration made.

    Raises:
        StartError: keys or ``learn.verify.ca_file`` cannot be read, ``learn.on_change`` cannot be
            run, the state folder cannot be written, or a source is this proxy itself; with every reason.
    """

    def __init__(self, settings: Settings, earlier: LearningPipeline | None = None) -> None:
        self._settings = settings
        problems: list[str] = []
        trust: Trust | None = None
        addresses: AddressSettings | None = None
        self.disk_failure: str | None = None
        self._embedded: EmbeddedHelpers | None = None
        try:
            if settings.learn.sources:
                self.disk_failure = check_writable(settings.learn.state_file)
            self._embedded = self._embed()
        except StartError as exc:
            problems += exc.reasons
        kinds = {source.type for source in settings.learn.sources}
        problems += [f"learn.sources: type {needs_extra(kind)}" for kind in missing_extras(kinds)]
        try:
            trust = read_trust(settings)
            if self._embedded is not None:
                trust = with_own(trust, self._embedded.keys)
        except StartError as exc:
            problems += exc.reasons
        try:
            addresses = AddressSettings.make(settings, trust or Trust.none())
        except StartError as exc:
            problems += exc.reasons
        if problems or trust is None or addresses is None:
            raise StartError(*problems)
        self.trust = trust
        self.addresses = addresses
        if earlier is not None:
            self.addresses = replace(addresses, policy=addresses.policy.sharing(earlier.addresses.policy))
        self.puller: SnapshotPuller | None = None
        self._verified: dict[str, OpenedSnapshot | None] = {}

    def _embed(self) -> EmbeddedHelpers | None:
        if not any(source.is_local for source in self._settings.learn.sources):
            return None
        # A proxy that only pulls needs neither dnslib's decoder nor aiohttp at its start.
        from dnsproxy.embedded import EmbeddedHelpers  # noqa: PLC0415

        return EmbeddedHelpers(self._settings)

    def reopen(self, service: AddressService) -> list[OpenedSnapshot] | None:
        """Return the snapshots of ``service``, verified by the keys and for the names of this configuration.

        None if one has been accepted that is not verified yet: then call `verify` first.
        """
        held = service.lifecycle.snapshots.values()
        if any(entry.token not in self._verified for entry in held):
            return None
        found = (self._verified[entry.token] for entry in held)
        return [opened for opened in found if opened is not None]

    def verify(self, service: AddressService) -> None:
        """Verify the snapshots of ``service`` that are not. With 10,000 names: a second, in a thread."""
        for held in list(service.lifecycle.snapshots.values()):
            if held.token in self._verified:
                continue
            try:
                self._verified[held.token] = open_snapshot(held.token, self.trust)
            except SnapshotError as exc:
                log.warning("learned.not_kept", reason=exc.reason.value)
                self._verified[held.token] = None

    def begin(self, service: AddressService, earlier: LearningPipeline | None = None) -> None:
        """Feed ``service`` from now on, in place of ``earlier``, which no longer runs."""
        self._verified.clear()
        embedded = self._embedded
        fetch, changed = (embedded.fetch, embedded.changed) if embedded is not None else (None, None)
        self.puller = SnapshotPuller(
            self._settings.learn, self.trust, service.lifecycle, service.accept, fetch=fetch, changed=changed
        )
        if earlier is not None and earlier.puller is not None:
            self.puller.take_over(earlier.puller)
        if embedded is not None:
            embedded.resume(held.snapshot for held in service.lifecycle.snapshots.values())

    async def refresh(self) -> list[PullResult]:
        """Pull from all sources now, and resolve again where an embedded helper does; return the results."""
        if self._embedded is not None:
            self._embedded.look_now()
        return await self.puller.refresh() if self.puller is not None else []

    async def run(self) -> None:
        """Learn until cancelled."""
        assert self.puller is not None  # noqa: S101 - `begin` comes first
        async with asyncio.TaskGroup() as tasks:
            if self._embedded is not None:
                tasks.create_task(supervise("embedded helpers", self._embedded.run))
            tasks.create_task(supervise("sources", self.puller.run))
