"""Whatever is broken between a client and an image, `doctor` names it and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.netns.region import (
    AUTH,
    BUCKET,
    OTHER_AUTH,
    OTHER_HOST,
    REGISTRY,
    REGISTRY_ADDRESS,
    STORAGE,
    Shape,
)
from tests.netns.world import IDC_ADDRESS, IDC_RESOLVER, World

pytestmark = [pytest.mark.netns]


class Diagnosis(NamedTuple):
    """What ``doctor --json`` said; ``failed`` are pairs of a hop and its subject."""

    code: int
    findings: list[dict[str, Any]]
    failed: list[tuple[str, str]]


def diagnose(world: World) -> Diagnosis:
    done = world.command("doctor", "--json")
    findings = json.loads(done.stdout)["findings"]
    failed = [(found["hop"], found["subject"]) for found in findings if found["result"] == "FAIL"]
    return Diagnosis(done.returncode, findings, failed)


def test_nothing_is_wrong_where_nothing_is_broken(world: World) -> None:
    found = diagnose(world)
    assert (found.code, found.failed) == (0, [])
    good = {finding["hop"] for finding in found.findings if finding["result"] == "OK"}
    assert good == {
        *("resolvers", "nsswitch", "hosts file", "snapshot", "answer", "client views", "route"),
        *("TCP 443", "TCP 80", "TLS", "/v2/", "realm", "token service", "storage"),
    }


def use_a_second_resolver(world: World) -> None:
    world.use_resolvers(IDC_ADDRESS, IDC_RESOLVER)


def use_another_resolver(world: World) -> None:
    world.use_resolvers(IDC_RESOLVER)


def kill_the_proxy(world: World) -> None:
    world.proxy.kill()


def shadow_the_bucket(world: World) -> None:
    world.use_hosts(f"100.118.28.99 {BUCKET}")


def drop_the_route(world: World) -> None:
    world.idc_space.drop_route(f"{REGISTRY_ADDRESS}/32")


def lose_packets_on_the_way(world: World) -> None:
    world.transit_space.lose_packets(f"{REGISTRY_ADDRESS}/32")


def state_fewer_routes(world: World) -> None:
    world.configure(registries={"network": {"routed": ["10.94.0.0/16", "100.103.7.181/32"]}})


def close_the_port(world: World) -> None:
    world.region.take(Shape(registry_port=8443))


def close_the_token_port(world: World) -> None:
    world.region.tokens.kill()


def close_the_storage_port(world: World) -> None:
    world.region.take(Shape(storage=("100.118.28.44",)))


def certify_somebody_else(world: World) -> None:
    world.region.take(Shape(registry_certificate=OTHER_HOST))


def move_the_realm(world: World) -> None:
    world.region.take(Shape(realm=f"https://{OTHER_AUTH}/auth"))


def break_storage(world: World) -> None:
    world.region.take(Shape(storage_fails=True))


@pytest.mark.parametrize(
    ("damage", "hop", "subject"),
    [
        (use_a_second_resolver, "resolvers", IDC_RESOLVER),
        (use_another_resolver, "resolvers", IDC_RESOLVER),
        (kill_the_proxy, "resolvers", IDC_ADDRESS),
        (shadow_the_bucket, "hosts file", "/etc/hosts:2"),
        (drop_the_route, "route", REGISTRY),
        (state_fewer_routes, "route", STORAGE),
        (lose_packets_on_the_way, "TCP 443", REGISTRY),
        (close_the_port, "TCP 443", REGISTRY),
        (close_the_token_port, "TCP 443", AUTH),
        (close_the_storage_port, "TCP 443", STORAGE),
        (certify_somebody_else, "TLS", REGISTRY),
        (move_the_realm, "realm", REGISTRY),
        (break_storage, "storage", STORAGE),
    ],
)
def test_broken_hop_is_named_and_no_other(
    world: World, damage: Callable[[World], None], hop: str, subject: str
) -> None:
    damage(world)
    found = diagnose(world)
    assert (found.code, found.failed) == (1, [(hop, subject)])


def test_names_that_nobody_has_told_are_missing_from_the_snapshot(world: World) -> None:
    world.helper.kill()
    world.forget()
    world.start_proxy()
    found = diagnose(world)
    assert found.code == 1
    assert found.failed == [("snapshot", name) for name in (REGISTRY, AUTH, STORAGE, f"*.{STORAGE}")]
