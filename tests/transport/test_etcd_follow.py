from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from dnsproxy.errors import StoreError
from dnsproxy.transport import etcd as etcd_module
from dnsproxy.transport import etcd_follow as module
from dnsproxy.transport.etcd import EtcdCluster
from dnsproxy.transport.etcd_follow import KeyFollower
from dnsproxy.transport.etcd_keys import KeyState, read_key
from tests.fakes.etcd import KEY, Member, Store, hang, refuse, source


class Followed:
    """A cluster of three, and who follows its key."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.store = members[0].store
        self.cluster = EtcdCluster(source(*members), draw=0.0)
        self.follower = KeyFollower(self.cluster, KEY)
        self.known = KeyState("77", 2, 2)

    async def after(self, seconds: float = 20.0) -> KeyState:
        async with asyncio.timeout(30):
            self.known = await self.follower.after(self.known, seconds)
        return self.known

    async def while_waiting(self, act: Callable[[], None], watches: int = 1) -> KeyState:
        """Do something once the key is watched, for the ``watches``-th time; return what comes of it."""
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            waiting = group.create_task(self.after())
            while sum(member.asked.count("/v3/watch") for member in self.members) < watches:
                await asyncio.sleep(0.001)
            act()
        return waiting.result()


@pytest.fixture
async def followed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Followed]:
    monkeypatch.setattr(etcd_module, "ANSWER_DEADLINE", 0.3)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    store = Store()
    store.put(KEY, b"one")
    async with Member(store) as one, Member(store) as two, Member(store) as three:
        made = Followed([one, two, three])
        yield made
        made.follower.close()
        await made.cluster.close()


async def test_the_watch_tells_of_each_change_and_is_opened_once(followed: Followed) -> None:
    for at in range(3):
        state = await followed.while_waiting(lambda at=at: followed.store.put(KEY, b"%d" % at))  # type: ignore[misc]
        assert state.value == b"%d" % at
    assert followed.members[0].asked.count("/v3/watch") == 1


async def test_nothing_new_within_the_time_is_looked_up_once_more(followed: Followed) -> None:
    known = followed.known
    for looks in (2, 3):
        assert await followed.after(0.05) is known
        assert followed.members[0].asked.count("/v3/kv/range") == looks


async def test_what_changed_before_it_was_watched_is_seen_at_once(followed: Followed) -> None:
    followed.store.put(KEY, b"two")
    assert (await followed.after()).value == b"two"
    # The watch has it as well if it was faster, and it is not told twice.
    assert (await followed.while_waiting(lambda: followed.store.put(KEY, b"three"))).value == b"three"


async def test_a_watch_that_is_silent_is_found_out_and_left(followed: Followed) -> None:
    followed.members[0].deaf = True
    await followed.after(0.05)
    followed.store.put(KEY, b"two")
    assert (await followed.after(0.05)).value == b"two"
    followed.store.put(KEY, b"three")
    assert (await followed.after()).value == b"three"
    assert followed.members[1].asked.count("/v3/watch") == 1


async def test_a_member_that_hangs_is_left_for_another(followed: Followed) -> None:
    await followed.after(0.05)
    followed.members[0].fault = hang
    followed.store.put(KEY, b"two")
    # The watch of before still tells.
    assert (await followed.after()).value == b"two"
    assert await followed.after(0.05) is followed.known
    assert (await followed.while_waiting(lambda: followed.store.put(KEY, b"three"), 2)).value == b"three"


async def test_a_member_that_dies_costs_no_update(followed: Followed) -> None:
    await followed.after(0.05)
    await followed.members[0].stop()
    assert (await followed.while_waiting(lambda: followed.store.put(KEY, b"two"), 2)).value == b"two"


async def test_a_compaction_costs_no_update(followed: Followed) -> None:
    followed.store.compacted = followed.store.revision + 1

    def later() -> None:
        followed.store.put("/other", b"")
        followed.store.put("/other", b"")
        followed.store.put(KEY, b"two")

    assert (await followed.while_waiting(later)).value == b"two"
    assert (await followed.while_waiting(lambda: followed.store.put(KEY, b"three"), 2)).value == b"three"


async def test_deletion_is_a_change_and_so_is_what_follows(followed: Followed) -> None:
    assert not (await followed.while_waiting(lambda: followed.store.delete(KEY))).exists
    assert (await followed.while_waiting(lambda: followed.store.put(KEY, b"two"))).value == b"two"


async def test_a_cluster_made_anew_is_noticed(followed: Followed) -> None:
    await followed.after(0.05)
    followed.store.cluster = "78"
    followed.store.keys[KEY]["value"] = "YWdhaW4="
    state = await followed.after(0.05)
    assert (state.cluster, state.value) == ("78", b"again")
    # A backup: the same cluster with earlier revisions.
    followed.store.put(KEY, b"new")
    await followed.after()
    followed.store.revision = 2
    followed.store.keys[KEY] |= {"mod_revision": "2", "value": "b2xk"}
    assert (await followed.after(0.05)).value == b"old"


async def test_an_outage_longer_than_the_wait_is_a_failure_and_then_forgotten(followed: Followed) -> None:
    for member in followed.members:
        member.fault = refuse(503, error="etcdserver: no leader", code=14)
    with pytest.raises(StoreError, match="no leader"):
        await followed.after(0.2)
    for member in followed.members:
        member.fault = None
    followed.store.put(KEY, b"two")
    assert (await followed.after()).value == b"two"


async def test_without_anything_known_it_reads(followed: Followed) -> None:
    state = await followed.follower.after(None, 0)
    assert state == await read_key(followed.cluster, KEY)
