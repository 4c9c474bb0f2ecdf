"""The disk with the state fills up, turns read-only or goes away: nothing learned is lost, and it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, OTHER, OTHER_ADDRESS, REGISTRY, World
from tests.faults import disk
from tests.needs import give_up

pytestmark = pytest.mark.faults

OLD, NEW = ADDRESSES[REGISTRY], "10.94.205.199"


@pytest.fixture
def small(world: World) -> Iterator[disk.Disk]:
    """The world's state folder is a small disk of the proxy's own."""
    reason = disk.refusal()
    if reason is not None:
        give_up(f"DISKS NOT TESTED, {reason}")
    with disk.Disk(world.state_file.parent) as made:
        world.proxy.run_by(*made.within)
        yield made
        world.proxy.kill()


def state(world: World) -> dict[str, Any]:
    found = world.admin("/api/v1/status").json()["state"]
    assert isinstance(found, dict)
    assert world.metric("dnsproxy_state_write_failed") == (found["failure"] is not None)
    return found


def change(world: World, address: str) -> None:
    world.source.replace(REGISTRY, f"A {address}")
    wait_for(lambda: world.server.short(REGISTRY) == [address], "the change is answered")


def spoil(small: disk.Disk, how: str) -> str:
    """Return what the system says of a disk spoilt like this."""
    if how == "full":
        small.fill()
        return "No space left on device"
    small.remount("ro")
    return "Read-only file system"


def mend(small: disk.Disk, how: str) -> None:
    if how == "full":
        small.clear()
    else:
        small.remount("rw")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_cannot_be_written(world: World, small: disk.Disk, how: str) -> None:
    world.start()
    kept = small.path / world.state_file.name
    wait_for(kept.exists, "the state is kept")
    before = kept.read_bytes()
    assert state(world) == {"file": str(world.state_file), "failure": None}

    reason = spoil(small, how)
    change(world, NEW)
    # Answered from memory, and said once; what is on the disk stays as it was, with nothing beside it.
    wait_for(lambda: state(world)["failure"] == reason, "it is told")
    assert {e["reason"] for e in world.proxy.events("learned.state_write_failed")} == {reason}
    assert kept.read_bytes() == before
    assert {path.name for path in small.path.iterdir()} <= {kept.name, f"{kept.name}.orders", "filler"}
    assert world.server.short(OTHER) == [OTHER_ADDRESS]

    # A restart, with nobody to learn from: the last good on the disk, and told from the start.
    world.helper.kill()
    world.proxy.kill()
    world.start_proxy()
    assert world.server.short(REGISTRY) == [OLD]
    assert world.server.short(OTHER) == [OTHER_ADDRESS]
    assert (world.admin("/ready").status, state(world)["failure"]) == (200, reason)

    mend(small, how)
    world.start_helper()
    wait_for(lambda: world.server.short(REGISTRY) == [NEW], "the change is learned again")
    wait_for(lambda: state(world)["failure"] is None, "the disk is used again")
    assert kept.read_bytes() != before
    assert world.proxy.stop() == 0
    world.helper.kill()
    world.start_proxy()
    assert world.server.short(REGISTRY) == [NEW]


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_an_installation_that_could_never_keep_anything_is_a_mistake(
    world: World, small: disk.Disk, how: str
) -> None:
    reason = spoil(small, how)
    world.upstream.start()
    with pytest.raises(AssertionError, match="ended at once"):
        world.start_proxy()
    assert world.proxy.wait() == 1
    assert f"learn.state_file: {world.state_file}: cannot be written: {reason}" in world.proxy.text()


@pytest.mark.timeout(240)
def test_a_state_folder_that_goes_away(world: World, small: disk.Disk) -> None:
    world.start()
    kept = small.path / world.state_file.name
    wait_for(kept.exists, "the state is kept")
    small.remove_folder()
    assert not small.path.exists()
    change(world, NEW)
    wait_for(kept.exists, "the folder is made again")
    assert state(world)["failure"] is None
    world.helper.kill()
    world.proxy.kill()
    world.start_proxy()
    assert world.server.short(REGISTRY) == [NEW]
