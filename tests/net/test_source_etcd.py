from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dnsproxy.errors import FetchError
from dnsproxy.net.fetch import Fetched, Request
from dnsproxy.net.source_etcd import EtcdReader
from tests.fakes.etcd import KEY, Member, Store, source


@pytest.fixture
async def member() -> AsyncIterator[Member]:
    async with Member(Store()) as member:
        yield member


@pytest.fixture
async def reader(member: Member) -> AsyncIterator[EtcdReader]:
    reader = EtcdReader(source(member))
    yield reader
    await reader.close()


async def test_the_value_with_its_mark(member: Member, reader: EtcdReader) -> None:
    member.store.put(KEY, b" a.b.c\n")
    for request in (Request(), Request(etag="junk", wait=5), Request(etag="77:2")):
        assert await reader.fetch(request) == Fetched("a.b.c", "77:2")


async def test_a_request_that_may_wait_gets_what_comes_next(member: Member, reader: EtcdReader) -> None:
    member.store.put(KEY, b"one")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        waiting = group.create_task(reader.fetch(Request(7, "77:2", 20)))
        while "/v3/watch" not in member.asked:
            await asyncio.sleep(0.001)
        assert not waiting.done()
        member.store.put(KEY, b"two")
    assert waiting.result() == Fetched("two", "77:3")
    assert await reader.fetch(Request(8, "77:3", 0.05)) == Fetched(None, "77:3")


async def test_a_deleted_key_is_waited_for_and_then_a_failure(member: Member, reader: EtcdReader) -> None:
    member.store.put(KEY, b"one")
    member.store.delete(KEY)
    with pytest.raises(FetchError, match="no such key"):
        await reader.fetch(Request(7, "77:2", 0.05))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        waiting = group.create_task(reader.fetch(Request(7, "77:2", 20)))
        await asyncio.sleep(0)
        member.store.put(KEY, b"two")
    assert waiting.result() == Fetched("two", "77:4")


async def test_no_key_is_a_failure_that_says_why(reader: EtcdReader) -> None:
    with pytest.raises(FetchError, match="no helper has published there"):
        await reader.fetch(Request())


async def test_no_member_is_a_failure(member: Member, reader: EtcdReader) -> None:
    await member.stop()
    for request in (Request(), Request(7, "77:2", 0.05)):
        with pytest.raises(FetchError, match="Connection refused"):
            await reader.fetch(request)
