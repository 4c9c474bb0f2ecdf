"""The helper asks the real registry which other hosts it uses, and publishes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.processes import wait_for
from tests.netns.region import (
    AUTH,
    AUTH_ADDRESS,
    BUCKET,
    OTHER_AUTH,
    OTHER_BUCKET,
    PASSWORD,
    REGISTRY,
    REGISTRY_ADDRESS,
    SIGNATURE,
    STORAGE_ADDRESS,
    USER,
    Shape,
)
from tests.netns.world import REPOSITORY, World

pytestmark = [pytest.mark.netns]


def discover(world: World, **more: str) -> None:
    """Let the configuration name the registry alone."""
    world.forget()
    settings = {"ca_file": str(world.authority.file), **more}
    world.configure(registries={"auth": "discover", "storage": "discover", "discover": settings})


def with_credentials(world: World) -> dict[str, str]:
    """Put an image into the registry, and let the helper be somebody who may pull it."""
    world.push_in_region(world.make_image(), "probe")
    credentials = world.folder / "credentials"
    credentials.touch(mode=0o600)
    credentials.write_text(f"{USER}:{PASSWORD}\n")
    return {"credentials_file": str(credentials), "repository": f"{REPOSITORY}:probe"}


def roles(world: World) -> dict[str, str]:
    return {entry["name"].removesuffix("."): entry["role"] for entry in world.status()["names"]}


def test_token_host_and_default_bucket_come_from_the_challenge(world: World, tmp_path: Path) -> None:
    image = world.make_image()
    world.push_in_region(image, "discovered")
    discover(world)
    wait_for(lambda: world.ask(BUCKET) == [STORAGE_ADDRESS], "the bucket is learned")
    assert world.ask(AUTH) == [AUTH_ADDRESS]
    assert roles(world) == {REGISTRY: "registry", AUTH: "auth", BUCKET: "storage"}
    world.pull("discovered", tmp_path / "copy")
    assert image.is_whole_in(tmp_path / "copy")


def test_storage_host_comes_from_a_real_redirect(world: World, tmp_path: Path) -> None:
    # Not the bucket that the challenge hints at: only the redirect can tell.
    world.region.take(Shape(bucket=OTHER_BUCKET))
    more = with_credentials(world)
    discover(world, **more)
    wait_for(lambda: world.ask(OTHER_BUCKET) == [STORAGE_ADDRESS], "the bucket is learned")
    assert roles(world) == {REGISTRY: "registry", AUTH: "auth", OTHER_BUCKET: "storage"}
    image = world.make_image()
    world.push(image, "redirected")
    world.pull("redirected", tmp_path / "copy")
    assert image.is_whole_in(tmp_path / "copy")
    doctor = world.command("doctor")
    assert doctor.returncode == 0, doctor.stdout
    # Neither what signs the URL nor the password is anybody's to read.
    for process in (world.helper, world.proxy):
        assert SIGNATURE not in process.text()
        assert PASSWORD not in process.text()


def test_discovered_names_outlive_helper_source_dns_and_registry(world: World) -> None:
    discover(world)
    wait_for(lambda: world.ask(BUCKET) == [STORAGE_ADDRESS], "the bucket is learned")
    for process in (world.helper, world.region.dns.process, world.region.front):
        process.kill()
    assert world.proxy.stop() == 0
    world.start_proxy()
    assert (world.ask(AUTH), world.ask(BUCKET)) == ([AUTH_ADDRESS], [STORAGE_ADDRESS])


def test_another_token_host_is_found_by_its_name(world: World) -> None:
    world.region.take(Shape(realm=f"https://{OTHER_AUTH}/auth"))
    discover(world)
    wait_for(lambda: world.ask(OTHER_AUTH) == [AUTH_ADDRESS], "the token host is learned")
    assert roles(world) == {REGISTRY: "registry", OTHER_AUTH: "auth", BUCKET: "storage"}


def test_token_host_of_somebody_else_is_not_believed(world: World) -> None:
    world.region.take(Shape(realm=f"https://{AUTH}.attacker.example/auth"))
    discover(world)
    (event, *_) = wait_for(lambda: world.helper.events("helper.discover_failed"), "the helper says so")
    assert event["reason"] == "foreign"
    wait_for(lambda: world.ask(REGISTRY) == [REGISTRY_ADDRESS], "the registry itself is learned")
    assert roles(world) == {REGISTRY: "registry"}
