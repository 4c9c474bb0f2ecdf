from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from dnsproxy.errors import StoreError
from dnsproxy.transport import etcd_keys as module
from dnsproxy.transport.etcd import EtcdCluster
from dnsproxy.transport.etcd_keys import KeyState, Watch, put, put_if_created_at, read_key, state_of, whole
from tests.fakes.etcd import KEY, Member, Store, source


@pytest.fixture
async def member() -> AsyncIterator[Member]:
    async with Member(Store()) as member:
        yield member


@pytest.fixture
async def cluster(member: Member) -> AsyncIterator[EtcdCluster]:
    cluster = EtcdCluster(source(member))
    yield cluster
    await cluster.close()


async def test_a_key_is_read_with_its_revisions(member: Member, cluster: EtcdCluster) -> None:
    assert await read_key(cluster, KEY) == KeyState("77", 1)
    for value in (b"one", b"two"):
        member.store.put(KEY, value)
    state = await read_key(cluster, KEY)
    assert state == KeyState("77", 3, 3, 2, b"two")
    known = await read_key(cluster, KEY, newer_than=3)
    assert (known.value, known.mod_revision, known.exists) == (None, 3, True)
    assert (await read_key(cluster, KEY, newer_than=2)).value == b"two"
    member.store.delete(KEY)
    assert not (await read_key(cluster, KEY, newer_than=3)).exists


async def test_a_put_under_a_condition(member: Member, cluster: EtcdCluster) -> None:
    office = f"{KEY}/leader"
    assert await put_if_created_at(cluster, office, 0, put(office, "me"))
    assert not await put_if_created_at(cluster, office, 0, put(office, "you"))
    won = (await read_key(cluster, office)).create_revision
    assert await put_if_created_at(cluster, office, won, put(KEY, "one"))
    member.store.delete(office)
    assert not await put_if_created_at(cluster, office, won, put(KEY, "two"))
    member.store.put(office, b"you")
    assert not await put_if_created_at(cluster, office, won, put(KEY, "two"))
    assert (await read_key(cluster, KEY)).value == b"one"


async def test_a_watch_tells_puts_and_deletions_and_loses_none_when_cancelled(
    member: Member, cluster: EtcdCluster
) -> None:
    watch = await Watch.open(cluster, KEY, 2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await watch.next()
    async with asyncio.timeout(20):
        member.store.put(KEY, b"one")
        assert await watch.next() == KeyState("77", 2, 2, 2, b"one")
        member.store.delete(KEY)
        deleted = await watch.next()
    assert (deleted.exists, deleted.changed_at) == (False, 3)
    watch.close()


async def test_a_compacted_revision_ends_the_watch(member: Member, cluster: EtcdCluster) -> None:
    member.store.compacted = 5
    watch = await Watch.open(cluster, KEY, 5)
    async with asyncio.timeout(20):
        with pytest.raises(StoreError, match="compacted"):
            await watch.next()


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "the watch was ended"),
        (b"junk\n", "makes no sense"),
        (b"[]\n", "makes no sense"),
        (
            b'{"result":{"canceled":true,"cancel_reason":"etcdserver: permission denied"}}\n',
            "permission denied",
        ),
        (b'{"result":{"canceled":true}}\n', "cancelled"),
        (b'{"error":{"message":"etcdserver: no leader","grpc_code":14}}\n', "no leader"),
        (b'{"result":{"events":[{"kv":{"mod_revision":"x"}}]}}\n', "not a number"),
        (b'{"result":{"events":[{"kv":{"mod_revision":"3","value":"!"}}]}}\n', "not base64"),
        (b'{"result":{"events":[null]}}\n', "not one of etcd"),
        (b"x" * 3000, "larger than 2000 octets"),
    ],
)
async def test_whatever_is_wrong_ends_the_watch(
    member: Member, cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch, stream: bytes, reason: str
) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 2000)

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=stream)

    member.fault = answer
    watch = await Watch.open(cluster, KEY, 2)
    async with asyncio.timeout(20):
        with pytest.raises(StoreError, match=reason):
            await watch.next()
    watch.close()


async def test_a_line_in_pieces_is_one_change(member: Member, cluster: EtcdCluster) -> None:
    pieces = [
        b'{"result":{"header":{"cluster_id":"7","revi',
        b'sion":"3"},"events":[{"kv":',
        b'{"mod_revision":"3"}}]}}\n',
    ]

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.02)
        return response

    member.fault = answer
    watch = await Watch.open(cluster, KEY, 2)
    async with asyncio.timeout(20):
        assert await watch.next() == KeyState("7", 3, 3, 0, b"")
    watch.close()


@pytest.mark.parametrize("answer", [{"count": "x"}, {"count": []}])
def test_what_is_no_number(answer: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="count is not a number"):
        whole(answer, "count")


def test_a_range_without_a_key() -> None:
    assert not state_of({"header": {"revision": "9"}}).exists


@pytest.mark.parametrize(
    "answer", [{"kvs": "x"}, {"kvs": [None]}, {"header": [], "kvs": []}, {"header": None}, {"kvs": {"a": 1}}]
)
def test_an_answer_of_another_shape_is_an_error_of_the_store(answer: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="the answer is not one of etcd"):
        state_of(answer)


def test_a_number_of_what_is_no_object() -> None:
    with pytest.raises(StoreError, match="TTL is not a number"):
        whole(None, "TTL")  # type: ignore[arg-type]
