"""Puts the programs together: keys, learner, server, admin endpoint, signals, order of start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from dataclasses import asdict
from time import monotonic, time
from typing import TYPE_CHECKING

import structlog

from dnsproxy.core import names
from dnsproxy.core.access import AccessList
from dnsproxy.core.book import Book
from dnsproxy.core.learned import Scope
from dnsproxy.core.registry import undiscovered
from dnsproxy.errors import StartError
from dnsproxy.keys import read_trusted_keys
from dnsproxy.net.refresh import Learner
from dnsproxy.net.statefile import check_writable
from dnsproxy.server import Server
from dnsproxy.settings import Settings
from dnsproxy.version import __version__
from dnsproxy.vetting import Vetting

if TYPE_CHECKING:
    from dnsproxy.admin.app import AdminServer
    from dnsproxy.admin.status import Facts
    from dnsproxy.core.explain import Explanation
    from dnsproxy.embedded import EmbeddedHelpers

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# The query path makes no reference cycles, so the collector has little to find: with Python's
# own thresholds (700, 10, 10) it costs 4 us per forwarded query, with these under 1 us.
GC_THRESHOLDS = (20_000, 50, 50)


class Proxy:
    """``dnsproxy serve`` as an object: `start`, `run` until told to stop, `close`."""

    def __init__(self, settings: Settings) -> None:
        """Check everything that can be checked before a socket is opened.

        Raises:
            StartError: a key or ``learn.verify.ca_file`` cannot be read, ``learn.on_change`` cannot be
                run, the state folder cannot be written, or a source is this proxy itself.
        """
        self.settings = settings
        self.started_at = time()
        self.server = Server(settings)
        if settings.learn.sources:
            check_writable(settings.learn.state_file)
        keys = read_trusted_keys(settings.learn.trusted_keys)
        self._embedded = self._embed()
        if self._embedded is not None:
            keys |= self._embedded.keys
        configured = frozenset(names.to_key(entry.name) for entry in settings.wanted())
        scope = Scope(configured, tuple(settings.sought()))
        # Learner → vetting → server: what helpers say, what of it is answered, the answers.
        self.vetting = Vetting(settings, self._swap_book)
        fetch = self._embedded.fetch if self._embedded else None
        self.learner = Learner(settings.learn, keys, scope, self.vetting.take, fetch=fetch)
        self.draining = False
        self._admin: AdminServer | None = None

    def _embed(self) -> EmbeddedHelpers | None:
        if not any(source.is_local for source in self.settings.learn.sources):
            return None
        # A proxy that only pulls has no need of dnslib's decoder and aiohttp at its start.
        from dnsproxy.embedded import EmbeddedHelpers  # noqa: PLC0415

        return EmbeddedHelpers(self.settings)

    def _swap_book(self, book: Book) -> None:
        self.server.swap_book(book)

    # -- what the admin endpoint asks for (admin.app.Operated) ----------------

    def facts(self) -> Facts:
        """Return all that status and metrics are made from."""
        from dnsproxy.admin.status import Facts, SourceView  # noqa: PLC0415 - not needed to answer queries

        engine = self.server.engine
        return Facts(
            wanted=self.vetting.wanted(),
            book=self.vetting.served,
            sources=[SourceView(**asdict(source)) for source in self.learner.statuses],
            rejected=self.learner.rejected,
            stats=engine.stats_now(),
            upstreams={upstream.name: upstream.stats for upstream in engine.upstreams()},
            cache_entries=len(engine.cache),
            in_flight=engine.in_flight,
            wall_now=time(),
            started_at=self.started_at,
            draining=self.draining,
            max_stale=self.settings.learn.max_stale,
            undiscovered=undiscovered(self.settings.sought(), self.learner.book.found()),
            vetted={entry.name: self.vetting.vetted(entry) for entry in self.vetting.wanted()},
            refused=self.vetting.screen.refused,
            orders=self.vetting.orders,
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

    def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of a name, or all; return how many."""
        return self.server.engine.flush(name_key)

    def explain(self, key: bytes, qtype: int, client: bytes | None) -> Explanation:
        """Return the path that a query would take, without taking it; ``client`` is a packed address."""
        from dnsproxy.core.explain import Question, explain  # noqa: PLC0415 - not needed to answer queries

        allowed = None if client is None else AccessList(self.settings.serve.allow).allows(client)
        return explain(self.server.engine, Question(key, qtype, allowed), monotonic())

    async def start(self) -> None:
        """Answer from the last known good, then open the admin endpoint.

        Raises:
            StartError: an address cannot be bound; nothing is left open.
        """
        self.vetting.load()
        self.learner.load()
        if self._embedded is not None:
            self._embedded.resume(self.learner.book)
        await self.server.open()
        if self.settings.admin.listen is not None:
            # Imported now, not before: the DNS listeners answer that much sooner.
            from dnsproxy.admin.app import start_admin  # noqa: PLC0415

            try:
                self._admin = await start_admin(self.settings.admin, self.settings.admin.listen, self)
            except StartError:
                await self.server.close()
                raise
        log.info(
            "proxy.started",
            version=__version__,
            listen=[str(listen) for listen in self.settings.serve.listen],
            names=len(self.vetting.wanted()),
            serial=self.learner.book.serial,
        )
        # What start-up made stays; the collector need not walk it again (saves 10 ms per full collection).
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    async def run(self, stop: asyncio.Event) -> None:
        """Learn until ``stop`` is set, or until cancelled."""
        learning = asyncio.ensure_future(self._learn())
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({learning, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            learning.cancel()
            stopping.cancel()
            await asyncio.gather(learning, stopping, return_exceptions=True)
        if not learning.cancelled():
            learning.result()

    async def _learn(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self._embedded is not None:
                tasks.create_task(self._embedded.run())
            tasks.create_task(self.learner.run())
            tasks.create_task(self.vetting.run())

    async def close(self) -> None:
        """Stop answering and keep what was learned."""
        self.draining = True
        if self._admin is not None:
            await self._admin.close()
        await self.server.close()
        await self.learner.close()
        await self.vetting.close()
        log.info("proxy.stopped")


async def run_proxy(settings: Settings) -> None:
    """Run ``dnsproxy serve`` until SIGTERM or SIGINT.

    Raises:
        StartError: the proxy cannot start.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    proxy = Proxy(settings)
    await proxy.start()
    try:
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
    await serve_helper(settings, stop)


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set ``stop`` when the process is asked to end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
