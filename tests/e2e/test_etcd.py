from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dnsproxy.core import seal
from dnsproxy.core.learned import LearnedName, Snapshot
from dnsproxy.keys import read_private_key
from tests.e2e.etcd import KEY, Cluster
from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, REGISTRY, World, fetch
from tests.needs import need_programs

pytestmark = pytest.mark.e2e


class EtcdWorld(World):
    """The whole picture with etcd in its middle: the helper puts, the proxy watches."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.etcd = Cluster(folder, self._ports, 1, *options)
        for member in self.etcd.members:
            self.add_process(member)
        self.configure(
            helper={"publish": [self.etcd.settings("helper")]},
            learn={"sources": [self.etcd.settings("proxy")], "refresh": "500ms"},
        )

    def answer(self) -> list[str]:
        return self.server.short("A", REGISTRY)

    def helper_health(self) -> dict[str, Any]:
        document: dict[str, Any] = fetch(self.helper_port, "/health").json()
        return document

    def put(self, address: str, serial: int) -> None:
        """Put a snapshot in the helper's place."""
        self.etcd.must("put", KEY, self.signed(address, serial))

    def signed(self, address: str, serial: int) -> str:
        entry = LearnedName(
            f"{REGISTRY}.", "registry", "hangzhou", (address,), None, 60, serial // 1000, (), "ok"
        )
        issued = serial // 1000
        snapshot = Snapshot("helper-e2e", serial, issued, issued + 86_400, (entry,))
        return seal.sign(snapshot, read_private_key(self.key))


@pytest.fixture(autouse=True)
def _programs() -> None:
    need_programs("etcd as source and target is not tested", "etcd", "etcdctl")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[EtcdWorld]:
    with EtcdWorld(tmp_path) as world:
        yield world


def test_a_snapshot_goes_through_etcd_and_a_restart_goes_on(world: EtcdWorld) -> None:
    world.etcd.start()
    world.start()
    assert world.answer() == [ADDRESSES[REGISTRY]]
    before = world.metric("dnsproxy_learned_serial")
    world.source.replace(REGISTRY, "A 10.94.205.199")
    wait_for(lambda: world.answer() == ["10.94.205.199"], "the new address is answered")
    (target,) = world.helper_health()["targets"]
    assert target["status"] == "ok"
    assert target["name"].startswith("etcd://127.0.0.1:")
    # The helper has no file of its own; what it goes on from is in etcd.
    world.helper.kill()
    world.start_helper()
    restored = wait_for(lambda: world.helper.events("helper.restored"), "the helper goes on")[0]
    assert restored["serial"] > before
    wait_for(lambda: world.metric("dnsproxy_learned_serial") > restored["serial"], "a later serial is here")


def test_the_proxy_starts_before_anybody_has_published_and_outlives_a_deletion(world: EtcdWorld) -> None:
    world.etcd.start()
    world.upstream.start()
    world.start_proxy()
    wait_for(lambda: world.proxy.events("learned.source_failed"), "the missing key is told")
    assert "no such key" in world.proxy.events("learned.source_failed")[0]["reason"]
    serial = int(time.time()) * 1000
    world.put("10.94.0.1", serial)
    wait_for(lambda: world.answer() == ["10.94.0.1"], "the first address is answered")
    world.etcd.must("del", KEY)
    wait_for(lambda: len(world.proxy.events("learned.source_failed")) == 2, "the deletion is told")
    assert world.answer() == ["10.94.0.1"]
    world.put("10.94.0.2", serial + 1)
    wait_for(lambda: world.answer() == ["10.94.0.2"], "the address put anew is answered")
    # What is older than what is in use is not taken, whoever has put it there.
    world.put("10.94.0.3", serial)
    wait_for(lambda: world.proxy.events("learned.rejected"), "the replay is told")
    assert world.proxy.events("learned.rejected")[0]["reason"] == "older"
    assert world.answer() == ["10.94.0.2"]


def test_a_compaction_and_a_restart_of_the_member_cost_no_update(world: EtcdWorld) -> None:
    world.etcd.start()
    world.start()
    for at in range(5):
        world.etcd.must("put", "/other", str(at))
    world.etcd.must("compact", str(world.etcd.revision()))
    world.source.replace(REGISTRY, "A 10.94.205.1")
    wait_for(lambda: world.answer() == ["10.94.205.1"], "an address after the compaction")
    world.etcd.members[0].kill()
    world.source.replace(REGISTRY, "A 10.94.205.2")
    wait_for(
        lambda: world.helper_health()["targets"][0]["status"] == "failing", "the helper tells that it cannot"
    )
    assert world.answer() == ["10.94.205.1"]
    world.etcd.restart(0)
    world.etcd.must("compact", str(world.etcd.revision()))
    wait_for(lambda: world.answer() == ["10.94.205.2"], "the address that waited")
    assert world.proxy.events("learned.rejected") == []


def test_a_snapshot_that_is_too_large_for_etcd_is_a_clear_error(tmp_path: Path) -> None:
    with EtcdWorld(tmp_path, "--max-request-bytes", "1000") as world:
        world.etcd.start()
        world.source.start()
        world.start_helper()
        wait_for(lambda: world.helper.events("helper.target_failed"), "the helper tells")
        reason = world.helper.events("helper.target_failed")[0]["reason"]
        assert "octets, more than the cluster takes in one request" in reason
