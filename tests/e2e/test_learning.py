"""How addresses travel: from the source region to the client, and through every failure on the way."""

from __future__ import annotations

import json

import pytest

from dnsproxy.core.learned import Snapshot
from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, AUTH, BUCKET, OTHER, OTHER_ADDRESS, REGISTRY, STORAGE, World

pytestmark = pytest.mark.e2e

MOVED = "10.94.205.199"


def addresses(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    return {entry.name.removesuffix("."): entry.addresses for entry in snapshot.names}


def short(world: World, name: str = REGISTRY) -> list[str]:
    return world.server.short(name)


# -- changes at the source ------------------------------------------------------


def test_changed_address_is_answered_after_the_next_refresh(started: World) -> None:
    assert short(started) == [ADDRESSES[REGISTRY]]
    started.source.replace(REGISTRY, f"A {MOVED}")
    # Helper and proxy each look once a second.
    wait_for(lambda: short(started) == [MOVED], "the moved address is answered", deadline=10)
    (change,) = [
        change
        for event in started.proxy.events("learned.swapped")
        for change in event["changes"]
        if change["old"]
    ]
    assert change == {"name": f"{REGISTRY}.", "old": [ADDRESSES[REGISTRY]], "new": [MOVED]}
    assert short(started, AUTH) == [ADDRESSES[AUTH]]


def test_changed_endpoint_moves_every_bucket_below_it(started: World) -> None:
    started.source.replace(STORAGE, "A 100.118.28.44", "A 100.118.28.45")
    expected = ["100.118.28.44", "100.118.28.45"]
    wait_for(lambda: short(started, BUCKET) == expected, "the whole new set is answered for a bucket")
    assert short(started, STORAGE) == expected


def test_ipv6_address_at_the_source_is_answered_too(started: World) -> None:
    started.source.replace(REGISTRY, f"A {MOVED}", "AAAA fd00::198")
    wait_for(lambda: started.server.short(REGISTRY, "AAAA") == ["fd00::198"], "the AAAA record is answered")
    assert short(started) == [MOVED]


def test_name_that_vanishes_at_the_source_keeps_its_address(started: World) -> None:
    started.source.replace(AUTH)
    wait_for(lambda: started.helper.events("helper.resolve_failed"), "the helper finds the name gone")
    started.source.replace(REGISTRY, f"A {MOVED}")
    wait_for(lambda: short(started) == [MOVED], "a later change arrives")
    assert short(started, AUTH) == [ADDRESSES[AUTH]]


# -- parts that are gone ----------------------------------------------------------


def test_killed_helper_changes_no_answer_and_its_return_is_noticed(started: World) -> None:
    started.helper.kill()
    wait_for(lambda: started.proxy.events("learned.source_failed"), "the proxy finds the helper gone")
    for name, address in ADDRESSES.items():
        assert short(started, name) == [address]
    assert started.admin("/ready").status == 200
    started.source.replace(REGISTRY, f"A {MOVED}")
    started.start_helper()
    wait_for(lambda: short(started) == [MOVED], "what has changed meanwhile is answered")


def test_a_restart_of_the_helper_keeps_a_change_for_seconds_only(world: World) -> None:
    """With `learn.refresh` of 15 s the first retry came after 15 to 45 s."""
    world.configure(learn={"refresh": "15s"})
    world.start()
    assert world.helper.stop() == 0
    wait_for(lambda: world.proxy.events("learned.source_failed"), "the proxy finds the helper gone")
    world.source.replace(REGISTRY, f"A {MOVED}")
    world.start_helper()
    wait_for(lambda: short(world) == [MOVED], "the change is answered", deadline=12)


def test_proxy_restarted_without_a_helper_answers_from_disk(started: World) -> None:
    wait_for(started.state_file.exists, "the snapshot is on disk")
    started.helper.kill()
    assert started.proxy.stop() == 0
    started.source.process.kill()
    started.start_proxy()
    for name, address in {**ADDRESSES, BUCKET: ADDRESSES[STORAGE]}.items():
        assert short(started, name) == [address]
    assert started.admin("/ready").status == 200


def test_killed_proxy_has_the_last_change_on_disk(started: World) -> None:
    started.source.replace(REGISTRY, f"A {MOVED}")
    wait_for(lambda: short(started) == [MOVED], "the moved address is answered")
    # What is answered is on disk.
    started.proxy.kill()
    started.helper.kill()
    started.start_proxy()
    assert short(started) == [MOVED]


def test_torn_state_file_is_set_aside_and_the_proxy_starts(started: World) -> None:
    wait_for(started.state_file.exists, "the snapshot is on disk")
    started.helper.kill()
    assert started.proxy.stop() == 0
    whole = started.state_file.read_bytes()
    started.state_file.write_bytes(whole[: len(whole) // 2])
    started.start_proxy()
    assert started.server.dig(REGISTRY).rcode == "SERVFAIL"
    assert short(started, OTHER) == [OTHER_ADDRESS]
    (aside,) = started.state_file.parent.glob("learned.jws.bad-*")
    assert aside.read_bytes() == whole[: len(whole) // 2]
    started.start_helper()
    wait_for(lambda: short(started) == [ADDRESSES[REGISTRY]], "the name is learned again")


# -- before the first snapshot ------------------------------------------------------


def test_before_the_first_snapshot_owned_names_are_not_ready_and_others_work(world: World) -> None:
    world.source.start()
    world.upstream.start()
    world.start_proxy()
    reply = world.server.dig(REGISTRY)
    assert (reply.rcode, reply.extended_errors) == ("SERVFAIL", (14,))
    assert short(world, OTHER) == [OTHER_ADDRESS]
    ready = world.admin("/ready")
    assert ready.status == 503
    for name in (REGISTRY, AUTH, STORAGE):
        assert name in ready.body.decode()
    assert world.admin("/health").status == 200
    assert world.command("status").returncode == 1
    world.start_helper()
    world.wait_ready()
    assert short(world) == [ADDRESSES[REGISTRY]]
    assert world.command("status").returncode == 0


def test_one_missing_name_is_named_and_the_others_are_answered(world: World) -> None:
    world.source.start()
    world.upstream.start()
    world.source.replace(AUTH)
    world.start_helper()
    world.start_proxy()
    wait_for(lambda: short(world) == [ADDRESSES[REGISTRY]], "the other names are learned")
    ready = world.admin("/ready")
    assert ready.status == 503
    assert AUTH in ready.body.decode()
    assert REGISTRY not in ready.body.decode()
    done = world.command("status", "--json")
    assert done.returncode == 1
    states = {entry["name"].removesuffix("."): entry["status"] for entry in json.loads(done.stdout)["names"]}
    assert states == {REGISTRY: "ok", AUTH: "missing", STORAGE: "ok", f"*.{STORAGE}": "ok"}


# -- other channels -------------------------------------------------------------------


def test_file_channel_carries_changes_and_a_cut_file_is_refused(world: World) -> None:
    published = world.folder / "channel.jws"
    world.configure(
        helper={"publish_file": str(published)}, learn={"sources": [{"url": f"file://{published}"}]}
    )
    world.start()
    world.source.replace(REGISTRY, f"A {MOVED}")
    wait_for(lambda: short(world) == [MOVED], "the moved address is answered")
    world.helper.kill()
    published.write_bytes(published.read_bytes()[:200])
    (event, *_) = wait_for(lambda: world.proxy.events("learned.rejected"), "the cut file is refused")
    assert event["reason"] == "malformed"
    assert short(world) == [MOVED]
