"""Pull snapshots from every source: fetch, verify, judge, hand over.

A failure at any step changes nothing, is counted under its name, and is logged once per change rather than
once per round.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog

from dnsproxy.core import seal
from dnsproxy.core.addresses.lifecycle import AddressLifecycle, OpenedSnapshot
from dnsproxy.core.learned import Accepted, Rejected, Snapshot, Verdict, judge
from dnsproxy.core.retry import next_delay
from dnsproxy.core.totals import PullResult
from dnsproxy.core.trust import Trust
from dnsproxy.errors import FetchError, Rejection, SnapshotError
from dnsproxy.net.fetch import MAX_WAIT, Fetched, Fetcher, Request, SourceStatus, public_url
from dnsproxy.settings.learning import LearnSettings, Source
from dnsproxy.supervise import supervise

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds between attempts at a source that has failed for long, at the most.
MAX_BACKOFF = 300.0
# A source that was well within this many seconds is most likely being restarted: at most this many refreshes.
RECENT = 600.0
RECENT_LIMIT = 4.0
# Seconds, up to three times as many, before each of the first retries when such a source cannot be reached: a
# restart takes some 15 s at the most. Later delays grow up to threefold.
QUICK_RETRY = 1.0
QUICK_RETRIES = 8
# Failures in a row for which the Retry-After of a source counts.
HINTED = 5
# Seconds within which every source has answered an operator's refresh, or is reported as one that has not.
REFRESH_DEADLINE = 15.0
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


def _ignore(_opened: OpenedSnapshot) -> None:
    """Take no snapshot."""


class SnapshotPuller:
    """Pulls by one configuration; ``accept`` is called with each snapshot that is accepted.

    ``trust`` has the keys that are trusted, and the names that each may speak for. ``wall`` gives Unix time;
    ``fetch`` and ``changed`` replace those of a `Fetcher`.
    """

    def __init__(
        self,
        settings: LearnSettings,
        trust: Trust,
        state: AddressLifecycle,
        accept: Callable[[OpenedSnapshot], None],
        *,
        wall: Callable[[], float] = time.time,
        fetch: Fetch | None = None,
        changed: Changed | None = None,
    ) -> None:
        self.rejected: Counter[str] = Counter()
        self._settings = settings
        self._trust = trust
        self._state = state
        self._accept = accept
        self._wall = wall
        self._fetcher = Fetcher(settings.source_address)
        self._fetch = fetch or self._fetcher.fetch
        self._changed = changed or self._fetcher.changed
        self._statuses = {source.url: SourceStatus(public_url(source.url)) for source in settings.sources}
        self._etags: dict[str, str | None] = {}
        self._rejections: dict[str, tuple[Rejection, int | None]] = {}
        self._foreign: dict[str, frozenset[str]] = {}
        self._asked = 0
        # Sources that could not be reached at the last pull, and their Retry-After.
        self._unreached: dict[str, float | None] = {}
        # Of each source the refresh that its last pull began after, and what that pull did.
        self._pulled: dict[str, tuple[int, PullResult]] = {}
        self._has_pulled = asyncio.Event()
        self._polls: dict[str, asyncio.Timeout] = {}

    @property
    def statuses(self) -> list[SourceStatus]:
        """The state of each source, as configured."""
        return list(self._statuses.values())

    def take_over(self, earlier: SnapshotPuller) -> None:
        """Continue with the counters and the status of sources of ``earlier``, which no longer runs."""
        self.rejected = earlier.rejected
        earlier._accept = _ignore  # a request that ends now was verified by the keys of that configuration
        for url in self._statuses.keys() & earlier._statuses.keys():
            self._statuses[url] = replace(earlier._statuses[url], serial=None)  # requests the whole snapshot

    # -- while running --------------------------------------------------------------

    async def run(self) -> None:
        """Pull from every source until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for source in self._settings.sources:
                    follow = partial(self._follow, source)
                    tasks.create_task(supervise("sources", follow, detail=public_url(source.url)))
        finally:
            await self._fetcher.close()

    def refresh_now(self) -> None:
        """Have every source asked at once: ends pauses and long polls."""
        self._asked += 1
        polls, self._polls = self._polls, {}
        for poll in polls.values():
            # One that has just ended by itself cannot be ended again.
            with suppress(RuntimeError):
                poll.reschedule(asyncio.get_running_loop().time())

    async def refresh(self) -> list[PullResult]:
        """Have every source asked at once; return what each of these pulls did, as configured."""
        self.refresh_now()
        asked = self._asked
        with suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_DEADLINE):
                while any(self._pulled.get(url, (0,))[0] < asked for url in self._statuses):
                    await self._has_pulled.wait()
        none = f"no whole answer within {REFRESH_DEADLINE:g} s"
        results = []
        for url, status in self._statuses.items():
            begun, result = self._pulled.get(url, (0, PullResult(status.url)))
            results.append(result if begun >= asked else PullResult(status.url, none))
        return results

    def _note_pull(self, source: Source, asked: int) -> None:
        """Record that a pull that began after refresh ``asked`` has ended."""
        status = self._statuses[source.url]
        error = status.last_error and status.last_error.removeprefix(f"{status.url}: ")
        held = self._state.snapshots.get(status.issuer or "")
        if error is None and source.is_local and held is not None:
            # A helper in this process has no log of its own where its resolver's failures would be seen.
            failed = [entry.name for entry in held.snapshot.names if entry.status != "ok"]
            more = f" and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
            error = f"not resolved: {', '.join(failed[:SHOWN])}{more}" if failed else None
        self._pulled[source.url] = asked, PullResult(status.url, error, status.issuer, status.serial)
        done, self._has_pulled = self._has_pulled, asyncio.Event()
        done.set()

    async def _follow(self, source: Source) -> None:
        failures = 0
        may_wait = True
        while True:
            asked = self._asked
            started = time.monotonic()
            before, mark = self._statuses[source.url].serial, self._etags.get(source.url)
            good = await self._pull_safely(source, may_wait=may_wait)
            self._note_pull(source, asked)
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
        is_cold = not self._state.names
        was_well = success is not None and self._wall() - success < RECENT
        base = min(refresh, COLD_RETRY) if is_cold else refresh
        cap = max(refresh, MAX_BACKOFF)
        if is_cold or was_well:
            cap = min(cap, refresh * RECENT_LIMIT)
        # Jitter spreads a fleet; it is no secret.
        draw = random.random()  # noqa: S311
        if source.url in self._unreached:
            hint = self._unreached[source.url]
            if hint is not None and failures <= HINTED:
                return min(cap, max(hint, QUICK_RETRY) * (1 + draw))
            if was_well:
                base, failures = min(base, QUICK_RETRY), max(1, failures - QUICK_RETRIES + 1)
        return next_delay(failures, base, cap, draw)

    async def _pause(self, source: Source, seconds: float) -> None:
        """Return after ``seconds``, when the source has changed, or when `refresh_now` is called."""
        try:
            async with asyncio.timeout(seconds) as pause:
                self._polls[source.url] = pause
                await asyncio.sleep(MIN_PAUSE)
                await self._changed(source)
        except TimeoutError:
            pass
        finally:
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
            self._unreached[source.url] = exc.retry_after
            return False
        self._unreached.pop(source.url, None)
        if fetched is None:
            return True
        if fetched.token is not None:
            try:
                judged = self._judge_held(fetched.token)
                if judged is None:
                    # In a thread: the largest documents take longer than a query should wait.
                    judged = await asyncio.to_thread(self._examine, fetched.token)
                snapshot, verdict = judged
            except SnapshotError as exc:
                return self._note_rejection(source, Rejected(exc.reason, str(exc)), None)
            if isinstance(verdict, Rejected):
                return self._note_rejection(source, verdict, snapshot.serial)
            if isinstance(verdict, Accepted):
                self._take(fetched.token, verdict)
            self._etags[source.url] = fetched.etag
            status = replace(status, issuer=snapshot.issuer, serial=snapshot.serial)
        if status.last_error is not None:
            log.info("learned.source_recovered", source=status.url)
        self._rejections.pop(source.url, None)
        self._statuses[source.url] = replace(status, last_success=self._wall(), last_error=None)
        return True

    def _judge_held(self, token: str) -> tuple[Snapshot, Verdict] | None:
        """Judge ``token`` if it is what was accepted last, and thus verified."""
        for opened in self._state.snapshots.values():
            if opened.token == token:
                held = opened.snapshot
                return held, judge(held, held, self._wall(), self._trust.scope)
        return None

    def _examine(self, token: str) -> tuple[Snapshot, Verdict]:
        """Verify and judge ``token``; raises `SnapshotError`."""
        snapshot, scope = self._trust.open(token)
        current = self._state.snapshots.get(snapshot.issuer)
        return snapshot, judge(current.snapshot if current else None, snapshot, self._wall(), scope)

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

    def _take(self, token: str, accepted: Accepted) -> None:
        """Hand an accepted snapshot over, unless another source was faster with one of its helper."""
        snapshot = accepted.snapshot
        latest = self._state.snapshots.get(snapshot.issuer)
        if latest is not None and latest.snapshot is not accepted.compared_with:
            return
        names = list(accepted.kept[:SHOWN])
        if names:
            log.warning("learned.kept", issuer=snapshot.issuer, serial=snapshot.serial, names=names)
        foreign = frozenset(accepted.foreign)
        new = sorted(foreign - self._foreign.get(snapshot.issuer, frozenset()))
        held = self._state.snapshots
        self._foreign = {issuer: names for issuer, names in self._foreign.items() if issuer in held}
        self._foreign[snapshot.issuer] = foreign
        if new:
            log.warning("learned.foreign_names", issuer=snapshot.issuer, names=new[:SHOWN])
        log.debug("learned.refreshed", issuer=snapshot.issuer, serial=snapshot.serial)
        self._accept(OpenedSnapshot(snapshot, seal.signer(token), token))
