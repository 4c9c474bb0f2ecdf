"""Clocks that are wrong and helpers that have forgotten: nothing is lost, and nobody is locked out."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, AUTH, REGISTRY, World
from tests.faults.asking import Steady
from tests.faults.clock import Clock

pytestmark = pytest.mark.faults

DAY = 86_400
MOVED = "10.94.205.199"


@pytest.fixture
def quick(world: World) -> World:
    """A world in which nothing runs yet, and a source that fails is asked again within a second."""
    world.configure(learn={"refresh": "200ms"})
    return world


def rejected(world: World, reason: str) -> float:
    return world.metric(f'dnsproxy_learned_rejected_total{{reason="{reason}"}}')


def source(world: World) -> dict[str, object]:
    (found,) = world.admin("/api/v1/status").json()["sources"]
    assert isinstance(found, dict)
    return found


def wait_well(world: World) -> None:
    wait_for(lambda: source(world)["last_error"] is None, "the source is well again")


def wait_moved(world: World) -> None:
    """Move the registry in the source region, and wait until the proxy answers so."""
    world.source.replace(REGISTRY, f"A {MOVED}")
    with Steady(world, REGISTRY, (ADDRESSES[REGISTRY],), (MOVED,)):
        wait_for(lambda: world.server.short(REGISTRY) == [MOVED], "the change is answered")


def restart_helper(world: World) -> None:
    """Kill the helper and start it anew."""
    world.helper.kill()
    runs = len(world.helper.events("helper.started"))
    world.helper.start(lambda: len(world.helper.events("helper.started")) > runs)


def restart_proxy(world: World) -> None:
    assert world.proxy.stop() == 0
    world.start_proxy()


@pytest.mark.parametrize(
    ("shift", "reason"), [(+DAY, "not_yet_valid"), (-DAY - 400, "expired")], ids=["ahead", "behind"]
)
def test_a_helper_whose_clock_is_a_day_off_is_refused_until_it_is_set_right(
    quick: World, shift: int, reason: str, note: Callable[[str], None]
) -> None:
    world, clock = quick, Clock(quick.folder / "clock")
    world.helper.within = clock.within
    world.start()
    with Steady(world, AUTH):
        clock.shift(shift)
        wait_for(lambda: rejected(world, reason) >= 1, f"{reason} is counted")
        assert reason in str(source(world)["last_error"])
        # It has no other way to know what is true: the last good one goes on, and a change waits.
        world.source.replace(REGISTRY, f"A {MOVED}")
        before = rejected(world, reason)
        wait_for(lambda: rejected(world, reason) >= before + 2, "it is refused again and again")
        assert world.server.short(REGISTRY) == [ADDRESSES[REGISTRY]]
        clock.shift(0)
        wait_for(lambda: world.server.short(REGISTRY) == [MOVED], "the change is answered")
        wait_well(world)
    note(f"{shift:+d} s: {reason} counted {rejected(world, reason):g} times")


@pytest.mark.parametrize(
    ("shift", "reason"), [(+DAY + 400, "expired"), (-DAY, "not_yet_valid")], ids=["ahead", "behind"]
)
def test_a_proxy_whose_clock_is_a_day_off_answers_what_it_knows(
    quick: World, shift: int, reason: str, note: Callable[[str], None]
) -> None:
    world, clock = quick, Clock(quick.folder / "clock")
    world.proxy.within = clock.within
    world.start()
    with Steady(world, AUTH):
        clock.shift(shift)
        wait_for(lambda: rejected(world, reason) >= 1, f"{reason} is counted")
        assert reason in str(source(world)["last_error"])
        assert world.server.short(REGISTRY) == [ADDRESSES[REGISTRY]]
    # It starts with the wrong clock too: what was taken is not judged by time again.
    restart_proxy(world)
    with Steady(world, AUTH):
        assert world.server.short(REGISTRY) == [ADDRESSES[REGISTRY]]
        clock.shift(0)
        wait_well(world)
    wait_moved(world)
    note(f"{shift:+d} s: {reason}, answered before and after a restart, well again when set right")


def test_a_jump_of_the_helpers_clock_within_the_window_loses_nothing(quick: World) -> None:
    # Four minutes are believed, and so is what comes after they are taken back.
    world, clock = quick, Clock(quick.folder / "clock")
    world.helper.within = clock.within
    world.start()
    for shift in (240, 0, -240, 0):
        clock.shift(shift)
        moved = f"10.94.205.{200 + shift // 60}"
        world.source.replace(REGISTRY, f"A {moved}")
        wait_for(lambda moved=moved: world.server.short(REGISTRY) == [moved], f"at {shift:+d} s")  # type: ignore[misc]
    assert rejected(world, "older") == 0


def test_a_helper_that_lost_its_state_after_both_clocks_were_wrong_is_believed(
    quick: World, note: Callable[[str], None]
) -> None:
    world, clock = quick, Clock(quick.folder / "clock")
    clock.shift(30 * DAY)
    world.helper.within = world.proxy.within = clock.within
    world.start()
    ahead = int(str(source(world)["serial"]))
    clock.shift(0)
    # No publish_file: it knows nothing of the serials that it has drawn.
    restart_helper(world)
    wait_for(lambda: int(str(source(world)["serial"])) < ahead, "the smaller serial is taken")
    wait_well(world)
    wait_moved(world)
    restart_proxy(world)
    with Steady(world, REGISTRY, (MOVED,)):
        wait_well(world)
    note(f"serial {ahead}, then {source(world)['serial']}; no order of the operator's was needed")


def test_a_helper_restored_from_a_backup_is_believed(quick: World, note: Callable[[str], None]) -> None:
    world = quick
    published = world.folder / "published.jws"
    world.configure(helper={"publish_file": str(published)})
    world.start()
    wait_for(published.exists, "the helper has published a file")
    backup = world.folder / "backup.jws"
    shutil.copy(published, backup)
    # A change and its end: the addresses are those of the backup, and the serial is not.
    wait_moved(world)
    world.source.replace(REGISTRY, f"A {ADDRESSES[REGISTRY]}")
    wait_for(lambda: world.server.short(REGISTRY) == [ADDRESSES[REGISTRY]], "the change is taken back")
    serial = int(str(source(world)["serial"]))
    world.helper.kill()
    shutil.copy(backup, published)
    with Steady(world):
        restart_helper(world)
        wait_for(lambda: int(str(source(world)["serial"])) > serial, "a newer serial is taken")
        wait_well(world)
    assert rejected(world, "older") == 0
    note("restored, restarted, believed at once")
