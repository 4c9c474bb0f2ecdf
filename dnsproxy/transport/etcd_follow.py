"""Follow one key of an etcd cluster over all that may happen to its members.

The watch tells of a change at once. A read of the same key, by the majority of the cluster, at the end of
each wait makes sure that the watch is not half dead: of a member that is cut off, or over a connection that
has gone without a word.
"""

from __future__ import annotations

import asyncio
import random

from dnsproxy.errors import StoreError
from dnsproxy.transport.etcd import EtcdCluster
from dnsproxy.transport.etcd_keys import KeyState, Watch, read_key

# Seconds before a watch that has ended is opened anew: at first, and at the most.
FIRST_PAUSE = 0.1
MAX_PAUSE = 2.0


class KeyFollower:
    """Tells the states of ``key``, one after another. States that others follow at once are passed over."""

    def __init__(self, cluster: EtcdCluster, key: str) -> None:
        self._cluster = cluster
        self._key = key
        self._watch: Watch | None = None

    async def after(self, known: KeyState | None, seconds: float) -> KeyState:
        """Return the state that follows ``known``, or ``known`` itself when none does for so many seconds.

        Failures of members and connections are overcome until the time is over. May be cancelled.

        Raises:
            StoreError: it cannot be told whether ``known`` is still right.
        """
        if known is None:
            return await read_key(self._cluster, self._key)
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        failures = 0
        while True:
            try:
                state = await self._change(known, max(0.0, end - loop.time()))
            except StoreError:
                self.close()
                failures += 1
                # All that watched one member come back together else. It is no secret.
                pause = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10)) * (0.5 + random.random())  # noqa: S311
                if loop.time() + pause >= end:
                    raise
                await asyncio.sleep(pause)
                continue
            if not state.is_same(known):
                return state
            if loop.time() >= end:
                return known

    async def _change(self, known: KeyState, seconds: float) -> KeyState:
        """Return what a look or the watch shows; ``known`` when that is nothing new."""
        if self._watch is None:
            state = await self._look(known)
            self._watch = await self._open(state.revision + 1)
            return state
        try:
            async with asyncio.timeout(seconds):
                state = await self._watch.next()
        except TimeoutError:
            state = await self._look(known)
            if not state.is_same(known) or self._watch.member != self._cluster.member:
                self.close()  # it should have told, or its member cannot be had
            return state
        # Of a change that a look has shown before.
        return state if state.changed_at > known.changed_at else known

    async def _open(self, revision: int) -> Watch:
        member = self._cluster.member
        try:
            return await Watch.open(self._cluster, self._key, revision)
        except StoreError:
            self._cluster.give_up(member)
            raise

    async def _look(self, known: KeyState) -> KeyState:
        state = await read_key(self._cluster, self._key, known.mod_revision)
        if state.cluster != known.cluster or state.revision < known.changed_at:
            # Made anew, from a backup perhaps: its revisions are others.
            state = await read_key(self._cluster, self._key)
        return state

    def close(self) -> None:
        """End the watch, and turn to another member with the next one."""
        watch, self._watch = self._watch, None
        if watch is not None:
            self._cluster.give_up(watch.member)
            watch.close()
