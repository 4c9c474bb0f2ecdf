"""The pull loop: fetch, verify, judge, merge, keep on disk, put in force.

A failure at any step leaves everything as it was, is counted under its name, and
is logged once per change rather than once per round.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from dnsproxy.core import seal
from dnsproxy.core.book import Book
from dnsproxy.core.learned import Accepted, Rejected, Scope, Snapshot, Verdict, judge, judge_content
from dnsproxy.core.retry import next_delay
from dnsproxy.errors import FetchError, SnapshotError
from dnsproxy.net.fetch import MAX_WAIT, Fetched, Fetcher, Request, can_wait, public_url
from dnsproxy.net.statefile import StateWriter, read_state, set_aside, write_state
from dnsproxy.settings import LearnSettings, SourceSettings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# A source that fails is asked again after refresh, 2 x refresh, at most 4 x refresh seconds.
BACKOFF_LIMIT = 4.0
# Seconds between two fetches from a source, however fast its serial changes.
MIN_PAUSE = 0.2

Fetch = Callable[[SourceSettings, Request], Awaitable[Fetched]]


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What is known of one source. Times are Unix seconds, None for never."""

    url: str
    last_attempt: float | None = None
    last_success: float | None = None
    last_error: str | None = None
    issuer: str | None = None
    serial: int | None = None


class Learner:
    """Owns the book; ``on_book`` is called with each new one.

    ``wall`` gives Unix time; ``fetch`` is for tests.
    """

    def __init__(
        self,
        settings: LearnSettings,
        trusted: seal.TrustedKeys,
        scope: Scope,
        on_book: Callable[[Book], None],
        *,
        wall: Callable[[], float] = time.time,
        fetch: Fetch | None = None,
    ) -> None:
        self.book = Book()
        self.rejected: Counter[str] = Counter()
        self._settings = settings
        self._trusted = trusted
        self._scope = scope
        self._on_book = on_book
        self._wall = wall
        self._fetcher = Fetcher()
        self._fetch = fetch or self._fetcher.fetch
        self._statuses = {source.url: SourceStatus(public_url(source.url)) for source in settings.sources}
        self._etags: dict[str, str | None] = {}
        self._tokens: dict[tuple[str, int, int], str] = {}
        self._wake = asyncio.Event()
        self._writer = StateWriter(settings.state_file)

    @property
    def statuses(self) -> list[SourceStatus]:
        """The state of each source, as configured."""
        return list(self._statuses.values())

    # -- start ----------------------------------------------------------------------

    def load(self) -> None:
        """Take up what is on disk. Never raises: what cannot be used is set aside."""
        path = self._settings.state_file
        try:
            tokens = read_state(path)
        except OSError as exc:
            # A traceback would say nothing more than the system's reason.
            log.error("learned.state_unreadable", path=str(path), reason=exc.strerror)  # noqa: TRY400
            return
        failed = 0
        for token in tokens:
            verdict = self._take(token, judge_content)
            if isinstance(verdict, Rejected):
                failed += 1
                log.warning("learned.state_rejected", reason=verdict.reason, detail=verdict.detail)
        if failed:
            aside = set_aside(path, self._wall())
            log.error("learned.state_set_aside", path=str(path), kept=str(aside), unusable=failed)
            try:
                write_state(path, self._needed_tokens())
            except OSError as exc:
                log.error("learned.state_write_failed", path=str(path), reason=exc.strerror)  # noqa: TRY400
        if self.book.entries:
            log.info("learned.loaded", names=len(self.book.entries), serial=self.book.serial)
            self._on_book(self.book)

    # -- while running --------------------------------------------------------------

    async def run(self) -> None:
        """Pull from every source until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._writer.run())
                for source in self._settings.sources:
                    tasks.create_task(self._follow(source))
        finally:
            await self._fetcher.close()

    def refresh_now(self) -> None:
        """End the pause of every source."""
        self._wake.set()
        self._wake = asyncio.Event()

    async def close(self) -> None:
        """Write what has not been written yet."""
        await self._writer.flush()

    async def _follow(self, source: SourceSettings) -> None:
        failures = 0
        refresh = self._settings.refresh
        while True:
            started = time.monotonic()
            before = self._statuses[source.url].serial
            good = await self._pull(source)
            failures = 0 if good else failures + 1
            if failures:
                # Jitter spreads a fleet; it is no secret.
                draw = random.random()  # noqa: S311
                pause = next_delay(failures, refresh, refresh * BACKOFF_LIMIT, draw)
            elif self._statuses[source.url].serial != before:
                pause = min(MIN_PAUSE, refresh)
            else:
                # A helper that was asked to wait has used the time up; other servers answer at once.
                pause = max(started + refresh - time.monotonic(), MIN_PAUSE)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _pull(self, source: SourceSettings) -> bool:
        """Fetch once and take what came; return whether the source is well."""
        status = self._statuses[source.url]
        now = self._wall()
        try:
            fetched = await self._fetch(source, self._request(source, status))
        except FetchError as exc:
            if status.last_error is None or status.last_attempt is None:
                log.warning("learned.source_failed", source=status.url, reason=str(exc))
            self._statuses[source.url] = replace(status, last_attempt=now, last_error=str(exc))
            return False
        if fetched.token is not None:
            verdict = self._take(fetched.token, self._judge_now)
            if isinstance(verdict, Rejected):
                # Not taken: the whole document is asked for again.
                self._etags.pop(source.url, None)
                self._note_rejection(source, verdict)
                return False
            self._etags[source.url] = fetched.etag
            status = self._noted(status, fetched.token)
        if status.last_error is not None:
            log.info("learned.source_recovered", source=status.url)
        now = self._wall()
        self._statuses[source.url] = replace(status, last_attempt=now, last_success=now, last_error=None)
        return True

    def _request(self, source: SourceSettings, status: SourceStatus) -> Request:
        wait = 0.0
        if status.serial is not None and status.last_error is None and can_wait(source.url):
            wait = min(self._settings.refresh, MAX_WAIT)
        return Request(status.serial, self._etags.get(source.url), wait)

    def _noted(self, status: SourceStatus, token: str) -> SourceStatus:
        issuer = next((key[0] for key, held in self._tokens.items() if held == token), status.issuer)
        latest = self.book.latest.get(issuer) if issuer else None
        return replace(status, issuer=issuer, serial=latest.serial if latest else status.serial)

    def _note_rejection(self, source: SourceSettings, verdict: Rejected) -> None:
        status = self._statuses[source.url]
        text = f"{verdict.reason}: {verdict.detail}"
        self.rejected[verdict.reason.value] += 1
        if status.last_error is None or not status.last_error.startswith(f"{verdict.reason}:"):
            log.warning(
                "learned.rejected", source=status.url, reason=verdict.reason.value, detail=verdict.detail
            )
        self._statuses[source.url] = replace(status, last_attempt=self._wall(), last_error=text)

    # -- one snapshot ---------------------------------------------------------------

    def _take(self, token: str, decide: Callable[[Snapshot | None, Snapshot, Scope], Verdict]) -> Verdict:
        """Verify and judge ``token``; when it is accepted, merge it and put it in force."""
        try:
            snapshot = seal.verify(token, self._trusted)
        except SnapshotError as exc:
            return Rejected(exc.reason, str(exc))
        verdict = decide(self.book.latest.get(snapshot.issuer), snapshot, self._scope)
        if isinstance(verdict, Accepted):
            self._accept(token, verdict)
        return verdict

    def _judge_now(self, current: Snapshot | None, candidate: Snapshot, scope: Scope) -> Verdict:
        return judge(current, candidate, self._wall(), scope)

    def _accept(self, token: str, accepted: Accepted) -> None:
        snapshot = accepted.snapshot
        before, self.book = self.book, self.book.merged(snapshot)
        self._tokens[snapshot.identity] = token
        needed = {needed.identity for needed in self.book.snapshots()}
        self._tokens = {key: held for key, held in self._tokens.items() if key in needed}
        if snapshot.issuer not in before.latest and accepted.foreign:
            log.warning("learned.foreign_names", issuer=snapshot.issuer, names=list(accepted.foreign)[:20])
        changes = self.book.changes_since(before)
        if changes:
            log.info(
                "learned.swapped",
                issuer=snapshot.issuer,
                serial=snapshot.serial,
                changes=[{"name": c.name, "old": list(c.old), "new": list(c.new)} for c in changes[:20]],
            )
        self._writer.offer(self._needed_tokens(), urgent=bool(changes))
        self._on_book(self.book)

    def _needed_tokens(self) -> list[str]:
        return [self._tokens[snapshot.identity] for snapshot in self.book.snapshots()]
