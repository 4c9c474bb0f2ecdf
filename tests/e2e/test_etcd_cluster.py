"""Proxies of an etcd cluster whose members are killed, and helpers that elect a leader by it."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dnsproxy.core import seal
from dnsproxy.core.learned import LearnedName, Snapshot
from dnsproxy.errors import PublishError
from dnsproxy.helper.target_etcd import EtcdTarget
from dnsproxy.keys import read_private_key, write_key_pair
from dnsproxy.settings import etcd as settings
from tests.e2e.asking import Client
from tests.e2e.etcd import Cluster
from tests.e2e.processes import Process, dnsproxy_argv, wait_for
from tests.e2e.world import REGISTRY, World, fetch
from tests.needs import need_programs

pytestmark = pytest.mark.e2e

CHANGES = 30
# Which member is killed with which change, and started again.
KILLED = {3: 0, 12: 1, 21: 2}
STARTED = {8: 0, 17: 1, 26: 2}
PAUSE = 0.25


@pytest.fixture(autouse=True)
def _programs() -> None:
    need_programs("etcd clusters are not tested", "etcd", "etcdctl")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


class Part:
    """One more proxy or helper, with a configuration of its own."""

    def __init__(self, world: World, name: str, command: str, **sections: dict[str, Any]) -> None:
        found = world.configuration()
        self.dns_port, self.admin_port, self.helper_port = (world.take_port() for _ in range(3))
        state = world.folder / name / "learned.jws"
        state.parent.mkdir()
        found["serve"]["listen"] = [f"127.0.0.1:{self.dns_port}"]
        found["admin"]["listen"] = f"127.0.0.1:{self.admin_port}"
        found["helper"]["listen"] = f"127.0.0.1:{self.helper_port}"
        found["learn"]["state_file"] = str(state)
        found["log"]["level"] = "debug"
        for section, keys in sections.items():
            found[section] |= keys
        config = world.folder / f"{name}.yaml"
        config.write_text(json.dumps(found))
        self.process = Process(name, dnsproxy_argv(command, "--config", config), world.folder / f"{name}.log")
        world.add_process(self.process)
        self._up = "proxy.started" if command == "serve" else "helper.started"

    def start(self) -> None:
        runs = len(self.process.events(self._up))
        self.process.start(lambda: len(self.process.events(self._up)) > runs)

    def serials(self) -> list[int]:
        """Return the serial of each snapshot that was taken, in that order."""
        return [line["serial"] for line in self.process.events("learned.swapped", "learned.refreshed")]

    def role(self) -> str:
        office = fetch(self.helper_port, "/health").json()["election"]
        return str(office["role"])


def address(version: int) -> str:
    return f"10.94.{version // 200}.{version % 200 + 1}"


def version_of(addresses: tuple[str, ...]) -> int:
    (only,) = addresses
    _, _, high, low = map(int, only.split("."))
    return high * 200 + low - 1


def assert_well(client: Client, parts: list[Part]) -> None:
    """Every question was answered, and nothing ever went back."""
    assert client.failures == []
    versions = [version_of(told.addresses) for told in client.changes()]
    assert versions == sorted(set(versions)), "an address that had been replaced came back"
    for part in parts:
        assert part.serials() == sorted(part.serials()), f"{part.process.name} went back"


class Publisher:
    """Signs a snapshot for each version and puts it, as a helper does."""

    def __init__(self, world: World, cluster: Cluster) -> None:
        self._key = read_private_key(world.key)
        self._target = EtcdTarget(settings.EtcdTarget.model_validate(cluster.settings("helper")))
        self._first = int(time.time()) * 1000
        self.put_at: dict[int, float] = {}

    async def put(self, version: int) -> None:
        issued = int(time.time())
        entry = LearnedName(
            f"{REGISTRY}.", "registry", "hangzhou", (address(version),), None, 60, issued, (), "ok"
        )
        snapshot = Snapshot("helper-e2e", self._first + version, issued, issued + 86_400, (entry,))
        token = seal.sign(snapshot, self._key)
        async with asyncio.timeout(60):
            while True:
                self.put_at[version] = time.monotonic()
                try:
                    await self._target.write(token)
                except PublishError:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def close(self) -> None:
        await self._target.close()


async def change_and_kill(publisher: Publisher, cluster: Cluster) -> None:
    for version in range(1, CHANGES + 1):
        if version in KILLED:
            cluster.members[KILLED[version]].kill()
        if version in STARTED:
            await asyncio.to_thread(cluster.restart, STARTED[version])
        await publisher.put(version)
        await asyncio.sleep(PAUSE)


def test_no_update_is_lost_and_no_proxy_goes_back_while_members_are_killed(world: World) -> None:
    cluster = Cluster(world.folder, world._ports, 3, secure=True)
    for member in cluster.members:
        world.add_process(member)
    cluster.start()
    world.upstream.start()
    source = {"sources": [cluster.settings("proxy")], "refresh": "5s"}
    proxies = [Part(world, f"proxy{at}", "serve", learn=source) for at in range(3)]

    with asyncio.Runner() as runner, ExitStack() as stack:
        publisher = Publisher(world, cluster)
        runner.run(publisher.put(0))
        for proxy in proxies:
            proxy.start()
        for proxy in proxies:
            wait_for(proxy.serials, "the first snapshot is there")
        clients = [stack.enter_context(Client(proxy.dns_port, REGISTRY)) for proxy in proxies]
        runner.run(change_and_kill(publisher, cluster))
        for client in clients:
            wait_for(lambda: client.last == (address(CHANGES),), "the last address is answered")  # noqa: B023
        runner.run(publisher.close())

    for client, proxy in zip(clients, proxies, strict=True):
        assert_well(client, [proxy])
    delays = sorted(delay for client in clients for delay in delays_of(client, publisher))
    answers = sum(len(client.told) for client in clients)
    median, most = statistics.median(delays), delays[-1]
    print(  # noqa: T201 - the figures of docs/fleets.md
        f"{CHANGES} changes, {len(proxies)} proxies, {answers} answers, 0 wrong; put to answer:"
        f" p50 {median * 1000:.0f} ms, p90 {delays[len(delays) * 9 // 10] * 1000:.0f} ms,"
        f" max {most * 1000:.0f} ms"
    )
    assert median < 1


def delays_of(client: Client, publisher: Publisher) -> list[float]:
    """Return the seconds from each put to the answer; what was superseded on its way came with the next."""
    changes = [(version_of(told.addresses), told.at) for told in client.changes()]
    return [
        min(at for seen, at in changes if seen >= version) - publisher.put_at[version]
        for version in range(1, CHANGES + 1)
    ]


def test_a_change_of_leader_is_not_seen_by_any_client(world: World) -> None:
    cluster = Cluster(world.folder, world._ports)
    world.add_process(cluster.members[0])
    cluster.start()
    world.upstream.start()
    world.source.start()
    keys = [write_key_pair(world.folder / f"keys{at}") for at in range(2)]
    helpers = [
        Part(
            world,
            f"helper{at}",
            "helper",
            helper={
                "id": "group",
                "signing_key_file": str(private),
                "publish": [
                    cluster.settings(elect=True, lease="3s", peer_keys=[str(keys[1 - at][1])]),
                ],
            },
        )
        for at, (private, _) in enumerate(keys)
    ]
    trusted = {"trusted_keys": [str(public) for _, public in keys]}
    urls = [{"url": f"http://127.0.0.1:{helper.helper_port}/v1/snapshot"} for helper in helpers]
    proxies = [
        Part(world, "by-etcd", "serve", learn={"sources": [cluster.settings()], **trusted}),
        Part(world, "by-http", "serve", learn={"sources": urls, **trusted}),
    ]

    def change(version: int) -> float:
        """Change the address at the source; return the seconds until both proxies answer it."""
        world.source.replace(REGISTRY, f"A {address(version)}")
        started = time.monotonic()
        for client in clients:
            wait_for(lambda: client.last == (address(version),), f"version {version} is answered")  # noqa: B023
        return time.monotonic() - started

    world.source.replace(REGISTRY, f"A {address(0)}")
    for part in helpers:
        part.start()
        wait_for(lambda: fetch(part.helper_port, "/v1/snapshot").status == 200, "there is a snapshot")  # noqa: B023
    for part in proxies:
        part.start()
        wait_for(part.serials, "the first snapshot is there")
    leader, follower = sorted(helpers, key=lambda part: part.role() != "leader")
    assert (leader.role(), follower.role()) == ("leader", "follower")
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(part.dns_port, REGISTRY)) for part in proxies]
        plain = change(1)
        leader.process.kill()
        after_kill = change(2)
        assert follower.role() == "leader"
        leader.start()
        wait_for(lambda: fetch(leader.helper_port, "/v1/snapshot").status == 200, "it gives the snapshot")
        assert leader.role() == "follower"
        change(3)
        assert follower.process.stop() == 0
        after_stop = change(4)
        assert leader.role() == "leader"
        follower.start()
        wait_for(lambda: fetch(follower.helper_port, "/v1/snapshot").status == 200, "it gives the snapshot")
        change(5)
    for client in clients:
        assert_well(client, proxies)
        assert [version_of(told.addresses) for told in client.changes()] == list(range(6))
    assert proxies[0].process.events("learned.rejected") == []
    print(  # noqa: T201 - the figures of docs/fleets.md
        f"source to answer: {plain:.1f} s; leader killed {after_kill:.1f} s (lease 3 s);"
        f" leader stopped {after_stop:.1f} s; {sum(len(client.told) for client in clients)} answers, 0 wrong"
    )
