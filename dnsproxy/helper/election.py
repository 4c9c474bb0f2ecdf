"""One helper of a group publishes, and the others know what: an office in etcd, held by a lease.

The office is a key beside that of the snapshot, bound to the lease of who holds it. Snapshots are put by a
transaction that looks whether the office is still the one that was won (its revision of creation): a leader
that was deposed without knowing it cannot overwrite what its successor has published.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Protocol

import structlog

from dnsproxy.core import seal
from dnsproxy.core.fields import MAX_LABEL
from dnsproxy.core.text import printable
from dnsproxy.errors import SnapshotError, StoreError
from dnsproxy.helper.issue import Published
from dnsproxy.helper.target_etcd import publish_reason
from dnsproxy.settings.etcd import EtcdTarget
from dnsproxy.supervise import supervise
from dnsproxy.transport.etcd import EtcdCluster
from dnsproxy.transport.etcd_follow import KeyFollower
from dnsproxy.transport.etcd_keys import KeyState, put, put_if_created_at, read_key, whole

# Seconds that a look at a key stays open for a change.
WAIT = 15.0
# Seconds after a failure of the whole cluster: somewhere between one and two of them.
PAUSE = 1.0
# Seconds to give the office back at the end.
RESIGNATION = 2.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Member(Protocol):
    """A helper, as the election sees it."""

    def adopt(self, published: Published) -> None:
        """Take what the group has published last."""

    def take_office(self, published: Published | None) -> None:
        """Publish from now on, going on from ``published``."""


class Election:
    """Keeps ``member`` in office or informed. ``issuer`` is the group's `helper.id`, ``trusted`` its keys.

    ``monotonic`` measures the lease.
    """

    def __init__(
        self,
        settings: EtcdTarget,
        issuer: str,
        trusted: seal.TrustedKeys,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = settings.name
        self._key = settings.key
        self._office = f"{settings.key}/leader"
        # No two processes have the same: who finds it in the office has won it.
        self._candidate = f"{socket.gethostname()}/{secrets.token_hex(8)}"
        self._seconds = settings.lease
        self._issuer = issuer
        self._trusted = trusted
        self._monotonic = monotonic
        self._cluster = EtcdCluster(settings)
        self._fence = 0
        self._valid_until = 0.0
        self.leader: str | None = None
        self._failures: dict[str, str] = {}

    @property
    def error(self) -> str | None:
        """Why the office cannot be stood for, or nothing be published or read, since when that is so."""
        return next(iter(self._failures.values()), None)

    @property
    def is_leader(self) -> bool:
        """Whether this helper is in office, as far as it knows."""
        return self._fence > 0 and self._monotonic() < self._valid_until

    # -- what is published ------------------------------------------------------------

    async def publish(self, published: Published) -> bool:
        """Put it in place of what is there; return whether: this helper may be out of office, or cut off."""
        fence = self._fence
        if not fence:
            return False
        try:
            request = put(self._key, published.token)
            done = await put_if_created_at(self._cluster, self._office, fence, request)
        except StoreError as exc:
            self._note_failure("publish", publish_reason(exc, published.token))
            return False
        self._recover("publish")
        if not done and self._fence == fence:
            self._fence = 0
        return done

    async def run(self, member: Member) -> None:
        """Stand for office and follow what is published until cancelled; then give the office back."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(supervise("election: published", partial(self._inform, member)))
                group.create_task(supervise("election: office", partial(self._stand, member)))
        finally:
            await self._cluster.close()

    async def _inform(self, member: Member) -> None:
        known: KeyState | None = None
        with closing(KeyFollower(self._cluster, self._key)) as follower:
            while True:
                try:
                    state = await follower.after(known, WAIT)
                except StoreError as exc:
                    await self._fail("inform", exc)
                    continue
                self._recover("inform")
                if known is None or not state.is_same(known):
                    published = self._read(state)
                    if published is not None:
                        member.adopt(published)
                known = state

    def _read(self, state: KeyState) -> Published | None:
        if state.value is None:
            return None
        token = state.value.decode("ascii", "replace").strip()
        try:
            snapshot = seal.verify(token, self._trusted)
        except SnapshotError as exc:
            log.warning("helper.restore_failed", file=self.name, reason=str(exc))
            return None
        if snapshot.issuer != self._issuer:
            log.warning("helper.restore_failed", file=self.name, reason=f"issued by {snapshot.issuer}")
            return None
        return Published(snapshot, token)

    # -- the office -------------------------------------------------------------------

    async def _stand(self, member: Member) -> None:
        known: KeyState | None = None
        with closing(KeyFollower(self._cluster, self._office)) as follower:
            while True:
                try:
                    known = await follower.after(known, WAIT)
                    self._recover("office")
                    if known.exists:
                        self._note_leader(
                            printable((known.value or b"").decode("utf-8", "replace"), MAX_LABEL)
                        )
                        continue
                    await self._win(member)
                    known = None
                except StoreError as exc:
                    known = None
                    await self._fail("office", exc)

    async def _win(self, member: Member) -> None:
        """Take the office, if no other helper was faster, and hold it until it is lost."""
        asked = self._monotonic()
        lease = whole(await self._cluster.call("/v3/lease/grant", {"TTL": str(int(self._seconds))}), "ID")
        try:
            await put_if_created_at(self._cluster, self._office, 0, put(self._office, self._candidate, lease))
            # The answer may have been lost and the request sent twice: what stands there is what counts.
            office = await read_key(self._cluster, self._office)
            if office.value != self._candidate.encode():
                return
            published = self._read(await read_key(self._cluster, self._key))
            self._fence, self._valid_until = office.create_revision, asked + self._seconds
            self._note_leader(self._candidate)
            member.take_office(published)
            await self._hold(lease)
        finally:
            self._fence = 0
            # Who is out of office publishes nothing, and cannot fail at it.
            self._failures.pop("publish", None)
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(RESIGNATION):
                    await self._cluster.call("/v3/lease/revoke", {"ID": str(lease)})

    async def _hold(self, lease: int) -> None:
        """Renew the lease three times in its time, until it cannot be or is gone."""
        while self.is_leader:
            await asyncio.sleep(min(self._seconds / 3, max(0.0, self._valid_until - self._monotonic())))
            asked = self._monotonic()
            try:
                answer = await self._cluster.call("/v3/lease/keepalive", {"ID": str(lease)})
            except StoreError as exc:
                self._note_failure("office", str(exc))
                continue
            # Without a time to live the lease is over, and the office with it.
            if whole(answer.get("result", {}), "TTL") <= 0:
                return
            self._recover("office")
            self._valid_until = asked + self._seconds

    def _note_leader(self, leader: str) -> None:
        if leader != self.leader:
            self.leader = leader
            log.info("helper.leader", leader=leader, own=leader == self._candidate)

    async def _fail(self, what: str, exc: StoreError) -> None:
        self._note_failure(what, str(exc))
        # It spreads the group; it is no secret.
        await asyncio.sleep(PAUSE * (1 + random.random()))  # noqa: S311

    def _note_failure(self, what: str, reason: str) -> None:
        # Apart for each thing that is asked: the lease may be well where the key cannot be written.
        if not self._failures:
            log.warning("helper.target_failed", target=self.name, reason=reason)
        self._failures[what] = reason

    def _recover(self, what: str) -> None:
        if self._failures.pop(what, None) is not None and not self._failures:
            log.info("helper.target_recovered", target=self.name)
