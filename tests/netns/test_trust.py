"""What the source region says is right, and of no use here: the proxy notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import wait_for
from tests.netns.region import AUTH_ADDRESS, BUCKET, CLOSED, SILENT, STORAGE, STORAGE_ADDRESS, UNROUTED, Shape
from tests.netns.world import World

pytestmark = [pytest.mark.netns]


def state_of(world: World, address: str) -> str | None:
    found = world.address_state(STORAGE, address)
    return found["state"] if found else None


@pytest.mark.parametrize("address", [CLOSED, SILENT])
def test_new_address_that_takes_no_connections_is_not_switched_to(
    world: World, address: str, tmp_path: Path
) -> None:
    image = world.make_image()
    world.push(image, "held")
    world.region.take(Shape(records=(address,)))
    wait_for(lambda: state_of(world, address) == "held_back", "the new address is held back")
    assert state_of(world, STORAGE_ADDRESS) == "serving"
    assert [world.ask(name) for name in (STORAGE, BUCKET)] == [[STORAGE_ADDRESS], [STORAGE_ADDRESS]]
    world.pull("held", tmp_path / "copy")
    assert image.is_whole_in(tmp_path / "copy")


def test_new_address_is_switched_to_once_it_takes_connections(world: World, tmp_path: Path) -> None:
    image = world.make_image()
    world.push(image, "late")
    world.region.take(Shape(records=(CLOSED,)))
    wait_for(lambda: state_of(world, CLOSED) == "held_back", "the new address is held back")
    world.region.take(Shape(records=(CLOSED,), storage=(CLOSED,)))
    wait_for(lambda: world.ask(BUCKET) == [CLOSED], "the new address is answered")
    world.pull("late", tmp_path / "copy")
    assert image.is_whole_in(tmp_path / "copy")


def test_new_address_of_somebody_else_is_not_switched_to(world: World) -> None:
    # It takes connections, and has a certificate for another name. Buckets are learned through a wildcard.
    world.region.take(Shape(records=(AUTH_ADDRESS,)))
    names = (STORAGE, f"*.{STORAGE}")

    def found() -> list[dict[str, Any]]:
        return [world.address_state(name, AUTH_ADDRESS) or {"probe": None} for name in names]

    wait_for(lambda: all(one["probe"] for one in found()), "the new address is probed")
    assert [one["state"] for one in found()] == ["held_back", "held_back"]
    assert [world.ask(name) for name in (STORAGE, BUCKET)] == [[STORAGE_ADDRESS], [STORAGE_ADDRESS]]


def test_member_that_died_is_left_out_and_returns(world: World) -> None:
    both = Shape(records=(STORAGE_ADDRESS, CLOSED), storage=(STORAGE_ADDRESS, CLOSED))
    world.region.take(both)
    wait_for(lambda: world.ask(BUCKET) == [STORAGE_ADDRESS, CLOSED], "both are answered")
    world.region.take(Shape(records=both.records, storage=(CLOSED,)))
    wait_for(lambda: world.ask(BUCKET) == [CLOSED], "the dead one is left out")
    world.region.take(both)
    wait_for(lambda: world.ask(BUCKET) == [STORAGE_ADDRESS, CLOSED], "it is back")


def test_routed_addresses_need_nothing(world: World) -> None:
    checked = world.command("routes", "--check")
    assert checked.returncode == 0, checked.stderr
    found = world.address_state(STORAGE, STORAGE_ADDRESS)
    assert found
    assert found["routed"] is True


@pytest.mark.parametrize(
    "records", [(UNROUTED,), (STORAGE_ADDRESS, UNROUTED)], ids=["alone", "beside a good one"]
)
def test_unrouted_address_is_reported(world: World, records: tuple[str, ...]) -> None:
    world.region.take(Shape(records=records, storage=records))
    wait_for(lambda: world.address_state(STORAGE, UNROUTED), "the proxy knows the address")
    found = world.address_state(STORAGE, UNROUTED)
    assert found
    assert found["routed"] is False
    assert any(
        sample.startswith("dnsproxy_learned_unrouted{") and UNROUTED in sample and STORAGE in sample
        for sample in world.metrics()
    )
    checked = world.command("routes", "--check")
    assert checked.returncode == 1
    assert UNROUTED in checked.stderr
