"""How the addresses get here, by one configuration: keys, embedded helpers, learner, vetting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dnsproxy.core.book import Book
from dnsproxy.core.convergence import Convergence
from dnsproxy.core.trust import Trust
from dnsproxy.errors import StartError
from dnsproxy.net.refresh import Learner
from dnsproxy.net.statefile import check_writable
from dnsproxy.settings import Settings
from dnsproxy.supervise import attempt, supervise
from dnsproxy.transport.extras import missing_extras, needs_extra
from dnsproxy.trust import read_trust, with_own
from dnsproxy.vetting import Vetting

if TYPE_CHECKING:
    from dnsproxy.embedded import EmbeddedHelpers


class Learning:
    """Learner → vetting → ``outlet``: what helpers say, what of it is answered, the answers.

    Raises:
        StartError: keys or ``learn.verify.ca_file`` cannot be read, ``learn.on_change`` cannot be
            run, the state folder cannot be written, or a source is this proxy itself; with every reason.
    """

    def __init__(self, settings: Settings, outlet: Callable[[Book], None]) -> None:
        self._settings = settings
        self._outlet = outlet
        self.convergence = Convergence(time.time())
        complaints: list[str] = []
        trust: Trust | None = None
        disk_failure = None
        self._embedded: EmbeddedHelpers | None = None
        try:
            if settings.learn.sources:
                disk_failure = check_writable(settings.learn.state_file)
            self._embedded = self._embed()
        except StartError as exc:
            complaints += exc.reasons
        kinds = {source.type for source in settings.learn.sources}
        complaints += [f"learn.sources: type {needs_extra(kind)}" for kind in missing_extras(kinds)]
        try:
            trust = read_trust(settings)
        except StartError as exc:
            complaints += exc.reasons
        try:
            self.vetting = Vetting(settings, self._answer)
        except StartError as exc:
            complaints += exc.reasons
        if complaints or trust is None:
            raise StartError(*complaints)
        if self._embedded is not None:
            trust = with_own(trust, self._embedded.keys)
        fetch, changed = (self._embedded.fetch, self._embedded.changed) if self._embedded else (None, None)
        self.learner = Learner(
            settings.learn,
            trust,
            self.vetting.take,
            fetch=fetch,
            changed=changed,
            disk_failure=disk_failure,
        )

    def _embed(self) -> EmbeddedHelpers | None:
        if not any(source.is_local for source in self._settings.learn.sources):
            return None
        # A proxy that only pulls has no need of dnslib's decoder and aiohttp at its start.
        from dnsproxy.embedded import EmbeddedHelpers  # noqa: PLC0415

        return EmbeddedHelpers(self._settings)

    def _answer(self, book: Book) -> None:
        """Put ``book`` in force, and measure how long what has changed took to get here."""
        self._outlet(book)
        orders = self.vetting.orders
        held = {*orders.pins, *(orders.freeze.entries if orders.freeze else ())}
        self.convergence.pass_over(self.learner.book, held)
        self.convergence.record(book, time.time())

    def load(self) -> None:
        """Take up what is on disk. Never raises."""
        self.vetting.load()
        self.learner.load()
        self.convergence.pass_over(self.learner.book)
        if self._embedded is not None:
            self._embedded.resume(self.learner.book)

    def take_over(self, earlier: Learning) -> None:
        """Go on from what ``earlier`` knows, which runs no more."""
        self.convergence = earlier.convergence
        self.vetting.take_over(earlier.vetting)
        self.learner.take_over(earlier.learner)
        if self._embedded is not None:
            self._embedded.resume(self.learner.book)
        self.vetting.take(self.learner.book)

    def refresh(self) -> None:
        """Pull from all sources now, and look again where the looking is done here."""
        if self._embedded is not None:
            self._embedded.look_now()
        self.learner.refresh_now()

    async def run(self) -> None:
        """Learn until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._embedded is not None:
                tasks.create_task(supervise("embedded helpers", self._embedded.run))
            tasks.create_task(supervise("sources", self.learner.run))
            tasks.create_task(supervise("vetting", self.vetting.run))

    async def close(self) -> None:
        """Write what has not been written yet."""
        await attempt("state file", self.learner.close)
        await attempt("orders file", self.vetting.close)
