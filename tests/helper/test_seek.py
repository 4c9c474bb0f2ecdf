from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from dnsproxy.core.registry import MAX_FOUND, Found
from dnsproxy.errors import DiscoverError, Doubt
from dnsproxy.helper.discover import Outcome, Report, Target
from dnsproxy.helper.seek import KEEP, ROUNDS, Findings, Seeker
from dnsproxy.settings.discovery import DiscoverSettings

WALL = 1_764_000_000.0
TARGET = Target("hz", "registry.example.", frozenset({"auth", "storage"}), DiscoverSettings())


def failure(reason: Doubt = Doubt.TIMEOUT) -> DiscoverError:
    return DiscoverError(reason, "no whole answer")


def auth(*names: str) -> Report:
    return Report({"auth": names})


def known(findings: Findings) -> dict[str, tuple[str, ...]]:
    return {found.role: found.names for found in findings.found()}


# --- what is kept


def test_nothing_is_known_before_a_registry_has_told() -> None:
    findings = Findings()
    findings.record("hz", Report({"auth": failure()}), WALL)
    assert findings.found() == ()


def test_what_was_told_comes_with_its_time() -> None:
    findings = Findings()
    findings.record("hz", Report({"storage": ("b.example.",), "auth": ()}), WALL + 0.7)
    assert findings.found() == (
        Found("hz", "auth", (), int(WALL)),
        Found("hz", "storage", ("b.example.",), int(WALL)),
    )


def test_a_failure_takes_nothing_back_however_long_it_lasts() -> None:
    findings = Findings()
    findings.record("hz", auth("a.example."), WALL)
    findings.record("hz", Report({"auth": failure()}), WALL + 100 * KEEP)
    assert findings.found() == (Found("hz", "auth", ("a.example.",), int(WALL)),)
    assert findings.failing == {("hz", "auth"): Doubt.TIMEOUT}


def test_an_earlier_name_is_kept_for_an_hour_beside_the_new_one() -> None:
    findings = Findings()
    findings.record("hz", auth("a.example."), WALL)
    findings.record("hz", auth("b.example."), WALL + KEEP - 1)
    assert known(findings) == {"auth": ("a.example.", "b.example.")}
    findings.record("hz", auth("b.example."), WALL + KEEP)
    assert known(findings) == {"auth": ("b.example.",)}


def test_an_earlier_name_goes_although_the_clock_was_set_back() -> None:
    findings = Findings()
    findings.record("hz", auth("a.example."), WALL)
    findings.record("hz", auth("b.example."), WALL - KEEP + 1)
    assert known(findings) == {"auth": ("a.example.", "b.example.")}
    findings.record("hz", auth("b.example."), WALL - KEEP)
    assert known(findings) == {"auth": ("b.example.",)}


def test_a_registry_whose_nodes_differ_does_not_make_names_come_and_go() -> None:
    findings = Findings()
    for turn in range(50):
        findings.record("hz", auth(f"{'ab'[turn % 2]}.example."), WALL + turn * 300)
        if turn:
            assert known(findings) == {"auth": ("a.example.", "b.example.")}


def test_auth_that_was_taken_over_ends_its_name_after_an_hour() -> None:
    findings = Findings()
    findings.record("hz", auth("a.example."), WALL)
    findings.record("hz", auth(), WALL + 1)
    assert known(findings) == {"auth": ("a.example.",)}
    findings.record("hz", auth(), WALL + KEEP)
    assert known(findings) == {"auth": ()}


def test_a_registry_that_tells_ever_new_names_fills_nothing_up() -> None:
    findings = Findings()
    for turn in range(100):
        findings.record("hz", auth(f"n{turn:03}.example."), WALL + turn)
    (found,) = findings.found()
    assert found.names == tuple(f"n{turn:03}.example." for turn in range(100 - MAX_FOUND, 100))


def test_a_restart_goes_on_from_what_was_published() -> None:
    findings = Findings()
    findings.restore([Found("hz", "auth", ("a.example.",), int(WALL))])
    findings.record("hz", Report({"auth": failure()}), WALL + 10 * KEEP)
    assert known(findings) == {"auth": ("a.example.",)}
    # What was told since is newer than what was published.
    findings.record("hz", auth("b.example."), WALL + 10 * KEEP)
    findings.restore([Found("hz", "auth", ("a.example.",), int(WALL))])
    assert known(findings) == {"auth": ("b.example.",)}


def test_what_another_helper_of_the_group_has_found_is_kept_beside_what_was_found_here() -> None:
    findings = Findings()
    findings.record("hz", auth("a.example."), WALL)
    # It keeps an earlier name still that this one, started since, has never been told.
    findings.restore([Found("hz", "auth", ("a.example.", "b.example."), int(WALL) + 60)])
    assert known(findings) == {"auth": ("a.example.", "b.example.")}
    findings.record("hz", auth("a.example."), WALL + 60 + KEEP - 1)
    assert known(findings) == {"auth": ("a.example.", "b.example.")}
    findings.record("hz", auth("a.example."), WALL + 60 + KEEP)
    assert known(findings) == {"auth": ("a.example.",)}


def test_what_another_helper_has_found_later_counts_where_this_one_was_told_nothing_since() -> None:
    findings = Findings()
    findings.record("hz", auth("a.example."), WALL)
    findings.record("hz", Report({"auth": failure()}), WALL + 2 * KEEP)
    findings.restore([Found("hz", "auth", ("c.example.",), int(WALL + 2 * KEEP))])
    assert known(findings) == {"auth": ("c.example.",)}


# --- what is logged


def test_each_change_is_logged_once() -> None:
    findings = Findings()
    steps: list[Outcome] = [
        failure(),
        failure(),
        failure(Doubt.FOREIGN),
        ("a.example.",),
        ("a.example.",),
        failure(),
        ("a.example.",),
        ("b.example.",),
    ]
    with capture_logs() as logs:
        for outcome in steps:
            findings.record("hz", Report({"auth": outcome}), WALL)
    assert [(entry["event"], entry.get("reason"), entry.get("names")) for entry in logs] == [
        ("helper.discover_failed", "timeout", None),
        ("helper.discover_failed", "foreign", None),
        ("helper.discovered", None, ["a.example."]),
        ("helper.discover_failed", "timeout", None),
        ("helper.discovered", None, ["a.example."]),
        ("helper.discovered", None, ["a.example.", "b.example."]),
    ]
    assert logs[3]["kept"] == ["a.example."]


def test_a_password_that_everybody_can_read_is_told_once() -> None:
    findings = Findings()
    with capture_logs() as logs:
        for exposed in (True, True, False, True):
            findings.record("hz", Report({"auth": ()}, exposed=exposed), WALL)
    assert [e["event"] for e in logs].count("helper.credentials_exposed") == 2


# --- when it asks


@pytest.mark.parametrize(
    ("failures", "rounds"), [(0, ROUNDS), (1, 1), (2, 2), (3, 4), (4, 8), (5, ROUNDS), (10_000, ROUNDS)]
)
def test_it_asks_in_every_tenth_round_and_sooner_after_a_failure(failures: int, rounds: int) -> None:
    async def ask(_target: Target) -> Report:
        return Report()

    assert Seeker([TARGET], ask, interval=30).delay(failures) == 30 * rounds


async def test_other_names_are_told_at_once_and_the_same_ones_not() -> None:
    reports = [auth("a.example."), auth("a.example."), Report({"auth": failure()}), auth("b.example.")]
    done = asyncio.Event()

    async def ask(_target: Target) -> Report:
        if reports:
            return reports.pop(0)
        done.set()
        return await asyncio.Future[Report]()

    seeker = Seeker([TARGET], ask, interval=0, wall=lambda: WALL)
    told: list[dict[str, tuple[str, ...]]] = []
    task = asyncio.create_task(seeker.run(lambda: told.append(known(seeker.findings))))
    async with asyncio.timeout(20):
        await done.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == [{"auth": ("a.example.",)}, {"auth": ("a.example.", "b.example.")}]


async def test_a_registry_that_hangs_does_not_hold_the_others_up() -> None:
    other = Target("sh", "other.example.", frozenset({"auth"}), DiscoverSettings())

    async def ask(target: Target) -> Report:
        return auth("b.example.") if target is other else await asyncio.Future[Report]()

    seeker = Seeker([TARGET, other], ask, interval=30)
    changed = asyncio.Event()
    task = asyncio.create_task(seeker.run(changed.set))
    async with asyncio.timeout(20):
        await changed.wait()
    assert [found.registry for found in seeker.findings.found()] == ["sh"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_mistake_of_ours_ends_nothing() -> None:
    async def ask(_target: Target) -> Report:
        raise ZeroDivisionError

    seeker = Seeker([TARGET], ask, interval=30)
    with capture_logs() as logs:
        assert not await seeker.ask_once(TARGET)
    assert [entry["event"] for entry in logs] == ["helper.discover_crashed"]


async def test_one_role_that_failed_is_a_failure() -> None:
    async def ask(_target: Target) -> Report:
        return Report({"auth": ("a.example.",), "storage": failure()})

    seeker = Seeker([TARGET], ask, interval=30, wall=lambda: WALL)
    assert not await seeker.ask_once(TARGET)
    assert known(seeker.findings) == {"auth": ("a.example.",)}
