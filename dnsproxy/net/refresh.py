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
from contextlib import suppress
from dataclasses import replace

import structlog

from dnsproxy.core.book import Book
from dnsproxy.core.learned import Accepted, Rejected, Verdict, judge, judge_content
from dnsproxy.core.retry import next_delay
from dnsproxy.core.trust import Trust
from dnsproxy.errors import FetchError, Rejection, SnapshotError
from dnsproxy.net.fetch import MAX_WAIT, Fetched, Fetcher, Request, SourceStatus, public_url
from dnsproxy.net.statefile import StateWriter, read_state, set_aside, write_state
from dnsproxy.settings.learning import LearnSettings, Source

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds between attempts at a source that has failed for long, at the most.
MAX_BACKOFF = 300.0
# A source that was well within this many seconds is most likely being restarted: at most this many refreshes.
RECENT = 600.0
RECENT_LIMIT = 4.0
# Seconds before the first retry while no address is known, for until then clients get SERVFAIL.
COLD_RETRY = 2.0
# Seconds between two fetches from a source, however fast its serial changes.
MIN_PAUSE = 0.2
# Sources that end a wait for whatever is written, as when a helper has only looked: waited on again at once.
WATCHED = frozenset({"etcd", "kubernetes"})
# Names in one line of the log.
SHOWN = 20

Fetch = Callable[[Source, Request], Awaitable[Fetched]]
Changed = Callable[[Source], Awaitable[None]]


class Learner:
    """Owns the book; ``on_book`` is called with each new one.

    ``trust`` says which keys are believed, and about which names. ``wall`` gives
    Unix time; ``fetch`` and ``changed`` stand in for those of a `Fetcher`.
    ``disk_failure`` is why the state file cannot be written, as found at start.
    """

    def __init__(
        self,
        settings: LearnSettings,
        trust: Trust,
        on_book: Callable[[Book], None],
        *,
        wall: Callable[[], float] = time.time,
        fetch: Fetch | None = None,
        changed: Changed | None = None,
        disk_failure: str | None = None,
    ) -> None:
        self.book = Book()
        self.rejected: Counter[str] = Counter()
        self._settings = settings
        self._trust = trust
        self._on_book = on_book
        self._wall = wall
        self._fetcher = Fetcher()
        self._fetch = fetch or self._fetcher.fetch
        self._changed = changed or self._fetcher.changed
        self._statuses = {source.url: SourceStatus(public_url(source.url)) for source in settings.sources}
        self._etags: dict[str, str | None] = {}
        self._rejections: dict[str, tuple[Rejection, int | None]] = {}
        self._foreign: dict[str, frozenset[str]] = {}
        self._tokens: dict[tuple[str, int, int], str] = {}
        self._asked = 0
        self._polls: dict[str, asyncio.Timeout] = {}
        self._writer = StateWriter(settings.state_file, failure=disk_failure)

    @property
    def statuses(self) -> list[SourceStatus]:
        """The state of each source, as configured."""
        return list(self._statuses.values())

    @property
    def disk_failure(self) -> str | None:
        """Why the state file could not be written last; None when it could."""
        return self._writer.failure

    # -- start ----------------------------------------------------------------------

    def load(self) -> None:
        """Take up what is on disk. Never raises: what cannot be used is set aside."""
        path = self._settings.state_file
        try:
            tokens = read_state(path)
        except OSError as exc:
            # A traceback would say nothing more than the system's reason.
            log.error("learned.state_unreadable", file=str(path), reason=exc.strerror)  # noqa: TRY400
            return
        failed = 0
        for token in tokens:
            verdict = self._take_kept(token)
            if isinstance(verdict, Rejected):
                failed += 1
                log.warning("learned.state_rejected", reason=verdict.reason.value, detail=verdict.detail)
        if failed:
            set_aside(path, self._wall())
            try:
                write_state(path, self._needed_tokens())
            except OSError as exc:
                log.error("learned.state_write_failed", file=str(path), reason=exc.strerror)  # noqa: TRY400
        if self.book.entries:
            log.info("learned.loaded", names=len(self.book.entries), serial=self.book.serial)
            self._on_book(self.book)

    def take_over(self, earlier: Learner) -> None:
        """Go on from what ``earlier`` holds; it is checked as what is on disk is."""
        self.rejected = earlier.rejected
        for url in self._statuses.keys() & earlier._statuses.keys():
            self._statuses[url] = replace(earlier._statuses[url], serial=None)  # so that the whole is asked
        for token in earlier._needed_tokens():
            verdict = self._take_kept(token)
            if isinstance(verdict, Rejected):
                log.warning("learned.not_kept", reason=verdict.reason.value)
        self._writer.offer(self._needed_tokens(), urgent=True)

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
        """Have every source asked at once: ends pauses and long polls."""
        self._asked += 1
        polls, self._polls = self._polls, {}
        for poll in polls.values():
            poll.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Write what has not been written yet."""
        await self._writer.flush()

    async def _follow(self, source: Source) -> None:
        failures = 0
        may_wait = True
        while True:
            asked = self._asked
            started = time.monotonic()
            before, mark = self._statuses[source.url].serial, self._etags.get(source.url)
            good = await self._pull_safely(source, may_wait=may_wait)
            failures = 0 if good else failures + 1
            if failures:
                pause = self._backoff(source, failures)
            elif self._statuses[source.url].serial != before or (
                source.type in WATCHED and self._etags.get(source.url) != mark
            ):
                pause = min(MIN_PAUSE, self._settings.refresh)
            else:
                # A helper that was asked to wait has used the time up; other servers answer at once.
                pause = max(started + self._settings.refresh - time.monotonic(), MIN_PAUSE)
            if self._asked == asked:
                await self._pause(source, pause)
            may_wait = self._asked == asked

    def _backoff(self, source: Source, failures: int) -> float:
        refresh = self._settings.refresh
        success = self._statuses[source.url].last_success
        is_cold = not self.book.entries
        base = min(refresh, COLD_RETRY) if is_cold else refresh
        cap = max(refresh, MAX_BACKOFF)
        if is_cold or (success is not None and self._wall() - success < RECENT):
            cap = min(cap, refresh * RECENT_LIMIT)
        # Jitter spreads a fleet; it is no secret.
        return next_delay(failures, base, cap, random.random())  # noqa: S311

    async def _pause(self, source: Source, seconds: float) -> None:
        """Return after ``seconds``, when the source has changed, or when `refresh_now` is called."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds) as pause:
                self._polls[source.url] = pause
                await asyncio.sleep(MIN_PAUSE)
                await self._changed(source)
        self._polls.pop(source.url, None)

    async def _pull_safely(self, source: Source, *, may_wait: bool) -> bool:
        try:
            return await self._pull(source, may_wait=may_wait)
        except Exception:  # a mistake of ours in here must not end the answers to queries
            log.exception("learned.source_crashed", source=public_url(source.url))
            self._note_failure(source, "an error of this program; the log has it")
            return False

    async def _pull(self, source: Source, *, may_wait: bool = True) -> bool:
        """Fetch once and take what came; return whether the source is well."""
        status = self._statuses[source.url] = replace(self._statuses[source.url], last_attempt=self._wall())
        try:
            fetched = await self._fetch_or_wake(source, self._request(source, status, may_wait=may_wait))
        except FetchError as exc:
            if status.last_error is None:
                reason = str(exc).removeprefix(f"{status.url}: ")
                log.warning("learned.source_failed", source=status.url, reason=reason)
            self._note_failure(source, str(exc))
            return False
        if fetched is None:
            return True
        if fetched.token is not None:
            try:
                # In a thread: the largest documents take longer than a query should wait.
                snapshot, scope = await asyncio.to_thread(self._trust.open, fetched.token)
            except SnapshotError as exc:
                return self._note_rejection(source, Rejected(exc.reason, str(exc)), None)
            verdict = judge(self.book.latest.get(snapshot.issuer), snapshot, self._wall(), scope)
            if isinstance(verdict, Rejected):
                return self._note_rejection(source, verdict, snapshot.serial)
            if isinstance(verdict, Accepted):
                self._accept(fetched.token, verdict)
            self._etags[source.url] = fetched.etag
            status = replace(status, issuer=snapshot.issuer, serial=snapshot.serial)
        if status.last_error is not None:
            log.info("learned.source_recovered", source=status.url)
        self._rejections.pop(source.url, None)
        self._statuses[source.url] = replace(status, last_success=self._wall(), last_error=None)
        return True

    async def _fetch_or_wake(self, source: Source, request: Request) -> Fetched | None:
        """Return what the source has; None when `refresh_now` ended a long poll."""
        if not request.wait:
            return await self._fetch(source, request)
        try:
            async with asyncio.timeout(None) as poll:
                self._polls[source.url] = poll
                return await self._fetch(source, request)
        except TimeoutError:
            return None
        finally:
            self._polls.pop(source.url, None)

    def _request(self, source: Source, status: SourceStatus, *, may_wait: bool) -> Request:
        wait = 0.0
        known = status.serial is not None and status.last_error is None
        if may_wait and known and source.can_wait:
            wait = min(self._settings.refresh, MAX_WAIT)
        return Request(status.serial, self._etags.get(source.url), wait)

    def _note_failure(self, source: Source, reason: str) -> None:
        # The next request asks for the whole document: what was kept may be the cause.
        self._etags.pop(source.url, None)
        self._statuses[source.url] = replace(self._statuses[source.url], last_error=reason)

    def _note_rejection(self, source: Source, verdict: Rejected, serial: int | None) -> bool:
        reason = verdict.reason.value
        self.rejected[reason] += 1
        if self._rejections.get(source.url) != (verdict.reason, serial):
            self._rejections[source.url] = (verdict.reason, serial)
            log.warning(
                "learned.rejected",
                source=public_url(source.url),
                reason=reason,
                serial=serial,
                detail=verdict.detail,
            )
        self._note_failure(source, f"{reason}: {verdict.detail}")
        return False

    # -- one snapshot ---------------------------------------------------------------

    def _take_kept(self, token: str) -> Verdict:
        """Take a token of the state file, which was in time when it was first accepted."""
        try:
            snapshot, scope = self._trust.open(token)
        except SnapshotError as exc:
            return Rejected(exc.reason, str(exc))
        verdict = judge_content(self.book.latest.get(snapshot.issuer), snapshot, scope)
        if isinstance(verdict, Accepted):
            self._merge(token, verdict)
        return verdict

    def _accept(self, token: str, accepted: Accepted) -> None:
        """Put an accepted snapshot in force and have it kept on disk."""
        before, snapshot = self.book, accepted.snapshot
        self._merge(token, accepted)
        changes = self.book.changes_since(before)
        facts = {"issuer": snapshot.issuer, "serial": snapshot.serial}
        if changes:
            shown = [{"name": c.name, "old": list(c.old), "new": list(c.new)} for c in changes[:SHOWN]]
            log.info("learned.swapped", **facts, changed=len(changes), changes=shown)
        else:
            log.debug("learned.refreshed", **facts)
        if accepted.kept:
            log.warning("learned.kept", **facts, names=list(accepted.kept[:SHOWN]))
        self._writer.offer(self._needed_tokens(), urgent=bool(changes))
        self._on_book(self.book)

    def _merge(self, token: str, accepted: Accepted) -> None:
        snapshot = accepted.snapshot
        self.book = self.book.merged(snapshot)
        self._tokens[snapshot.identity] = token
        self._tokens = {needed.identity: self._tokens[needed.identity] for needed in self.book.snapshots()}
        foreign = frozenset(accepted.foreign)
        new = sorted(foreign - self._foreign.get(snapshot.issuer, frozenset()))
        self._foreign[snapshot.issuer] = foreign
        if new:
            log.warning("learned.foreign_names", issuer=snapshot.issuer, names=new[:SHOWN])

    def _needed_tokens(self) -> list[str]:
        return list(self._tokens.values())
