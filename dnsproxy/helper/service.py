"""The helper's loop: look at every name, sign what was seen, tell those who wait.

`Helper` holds no socket; `publish` puts it behind HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.core.registry import Found, Wanted, with_found
from dnsproxy.core.ruling import with_refusals
from dnsproxy.errors import SnapshotError
from dnsproxy.files import write_atomically
from dnsproxy.helper.issue import Published, next_snapshot, order
from dnsproxy.helper.journal import Journal
from dnsproxy.helper.jury import Jury
from dnsproxy.helper.observe import Look, observe
from dnsproxy.helper.outlets import Outlets
from dnsproxy.helper.seek import Seeker
from dnsproxy.supervise import note_failure, supervise

# Seconds between two rounds at the least, however small the TTLs (or the interval, when that is less).
MIN_ROUND = 5.0
# Names asked about at once. Each takes two sockets per resolver.
CONCURRENCY = 32

if TYPE_CHECKING:
    from dnsproxy.helper.election import Election

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

LookAt = Callable[[Wanted], Awaitable[Sequence[Look]]]


class Helper:
    """Keeps the current snapshot of the names in ``wanted`` and of those that ``seeker`` finds.

    ``look`` asks the resolvers; ``interval`` is in seconds, between rounds at
    the most; ``wall`` gives Unix time and ``monotonic`` measures rounds. Pinned
    names (those with addresses) are left to the proxies.
    """

    def __init__(  # noqa: PLR0913 - all but four are given by name
        self,
        issuer: str,
        wanted: Sequence[Wanted],
        look: LookAt,
        key: Ed25519PrivateKey,
        *,
        interval: float,
        publish_file: Path | None = None,
        outlets: Outlets | None = None,
        election: Election | None = None,
        trusted: seal.TrustedKeys | None = None,
        seeker: Seeker | None = None,
        jury: Jury | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.current: Published | None = None
        self._configured = tuple(wanted)
        self._seeker = seeker
        self.jury = jury
        self._issuer = issuer
        self._look = look
        self._key = key
        self._interval = interval
        self._file = publish_file
        self.outlets = outlets or Outlets(())
        self.election = election
        self._trusted = {seal.key_id(key.public_key()): key.public_key(), **(trusted or {})}
        self._wall = wall
        self._monotonic = monotonic
        self._last: Snapshot | None = None
        # The next snapshot is the first of this helper, or of its term of office.
        self._begins = True
        self._journal = Journal()
        self._bad_rounds = 0
        self._changed = asyncio.Event()
        self._released = False
        self._hurry = asyncio.Event()
        self._rounds_begun = self._rounds_ended = 0
        self._round_ended = asyncio.Event()

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """The names to look at: those configured and those found so far, without the pinned ones."""
        return tuple(entry for entry in with_found(self._configured, self._found()) if not entry.addresses)

    @property
    def failing(self) -> bool:
        """Whether a registry did not tell what it was asked for the last time."""
        return bool(self._seeker and self._seeker.findings.failing)

    def _found(self) -> tuple[Found, ...]:
        return self._seeker.findings.found() if self._seeker else ()

    async def run(self) -> None:
        """Restore what was published before, then look again and again until cancelled."""
        await self.restore()
        async with asyncio.TaskGroup() as group:
            group.create_task(supervise("publishing", self.outlets.run))
            if self.election is not None:
                group.create_task(supervise("election", partial(self.election.run, self)))
            if self._seeker is not None:
                group.create_task(supervise("discovery", partial(self._seeker.run, self.look_now)))
            if self.jury is not None:
                group.create_task(supervise("canary votes", partial(self.jury.run, self.look_now)))
            group.create_task(supervise("rounds", self._look_again))

    async def _look_again(self) -> None:
        while True:
            started = self._monotonic()
            self._hurry.clear()
            self._rounds_begun += 1
            await self.round()
            self._rounds_ended = self._rounds_begun
            done, self._round_ended = self._round_ended, asyncio.Event()
            done.set()
            # A TTL counts from when it was seen, so the time a slow round took is part of it.
            await self._pause(max(0.0, started + self.delay() - self._monotonic()))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    def look_now(self) -> None:
        """Start the next round at once."""
        self._hurry.set()

    async def restore(self) -> None:
        """Take serial and addresses from what was published last, if this helper or its group signed it."""
        published = await self.outlets.read()
        if self._file is not None:
            try:
                text = await asyncio.to_thread(self._file.read_text, encoding="ascii", errors="replace")
                published.append((str(self._file), text))
            except FileNotFoundError:
                pass
            except OSError as exc:
                log.warning("helper.restore_failed", file=str(self._file), reason=str(exc))
        found = [snapshot for place, token in published if (snapshot := self._own(place, token)) is not None]
        latest = max(found, key=order, default=None)
        # After a reload it has what it published, which no file has later.
        if latest is not None and (self._last is None or order(self._last) < order(latest)):
            self.resume(latest)
            log.info("helper.restored", serial=latest.serial, names=len(latest.names))

    def _own(self, place: str, token: str) -> Snapshot | None:
        try:
            snapshot = seal.verify(token.strip(), self._trusted)
        except SnapshotError as exc:
            log.warning("helper.restore_failed", file=place, reason=str(exc))
            return None
        if snapshot.issuer != self._issuer:
            log.warning("helper.restore_failed", file=place, reason=f"issued by {snapshot.issuer}")
            return None
        return snapshot

    def resume(self, snapshot: Snapshot) -> None:
        """Go on from ``snapshot``, which this helper or its group has issued before."""
        self._last = snapshot
        if self._seeker is not None:
            self._seeker.findings.restore(snapshot.found)
        if self.jury is not None:
            self.jury.ruling.restore(snapshot.names, self._wall())

    def take_over(self, earlier: Helper) -> None:
        """Continue in place of ``earlier``, which other settings made, with what it has published."""
        if earlier.current is not None:
            self._give(earlier.current)
        if earlier._last is not None and earlier._issuer == self._issuer:
            self.resume(earlier._last)
            self._begins = earlier._begins

    def adopt(self, published: Published) -> None:
        """Give what another helper of the group has published, and go on from it."""
        held, offered = self.current, published.snapshot
        if held is None or order(held.snapshot) < order(offered):
            if not self._publishes:
                # What a target has not taken yet is out of date, and the leader writes there now.
                self.outlets.withdraw()
            self.resume(offered)
            self._give(published)

    def take_office(self, published: Published | None) -> None:
        """Publish from now on, beginning with a look at once, and go on from ``published``."""
        if published is not None:
            self.adopt(published)
        self._begins = True
        self.look_now()

    @property
    def _publishes(self) -> bool:
        return self.election is None or self.election.is_leader

    async def round(self) -> Snapshot:
        """Look at every name once and publish what was seen, if that is for this helper to do."""
        names = self.wanted
        looks = await self._look_everywhere(names)
        wall_now = self._wall()
        if self._seeker is not None:
            self._seeker.findings.bring_back(wall_now)
        found = self._found()
        before = {entry.name: entry for entry in self._last.names} if self._last else {}
        entries = tuple(
            observe(before.get(wanted.name), wanted, seen, wall_now, seen_at)
            for wanted, (seen, seen_at) in zip(names, looks, strict=True)
        )
        if self.jury is not None:
            entries = with_refusals(entries, self.jury.refused())
        snapshot = next_snapshot(self._last, self._issuer, entries, wall_now, found, restarted=self._begins)
        done = True
        if self._publishes:
            self._journal.record(before, entries, [seen for seen, _ in looks], snapshot.serial)
            done = await self._publish(snapshot)
        good = done and all(entry.status == "ok" for entry in entries)
        self._bad_rounds = 0 if good else self._bad_rounds + 1
        return snapshot

    async def _look_everywhere(self, names: Sequence[Wanted]) -> list[tuple[Sequence[Look], float]]:
        """Return what was seen of each name, and when (Unix seconds)."""
        gate = asyncio.Semaphore(CONCURRENCY)

        async def look_gated(wanted: Wanted) -> tuple[Sequence[Look], float]:
            async with gate:
                try:
                    return await self._look(wanted), self._wall()
                except Exception as exc:  # noqa: BLE001 - the other names are looked at all the same
                    note_failure("look", exc, detail=wanted.name)
                    return (), self._wall()

        # A wildcard and its parent ask for the same name: one look gives both the same addresses.
        distinct = {wanted.ask: wanted for wanted in names}
        async with asyncio.TaskGroup() as group:
            tasks = {ask: group.create_task(look_gated(wanted)) for ask, wanted in distinct.items()}
        return [tasks[wanted.ask].result() for wanted in names]

    def delay(self) -> float:
        """Seconds from the start of the last round to the next.

        The smallest TTL, within `MIN_ROUND` and the interval; after a failure
        `MIN_ROUND`, doubled with each further bad round.
        """
        entries = self._last.names if self._last else ()
        wanted = [float(entry.ttl) for entry in entries if entry.status == "ok"]
        if self._bad_rounds:
            wanted.append(MIN_ROUND * 2.0 ** min(self._bad_rounds - 1, 16))
        return min(self._interval, max(MIN_ROUND, min(wanted, default=self._interval)))

    @property
    def next_round(self) -> int:
        """The number of the round that begins next."""
        return self._rounds_begun + 1

    async def wait_round(self, number: int) -> None:
        """Return when round ``number`` or a later one has ended. Bound it with a timeout."""
        while self._rounds_ended < number:
            await self._round_ended.wait()

    async def wait_first(self) -> None:
        """Return when there is a snapshot, or after `release`. Bound it with a timeout."""
        while not self._released and self.current is None:
            await self._changed.wait()

    async def wait_beyond(self, serial: int) -> None:
        """Return when the current serial is not ``serial``, or after `release`. Bound it with a timeout."""
        while not self._released and self.current is not None and self.current.snapshot.serial == serial:
            await self._changed.wait()

    def release(self) -> None:
        """Let all who wait go, now and later: the program is about to stop."""
        self._released = True
        self._changed.set()

    async def _publish(self, snapshot: Snapshot) -> bool:
        published = Published(snapshot, seal.sign(snapshot, self._key))
        if self.election is not None and not await self.election.publish(published):
            return False
        held = None if self.current is None else self.current.snapshot
        if held is not None and held.issuer == snapshot.issuer and order(held) > order(snapshot):
            # The answer came so late that a successor has published meanwhile, and that was adopted.
            return True
        self._last = snapshot
        self._begins = False
        self._give(published)
        self.outlets.offer(published.token, snapshot.serial)
        if self._file is not None:
            await self._write(self._file, published.token)
        return True

    def _give(self, published: Published) -> None:
        changed = self.current is None or self.current.snapshot.serial != published.snapshot.serial
        self.current = published
        if changed:
            self._changed.set()
            if not self._released:
                self._changed = asyncio.Event()

    async def _write(self, path: Path, token: str) -> None:
        try:
            await asyncio.to_thread(write_atomically, path, token.encode("ascii"), 0o644)
        except OSError as exc:
            self._journal.record_write(path, exc.strerror or str(exc))
        else:
            self._journal.record_write(path, None)
