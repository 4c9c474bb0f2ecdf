"""The reader against a stand-in for the API server (tests/fakes/apiserver.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dnsproxy.errors import FetchError
from dnsproxy.net.fetch import Fetched, Fetcher, Request
from dnsproxy.settings.sources import KubernetesSource
from tests.fakes.apiserver import ApiServer

NAME, KEY = "dnsproxy-snapshot", "snapshot.jws"


@dataclass
class Cluster:
    api: ApiServer
    fetcher: Fetcher
    source: KubernetesSource

    async def fetch(self, fetched: Fetched | None = None, wait: float = 0.0) -> Fetched:
        etag = None if fetched is None else fetched.etag
        async with asyncio.timeout(20):
            return await self.fetcher.fetch(self.source, Request(1, etag, wait))

    def put(self, text: str) -> None:
        self.api.put(NAME, **{KEY: text})

    async def until_watched(self) -> None:
        async with asyncio.timeout(20):
            while not self.api.watching:
                await asyncio.sleep(0.005)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    api, fetcher = ApiServer(), Fetcher()
    async with api.serve() as server:
        kubeconfig = api.kubeconfig(tmp_path, str(server.make_url("")).rstrip("/"))
        yield Cluster(api, fetcher, KubernetesSource(type="kubernetes", kubeconfig=kubeconfig))
        await fetcher.close()


async def test_it_tells_what_is_new_and_what_is_not(cluster: Cluster) -> None:
    cluster.put("a.b.c\n")
    first = await cluster.fetch()
    assert first == Fetched("a.b.c", str(cluster.api.version))
    assert await cluster.fetch(first) == Fetched(None, first.etag)
    cluster.put("d.e.f")
    assert (await cluster.fetch(first)) == Fetched("d.e.f", str(cluster.api.version))


async def test_it_waits_for_what_is_new(cluster: Cluster) -> None:
    cluster.put("a.b.c")
    first = await cluster.fetch()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(cluster.fetch(first, wait=100))
        await cluster.until_watched()
        cluster.put("d.e.f")
    assert waiting.result() == Fetched("d.e.f", str(cluster.api.version))
    assert await cluster.fetch(waiting.result(), wait=0.1) == Fetched(None, waiting.result().etag)


async def test_a_version_that_is_gone_is_read_anew(cluster: Cluster) -> None:
    cluster.put("a.b.c")
    first = await cluster.fetch()
    cluster.put("d.e.f")
    cluster.api.compact()
    assert await cluster.fetch(first, wait=100) == Fetched(
        "d.e.f", cluster.api.objects["configmaps", NAME]["metadata"]["resourceVersion"]
    )


async def test_nothing_there_yet(cluster: Cluster) -> None:
    with pytest.raises(FetchError, match=r"^kubernetes://-/configmap/.*: there is no ConfigMap"):
        await cluster.fetch()
    cluster.api.put(NAME, other="x")
    with pytest.raises(FetchError, match="no helper has published there yet"):
        await cluster.fetch()


async def test_a_cancelled_wait_leaves_no_watch(cluster: Cluster) -> None:
    cluster.put("a.b.c")
    first = await cluster.fetch()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(cluster.fetch(first, wait=100))
        await cluster.until_watched()
        waiting.cancel()
    async with asyncio.timeout(20):
        while cluster.api.watching:
            await asyncio.sleep(0.005)
    assert (await cluster.fetch()).etag == first.etag
