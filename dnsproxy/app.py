"""The proxy as one object: plane, learning, admin endpoint; how it starts, changes and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from importlib import import_module
from time import monotonic, time
from typing import TYPE_CHECKING

import structlog

from dnsproxy.address_service import AddressService
from dnsproxy.core.access import AccessList
from dnsproxy.core.addresses.lifecycle import OpenedSnapshot
from dnsproxy.core.totals import Outcome, PullResult, ReloadView
from dnsproxy.core.trend import Trend
from dnsproxy.errors import ReloadError, StartError
from dnsproxy.learning import LearningPipeline
from dnsproxy.net.doors import ADMIN, Door, Doorkeeper, proxy_doors
from dnsproxy.net.puller import SnapshotPuller
from dnsproxy.plane import Change, Plane, tune_interpreter
from dnsproxy.server import Server
from dnsproxy.settings import Settings
from dnsproxy.supervise import attempt, in_thread, supervise
from dnsproxy.transport.source_address import refusal
from dnsproxy.version import __version__
from dnsproxy.watching import open_watch

if TYPE_CHECKING:
    from dnsproxy.admin.app import AdminServer
    from dnsproxy.admin.status import Facts
    from dnsproxy.core.explain import Explanation

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds between two looks at the counters, for the charts of the last hour. One costs some 20 us.
SAMPLE_SECONDS = 2.0


class Proxy:
    """``dnsproxy serve`` as an object: `start`, `run` until told to stop, `close`.

    ``plane`` answers the queries, by default in this process; ``keeper`` has the sockets that are open
    already.
    """

    def __init__(
        self, settings: Settings, plane: Plane | None = None, keeper: Doorkeeper | None = None
    ) -> None:
        """Check everything that can be checked before a socket is opened.

        Raises:
            StartError: as `LearningPipeline` and `Server`.
        """
        self.settings = settings
        self.started_at = time()
        self.keeper = keeper or Doorkeeper()
        self.plane: Plane = plane or Server(settings, open_watch(settings), keeper=self.keeper)
        self._learning = LearningPipeline(settings)
        self.addresses = AddressService(self._learning.addresses, self.plane.swap_table, self.plane.update)
        self._renewed = asyncio.Event()
        self._restart = asyncio.Event()
        self.draining = False
        self.reloads = ReloadView(last_success=self.started_at)
        # Reads the file again; there is none where the settings came from elsewhere.
        self.reloader: Callable[[], Awaitable[Outcome]] | None = None
        self._trend = Trend()
        self._admin: AdminServer | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def puller(self) -> SnapshotPuller:
        """What pulls from the sources at this time."""
        assert self._learning.puller is not None  # noqa: S101 - `start` comes first
        return self._learning.puller

    # -- what the admin endpoint asks for (admin.app.Operated) ----------------

    async def gather(self) -> None:
        """Have the figures of `facts` brought up to date."""
        await self.plane.gather()

    def facts(self) -> Facts:
        """Return all that status and metrics are made from."""
        from dnsproxy.facts import facts_of  # noqa: PLC0415 - not needed to answer queries

        facts = facts_of(
            self.settings,
            self.addresses,
            self.puller,
            self.plane.traffic(),
            recent=self._trend.recent(monotonic()),
            started_at=self.started_at,
            draining=self.draining,
            reloads=self.reloads,
        )
        return replace(facts, sockets_missing=self.keeper.missing)

    async def refresh(self) -> list[PullResult]:
        """Pull from all sources now, and resolve again where this process resolves; return the results."""
        return await self._learning.refresh()

    async def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of a name, or all; return how many."""
        return await self.plane.flush(name_key)

    async def explain(self, key: bytes, qtype: int, client: bytes | None) -> Explanation:
        """Return the path that a query would take, without taking it; ``client`` is a packed address.

        Raises:
            WorkerError: no worker answers.
        """
        from dnsproxy.core.explain import Question  # noqa: PLC0415 - not needed to answer queries

        allowed = None if client is None else AccessList(self.settings.serve.allow).allows(client)
        return await self.plane.explain(Question(key, qtype, allowed, client))

    async def reload(self) -> Outcome:
        """Read the configuration again, and go by it if nothing is wrong with it."""
        if self.reloader is None:
            return Outcome(problems=("this proxy was not started from a file",))
        return await self.reloader()

    def restart_workers(self) -> str | None:
        """Have `renew_workers` begin; return why it cannot, if so."""
        if not self.plane.traffic().workers:
            return "serve.workers is 1: there are none"
        self._restart.set()
        return None

    async def renew_workers(self) -> None:
        """Replace every worker, one after another and without a query lost, when asked; until cancelled."""
        while True:
            await self._restart.wait()
            self._restart.clear()
            failure = await self.plane.restart_workers()
            if failure is not None:
                log.warning("workers.not_restarted", reason=failure)

    # -- start -------------------------------------------------------------------------

    async def start(self) -> None:
        """Answer from the last known good, then open the admin endpoint.

        Raises:
            StartError: an address cannot be bound; nothing is left open.
        """
        self.keeper.open(proxy_doors(self.settings))
        self.addresses.load(self._learning.trust, self._learning.disk_failure)
        self._learning.begin(self.addresses)
        try:
            await self.plane.open()
            self._admin = await self._open_admin(self.settings)
        except StartError:
            await self.plane.close()
            raise
        log.info(
            "proxy.started",
            version=__version__,
            listen=[str(listen) for listen in self.settings.serve.listen],
            tls=[str(listen) for listen in self.settings.serve.tls.listen],
            names=len(self.addresses.lifecycle.managed()),
            serial=self.addresses.lifecycle.serial,
        )
        _report_source(self.settings)
        tune_interpreter()

    async def _open_admin(self, settings: Settings) -> AdminServer | None:
        listen = settings.admin.listen
        if listen is None:
            return None
        # Imported now, not before, and beside the loop: the DNS listeners answer that much sooner.
        await in_thread(import_module, "dnsproxy.admin.app")
        from dnsproxy.admin.app import start_admin  # noqa: PLC0415

        sock = self.keeper.one(Door(ADMIN, listen.host, listen.port))
        return await start_admin(settings.admin, listen, self, sock=sock)

    # -- while it runs -----------------------------------------------------------------

    async def run(
        self,
        stop: asyncio.Event,
        grace: Callable[[], Awaitable[None]] | None = None,
        besides: Mapping[str, Callable[[], Awaitable[object]]] | None = None,
    ) -> None:
        """Learn, and do ``besides``, until ``stop`` is set and ``grace`` has passed, or until cancelled.

        All of it but the answering itself is supervised: what fails is started again (see `supervise`).

        Raises:
            WorkerError: no process answers queries any more.
        """
        works = {"proxy": self._learn, "addresses": self.addresses.run, **(besides or {})}
        background = [asyncio.ensure_future(supervise(name, work)) for name, work in works.items()]
        answering = asyncio.ensure_future(self.plane.run())
        ending = asyncio.ensure_future(self._until(stop, grace))
        try:
            await asyncio.wait({answering, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*background, answering, ending):
                task.cancel()
            await asyncio.gather(*background, answering, ending, return_exceptions=True)
        if not answering.cancelled():
            answering.result()

    async def _until(self, stop: asyncio.Event, grace: Callable[[], Awaitable[None]] | None) -> None:
        await stop.wait()
        self.draining = True
        if grace is not None:
            await grace()

    async def _learn(self) -> None:
        """Learn by one configuration after another."""
        async with asyncio.TaskGroup() as tasks:
            if self.settings.admin.listen is not None:
                tasks.create_task(supervise("sampling", self._sample))
            while True:
                self._renewed.clear()
                current = self._learning
                running = tasks.create_task(supervise("learning", current.run))
                await self._renewed.wait()
                running.cancel()
                await asyncio.wait([running])
                del current, running

    def status(self) -> str:
        """Return in one line how it goes, for the service manager."""
        lifecycle = self.addresses.lifecycle
        wanted = lifecycle.managed()
        have = sum(bool(entry.addresses) or lifecycle.served(entry.name) is not None for entry in wanted)
        state = "draining" if self.draining else "answering"
        return f"{state}; {have} of {len(wanted)} names have addresses"

    # -- another configuration ---------------------------------------------------------

    async def change(self, settings: Settings) -> None:
        """Go by ``settings`` from now on; no query is lost.

        Raises:
            ReloadError: with every reason; everything is as it was.
        """
        problems: list[str] = []
        prepared: Change | None = None
        learning: LearningPipeline | None = None
        admin: AdminServer | None = None
        try:
            self.keeper.open(proxy_doors(settings))
        except StartError as exc:
            problems += exc.reasons
        try:
            # In a thread: 10,000 names take a while, and queries are answered meanwhile.
            learning = await in_thread(LearningPipeline, settings, self._learning)
        except StartError as exc:
            problems += exc.reasons
        try:
            prepared = await self.plane.prepare(settings)
            if not problems and settings.admin != self.settings.admin:
                admin = await self._open_admin(settings)
        except StartError as exc:
            problems += exc.reasons
        if problems or prepared is None or learning is None:
            self.keeper.keep(proxy_doors(self.settings))
            raise ReloadError(problems)
        is_same = learning.trust == self._learning.trust
        if not is_same:
            await in_thread(learning.verify, self.addresses)
        await prepared.commit()
        opened: list[OpenedSnapshot] | None = None
        while not is_same and (opened := learning.reopen(self.addresses)) is None:
            await in_thread(learning.verify, self.addresses)  # accepted since
        before, self.settings = self.settings, settings
        earlier, self._learning = self._learning, learning
        self.addresses.configure(learning.addresses, opened)
        learning.begin(self.addresses, earlier)
        self._renewed.set()
        if settings.admin != before.admin:
            self._replace_admin(admin)
        self.keeper.keep(proxy_doors(settings))
        if settings.forward.source != before.forward.source:
            _report_source(settings)

    def _replace_admin(self, admin: AdminServer | None) -> None:
        before, self._admin = self._admin, admin
        if before is not None:
            # Not waited for: it may be what has asked for this, and waits for an answer.
            task = asyncio.ensure_future(before.close())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _sample(self) -> None:
        while True:
            self._trend.record(monotonic(), self.plane.traffic().stats)
            await asyncio.sleep(SAMPLE_SECONDS)

    # -- the end ---------------------------------------------------------------------------

    async def close(self) -> None:
        """Answer what has come until now, stop answering, and keep what was learned."""
        self.draining = True
        await attempt("end of answers", self.plane.finish)
        if self._admin is not None:
            await attempt("end of the admin endpoint", self._admin.close)
        await asyncio.gather(*self._leaving, return_exceptions=True)
        self.keeper.close()
        await self.addresses.close()
        log.info("proxy.stopped")


def _report_source(settings: Settings) -> None:
    """Log that `forward.source` cannot be used. It may come later, as by DHCP: this is no reason to end."""
    source = settings.forward.source
    reason = None if source is None else refusal(source)
    if reason is not None:
        log.warning("upstream.source_unusable", source=str(source), reason=reason)
