"""Trials of new sets over time, through the vetting of a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dnsproxy.core.canary import CanaryPolicy, Ending, State, Trial
from dnsproxy.core.holding import Policy
from dnsproxy.core.verify import Verifier
from dnsproxy.errors import OrderError
from dnsproxy.trials import Trials, canary_policy
from tests.trialling import NAME, Clock, TriedProxy

OLD, NEW, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"
LEADING, OTHERS = "{share: 100%}", "{share: 0%}"


@pytest.fixture
def clock() -> Iterator[Clock]:
    made = Clock()
    with made.in_force():
        yield made


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def started(clock: Clock, folder: Path, canary: str) -> TriedProxy:
    """A proxy that answers OLD, and has been told of NEW."""
    made = TriedProxy(clock, folder, canary)
    made.take(OLD)
    made.elapse(60)
    made.take(NEW)
    made.probe()
    return made


def events(logs: list[Any], event: str) -> list[Any]:
    return [line for line in logs if line["event"] == event]


def endings(proxy: TriedProxy) -> dict[Ending, int]:
    return dict(proxy.vetting.canary().endings)


def test_without_a_canary_a_set_that_works_is_taken_at_once(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, "")
    assert proxy.served() == (NEW,)
    assert proxy.vetting.orders.trials == {}
    assert proxy.vetting.canary().policy is None


def test_the_group_takes_it_at_once_and_keeps_it(clock: Clock, tmp_path: Path, logs: list[Any]) -> None:
    proxy = started(clock, tmp_path, LEADING)
    assert proxy.served() == (NEW,)
    assert proxy.vetting.canary().served_to(NAME) == "all"
    (line,) = events(logs, "canary.started")
    assert (line["old"], line["new"], line["group"]) == ([OLD], [NEW], True)
    proxy.elapse(600)
    assert proxy.served() == (NEW,)
    assert proxy.vetting.orders.trials == {}
    assert endings(proxy) == {Ending.HELD: 1}
    (line,) = events(logs, "canary.promoted")
    assert (line["new"], line["reason"]) == ([NEW], "held")


@pytest.mark.parametrize("new", [("10.0.0.2", "fd00::2"), (OLD, "fd00::2")])
def test_a_host_without_ipv6_rolls_no_set_back_for_it(
    clock: Clock, tmp_path: Path, new: tuple[str, ...]
) -> None:
    clock.unrouted = {"fd00::1", "fd00::2"}
    proxy = TriedProxy(clock, tmp_path, OTHERS)
    proxy.take(OLD, "fd00::1")
    proxy.elapse(60)
    proxy.take(*new)
    proxy.elapse(700)
    assert endings(proxy) == {Ending.HELD: 1}
    assert proxy.served() == new[:1]


@pytest.mark.parametrize("new", ["fd00::2", "10.0.0.2"])
def test_a_set_without_any_route_is_rolled_back(clock: Clock, tmp_path: Path, new: str) -> None:
    clock.unrouted = {new}
    proxy = TriedProxy(clock, tmp_path, OTHERS)
    proxy.take(OLD)
    proxy.elapse(60)
    proxy.take(new)
    proxy.elapse(700)
    assert endings(proxy) == {Ending.SILENT: 1}
    assert proxy.served() == (OLD,)


def test_endings_are_counted_on_after_a_reload(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, LEADING)
    proxy.elapse(600)
    reloaded = proxy._made()
    reloaded.take_over(proxy.vetting)
    assert reloaded.canary().endings == {Ending.HELD: 1}


def test_others_wait_until_hold_is_over(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, OTHERS)
    proxy.elapse(599)
    assert proxy.served() == (OLD,)
    assert proxy.vetting.canary().served_to(NAME) == "none"
    proxy.elapse(1)
    assert proxy.served() == (NEW,)


@pytest.mark.parametrize("canary", [LEADING, OTHERS])
def test_a_set_that_fails_is_rolled_back_and_refused(
    clock: Clock, tmp_path: Path, canary: str, logs: list[Any]
) -> None:
    proxy = started(clock, tmp_path, canary)
    clock.dead.add(NEW)
    proxy.elapse(60)
    assert proxy.served() == (OLD,)
    assert proxy.vetting.orders.trials[NAME].state is State.ROLLED_BACK
    (line,) = events(logs, "canary.rolled_back")
    assert (line["new"], line["reason"]) == ([NEW], "failed")
    assert line["detail"] == f"{NEW} failed 3 times in a row"
    # It stays refused though it works again, and whatever the helper says of it.
    clock.dead.clear()
    proxy.take(NEW)
    proxy.elapse(86_400)
    assert proxy.served() == (OLD,)
    # Another set is tried anew.
    proxy.take(OTHER)
    proxy.elapse(600)
    assert proxy.served() == (OTHER,)
    assert endings(proxy) == {Ending.FAILED: 1, Ending.HELD: 1}


def test_the_group_goes_back_as_soon_as_nothing_of_the_set_lives(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, LEADING)
    clock.dead.add(NEW)
    # The second failure in a row; the third is what refuses it.
    proxy.elapse(32)
    assert proxy.served() == (OLD,)
    assert proxy.vetting.orders.trials[NAME].is_running
    clock.dead.clear()
    proxy.elapse(5)
    assert proxy.served() == (NEW,)


def test_an_address_that_never_answers_is_refused_at_the_end(clock: Clock, tmp_path: Path) -> None:
    clock.dead.add(NEW)
    proxy = started(clock, tmp_path, LEADING)
    proxy.elapse(595)
    assert proxy.served() == (OLD,)
    assert proxy.vetting.orders.trials[NAME].is_running
    proxy.elapse(40)
    assert endings(proxy) == {Ending.SILENT: 1}


@pytest.mark.parametrize("is_refused", [False, True])
def test_when_the_old_set_fails_the_new_one_is_taken_at_once(
    clock: Clock, tmp_path: Path, is_refused: bool
) -> None:
    proxy = started(clock, tmp_path, OTHERS)
    if is_refused:
        proxy.vetting.rollback_canary(NAME)
    clock.dead.add(OLD)
    proxy.elapse(40)
    assert proxy.served() == (NEW,)
    assert endings(proxy)[Ending.OLD_FAILED] == 1
    assert proxy.vetting.orders.trials == {}


def test_when_both_fail_it_is_as_without_a_canary(clock: Clock, tmp_path: Path) -> None:
    proxies = [started(clock, tmp_path, canary) for canary in (LEADING, OTHERS)]
    plain = TriedProxy(clock, tmp_path, "", identity="plain")
    plain.take(OLD)
    plain.elapse(60)
    clock.dead |= {OLD, NEW}
    plain.take(NEW)
    start = clock.now
    plain.elapse(120)
    for proxy in proxies:
        clock.now = start
        proxy.elapse(120)
        assert proxy.served() == plain.served() == (NEW,)


def test_a_set_that_is_taken_back_by_the_helper_is_forgotten(
    clock: Clock, tmp_path: Path, logs: list[Any]
) -> None:
    proxy = started(clock, tmp_path, LEADING)
    proxy.take(OLD)
    assert proxy.served() == (OLD,)
    assert proxy.vetting.orders.trials == {}
    assert [line["new"] for line in events(logs, "canary.withdrawn")] == [[NEW]]


@pytest.mark.parametrize("canary", [LEADING, OTHERS])
def test_a_trial_goes_on_after_a_restart(clock: Clock, tmp_path: Path, canary: str) -> None:
    proxy = started(clock, tmp_path, canary)
    before = proxy.served()
    proxy.elapse(300)
    proxy.restart()
    # Before any probe has ended: each proxy answers with the set it had.
    assert proxy.served() == before
    proxy.elapse(299)
    assert proxy.served() == before
    proxy.elapse(1)
    assert proxy.served() == (NEW,)


def test_what_was_refused_is_refused_after_a_restart(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, LEADING)
    clock.dead.add(NEW)
    proxy.elapse(60)
    clock.dead.clear()
    proxy.restart()
    proxy.elapse(3_600)
    assert proxy.served() == (OLD,)


@pytest.mark.parametrize("canary", [LEADING, OTHERS])
def test_what_other_proxies_have_rolled_back_is_dropped_without_waiting(
    clock: Clock, tmp_path: Path, canary: str
) -> None:
    proxy = started(clock, tmp_path, canary)
    proxy.take(NEW, refused=((NEW,),))
    assert proxy.served() == (OLD,)
    assert endings(proxy) == {Ending.FLEET: 1}
    # The helper has forgotten; it stays refused here.
    proxy.take(NEW)
    proxy.elapse(3_600)
    assert proxy.served() == (OLD,)


def test_a_refusal_of_others_counts_only_where_the_old_set_works(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, OTHERS)
    clock.dead.add(OLD)
    proxy.elapse(40)
    proxy.take(NEW, refused=((NEW,),))
    proxy.elapse(3_600)
    assert proxy.served() == (NEW,)


def test_an_operator_decides_sooner(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, OTHERS)
    proxy.vetting.promote_canary("A.example")
    assert proxy.served() == (NEW,)
    proxy.take(OTHER)
    proxy.vetting.rollback_canary(NAME)
    proxy.elapse(86_400)
    assert proxy.served() == (NEW,)
    with pytest.raises(OrderError, match="refused already"):
        proxy.vetting.rollback_canary(NAME)
    proxy.vetting.promote_canary(NAME)
    assert proxy.served() == (OTHER,)
    assert endings(proxy) == {Ending.ACCEPTED: 2, Ending.REFUSED: 1}
    for order in (proxy.vetting.promote_canary, proxy.vetting.rollback_canary):
        with pytest.raises(OrderError, match="no new addresses are on trial"):
            order(NAME)


@pytest.mark.parametrize("canary", [LEADING, OTHERS])
def test_a_freeze_keeps_what_is_in_service_and_ends_the_trial(
    clock: Clock, tmp_path: Path, canary: str
) -> None:
    proxy = started(clock, tmp_path, canary)
    served = proxy.served()
    proxy.vetting.freeze()
    proxy.elapse(3_600)
    assert proxy.served() == served
    assert proxy.vetting.orders.trials == {}
    proxy.vetting.unfreeze()
    proxy.elapse(600)
    assert proxy.served() == (NEW,)


def test_a_pin_ends_the_trial_and_it_starts_anew_after_it(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, OTHERS)
    proxy.vetting.pin(NAME, [OTHER])
    assert proxy.vetting.orders.trials == {}
    proxy.elapse(3_600)
    assert proxy.served() == (OTHER,)
    proxy.vetting.unpin(NAME)
    proxy.elapse(599)
    assert proxy.served() == (OLD,)
    proxy.elapse(1)
    assert proxy.served() == (NEW,)


def test_a_pin_does_not_forget_what_was_refused(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, OTHERS)
    proxy.vetting.rollback_canary(NAME)
    proxy.vetting.pin(NAME, [OTHER])
    proxy.vetting.unpin(NAME)
    proxy.elapse(3_600)
    assert proxy.served() == (OLD,)
    proxy.vetting.pin(NAME, [OTHER])
    proxy.take(OLD, OTHER)
    with pytest.raises(OrderError, match="not what is learned"):
        proxy.vetting.promote_canary(NAME)


def test_a_configuration_without_a_canary_ends_all_trials(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, OTHERS)
    earlier = proxy.vetting
    proxy.canary = ""
    proxy.vetting = proxy._made()
    proxy.vetting.take_over(earlier)
    proxy.vetting.take(proxy.book)
    proxy.probe()
    assert proxy.served() == (NEW,)


def test_set_that_changes_all_the_time_is_taken_in_the_end(clock: Clock, tmp_path: Path) -> None:
    proxy = started(clock, tmp_path, OTHERS)
    for count in range(25):
        proxy.take(NEW, *([OLD] if count % 2 else []))
        proxy.elapse(30)
    assert NEW in proxy.served()


async def test_the_end_of_a_hold_is_noticed_without_a_probe() -> None:
    now = 1_000_000.0
    trials = Trials(CanaryPolicy(0.0, 3_600.0, 3, "x"), Verifier(Policy()), lambda: now)
    due = asyncio.Event()
    held = {NAME: Trial((NEW,), None, {NEW: int(now) - 3_599})}
    task = asyncio.ensure_future(trials.run(lambda: held, due.set))
    try:
        async with asyncio.timeout(20):
            await due.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_the_policy_is_that_of_the_configuration(clock: Clock, tmp_path: Path) -> None:
    proxy = TriedProxy(clock, tmp_path, "{share: 2.5%, hold: 1h, fall: 5}")
    assert canary_policy(proxy.settings()) == CanaryPolicy(0.025, 3_600.0, 5, "proxy-1")
    nameless = proxy.settings().model_copy(
        update={"admin": proxy.settings().admin.model_copy(update={"identity": None})}
    )
    found = canary_policy(nameless)
    assert found is not None
    assert found.identity
