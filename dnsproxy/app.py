"""Puts the programs together: keys, learner, server, admin endpoint, signals, order of start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import asdict
from time import monotonic, time
from typing import TYPE_CHECKING

import structlog

from dnsproxy import logs
from dnsproxy.core import names
from dnsproxy.core.access import AccessList
from dnsproxy.core.book import Book
from dnsproxy.core.learned import Scope
from dnsproxy.core.registry import undiscovered
from dnsproxy.core.trend import Trend
from dnsproxy.errors import StartError
from dnsproxy.keys import read_trusted_keys
from dnsproxy.net.refresh import Learner
from dnsproxy.net.statefile import check_writable
from dnsproxy.server import Plane, Server, tune_collector
from dnsproxy.settings import Settings
from dnsproxy.version import __version__
from dnsproxy.vetting import Vetting
from dnsproxy.watching import open_watch

if TYPE_CHECKING:
    from dnsproxy.admin.app import AdminServer
    from dnsproxy.admin.status import Facts
    from dnsproxy.core.explain import Explanation
    from dnsproxy.embedded import EmbeddedHelpers

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds between two looks at the counters, for the charts of the last hour. One costs some 20 us.
SAMPLE_SECONDS = 2.0


class Proxy:
    """``dnsproxy serve`` as an object: `start`, `run` until told to stop, `close`.

    ``plane`` answers the queries, by default in this process.
    """

    def __init__(self, settings: Settings, plane: Plane | None = None) -> None:
        """Check everything that can be checked before a socket is opened.

        Raises:
            StartError: a key or ``learn.verify.ca_file`` cannot be read, ``learn.on_change`` cannot be
                run, the state folder cannot be written, or a source is this proxy itself.
        """
        self.settings = settings
        self.started_at = time()
        self.plane: Plane = plane or Server(settings, open_watch(settings))
        disk_failure = check_writable(settings.learn.state_file) if settings.learn.sources else None
        keys = read_trusted_keys(settings.learn.trusted_keys)
        self._embedded = self._embed()
        if self._embedded is not None:
            keys |= self._embedded.keys
        configured = frozenset(names.to_key(entry.name) for entry in settings.wanted())
        scope = Scope(configured, tuple(settings.sought()))
        # Learner → vetting → plane: what helpers say, what of it is answered, the answers.
        self.vetting = Vetting(settings, self._swap_book)
        fetch = self._embedded.fetch if self._embedded else None
        self.learner = Learner(
            settings.learn, keys, scope, self.vetting.take, fetch=fetch, disk_failure=disk_failure
        )
        self.draining = False
        self._trend = Trend()
        self._admin: AdminServer | None = None

    def _embed(self) -> EmbeddedHelpers | None:
        if not any(source.is_local for source in self.settings.learn.sources):
            return None
        # A proxy that only pulls has no need of dnslib's decoder and aiohttp at its start.
        from dnsproxy.embedded import EmbeddedHelpers  # noqa: PLC0415

        return EmbeddedHelpers(self.settings)

    def _swap_book(self, book: Book) -> None:
        self.plane.swap_book(book)

    # -- what the admin endpoint asks for (admin.app.Operated) ----------------

    async def gather(self) -> None:
        """Have the figures of `facts` brought up to date."""
        await self.plane.gather()

    def facts(self) -> Facts:
        """Return all that status and metrics are made from."""
        from dnsproxy.admin.status import Facts, SourceView  # noqa: PLC0415 - not needed to answer queries

        settings = self.settings
        traffic = self.plane.traffic()
        return Facts(
            wanted=self.vetting.wanted(),
            book=self.vetting.served,
            sources=[SourceView(**asdict(source)) for source in self.learner.statuses],
            rejected=self.learner.rejected,
            stats=traffic.stats,
            upstreams=traffic.upstreams,
            cache_entries=traffic.cache_entries,
            in_flight=traffic.in_flight,
            workers=traffic.workers,
            wall_now=time(),
            started_at=self.started_at,
            draining=self.draining,
            tasks=len(asyncio.all_tasks()),
            max_stale=settings.learn.max_stale,
            undiscovered=undiscovered(settings.sought(), self.learner.book.found()),
            vetted={entry.name: self.vetting.vetted(entry) for entry in self.vetting.wanted()},
            refused=self.vetting.screen.refused,
            orders=self.vetting.orders,
            recent=self._trend.recent(monotonic()),
            ttl=settings.learn.ttl,
            # Each worker may fill a cache of its own.
            cache_size=settings.cache.size * max(1, len(traffic.workers)),
            host=os.uname().nodename,
            state_file=str(settings.learn.state_file),
            disk_failure=self.learner.disk_failure or self.vetting.disk_failure,
            listen=[str(listen) for listen in (*settings.serve.listen, *settings.serve.tls.listen)],
        )

    @property
    def control(self) -> Vetting:
        """Who takes the operator's orders."""
        return self.vetting

    def refresh(self) -> None:
        """Pull from all sources now, and look again where the looking is done here."""
        if self._embedded is not None:
            self._embedded.look_now()
        self.learner.refresh_now()

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

    async def start(self) -> None:
        """Answer from the last known good, then open the admin endpoint.

        Raises:
            StartError: an address cannot be bound; nothing is left open.
        """
        self.vetting.load()
        self.learner.load()
        if self._embedded is not None:
            self._embedded.resume(self.learner.book)
        await self.plane.open()
        if self.settings.admin.listen is not None:
            # Imported now, not before: the DNS listeners answer that much sooner.
            from dnsproxy.admin.app import start_admin  # noqa: PLC0415

            try:
                self._admin = await start_admin(self.settings.admin, self.settings.admin.listen, self)
            except StartError:
                await self.plane.close()
                raise
        log.info(
            "proxy.started",
            version=__version__,
            listen=[str(listen) for listen in self.settings.serve.listen],
            tls=[str(listen) for listen in self.settings.serve.tls.listen],
            names=len(self.vetting.wanted()),
            serial=self.learner.book.serial,
        )
        tune_collector()

    async def run(self, stop: asyncio.Event) -> None:
        """Learn until ``stop`` is set, or until cancelled.

        Raises:
            WorkerError: nobody answers queries any more.
        """
        works = [asyncio.ensure_future(work) for work in (self._learn(), self.plane.run())]
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({*works, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*works, stopping):
                task.cancel()
            await asyncio.gather(*works, stopping, return_exceptions=True)
        for work in works:
            if not work.cancelled():
                work.result()

    async def _learn(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self._embedded is not None:
                tasks.create_task(self._embedded.run())
            tasks.create_task(self.learner.run())
            tasks.create_task(self.vetting.run())
            if self.settings.admin.listen is not None:
                tasks.create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            self._trend.record(monotonic(), self.plane.traffic().stats)
            await asyncio.sleep(SAMPLE_SECONDS)

    async def close(self) -> None:
        """Stop answering and keep what was learned."""
        self.draining = True
        if self._admin is not None:
            await self._admin.close()
        await self.plane.close()
        await self.learner.close()
        await self.vetting.close()
        log.info("proxy.stopped")


async def run_proxy(settings: Settings, plane: Plane | None = None) -> None:
    """Run ``dnsproxy serve`` until SIGTERM or SIGINT; ``plane`` answers queries, by default this process.

    Raises:
        StartError: the proxy cannot start.
        WorkerError: nobody answers queries any more.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    proxy = Proxy(settings, plane)
    await proxy.start()
    try:
        with logs.reporting():
            await proxy.run(stop)
    finally:
        await proxy.close()


async def run_helper(settings: Settings) -> None:
    """Run ``dnsproxy helper`` until SIGTERM or SIGINT.

    Raises:
        StartError: the helper cannot start.
    """
    from dnsproxy.helper.publish import serve_helper  # noqa: PLC0415 - the proxy does not need its HTTP server

    stop = asyncio.Event()
    stop_on_signals(stop)
    with logs.reporting():
        await serve_helper(settings, stop)


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set ``stop`` when the process is asked to end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
