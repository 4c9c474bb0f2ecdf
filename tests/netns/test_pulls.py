"""Images go in and out through names that only the proxy resolves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.processes import wait_for
from tests.netns.region import ADDRESSES, BUCKET, MOVED, REGISTRY, STORAGE, STORAGE_ADDRESS, Shape
from tests.netns.world import IDC_RESOLVER, INTRANET, INTRANET_ADDRESS, World

pytestmark = [pytest.mark.netns]


def test_names_resolve_through_the_proxy_alone(world: World) -> None:
    assert world.answers() == world.right_answers()
    assert [world.ask(name, IDC_RESOLVER) for name in ADDRESSES] == [[] for _ in ADDRESSES]
    # The data centre's own names go on resolving.
    assert world.ask(INTRANET) == [INTRANET_ADDRESS]


def test_image_is_pushed_and_pulled(world: World, tmp_path: Path) -> None:
    image = world.make_image()
    world.push(image, "first")
    world.pull("first", tmp_path / "copy")
    assert image.is_whole_in(tmp_path / "copy")
    # The blobs came by the redirect: from the storage host, under the bucket's name.
    fetched = {fetch.digest: (fetch.address, fetch.host, fetch.status) for fetch in world.region.fetches()}
    for part in (image.layer, image.config):
        assert fetched[part["digest"].removeprefix("sha256:")] == (STORAGE_ADDRESS, BUCKET, 200)


def test_nothing_is_pulled_without_the_proxy(world: World, tmp_path: Path) -> None:
    world.push(world.make_image(), "unreachable")
    world.use_resolvers(IDC_RESOLVER)
    pulled = world.try_pull("unreachable", tmp_path / "copy")
    assert pulled.returncode != 0
    assert f"lookup {REGISTRY}" in pulled.stderr


def test_pulls_go_on_after_the_storage_address_changed(world: World, tmp_path: Path) -> None:
    image = world.make_image()
    world.push(image, "moving")
    swaps = len(world.proxy.events("learned.swapped"))
    world.region.take(Shape(records=(MOVED,), storage=(MOVED,)))
    # The old address refuses connections by now. Helper and proxy each look once a second.
    wait_for(lambda: world.ask(BUCKET) == [MOVED], "the new address is answered", deadline=10)
    # One refresh has brought all of it.
    (swap,) = world.proxy.events("learned.swapped")[swaps:]
    assert {change["name"] for change in swap["changes"]} == {f"{STORAGE}.", f"*.{STORAGE}."}
    before = len(world.region.fetches())
    world.pull("moving", tmp_path / "copy")
    assert image.is_whole_in(tmp_path / "copy")
    assert {fetch.address for fetch in world.region.fetches()[before:]} == {MOVED}


def test_pulls_go_on_when_helper_and_source_dns_died_and_the_proxy_restarted(
    world: World, tmp_path: Path
) -> None:
    image = world.make_image()
    world.push(image, "orphaned")
    wait_for(world.state_file.exists, "what is learned is on disk")
    world.helper.kill()
    world.region.dns.process.kill()
    assert world.proxy.stop() == 0
    world.start_proxy()
    assert world.answers() == world.right_answers()
    world.pull("orphaned", tmp_path / "copy")
    assert image.is_whole_in(tmp_path / "copy")
    world.push(world.make_image(), "later")
