from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from dnsproxy.core import seal
from dnsproxy.core.learned import Accepted, LearnedName, Scope, Snapshot, judge
from dnsproxy.core.names import to_key
from dnsproxy.core.registry import Found, Wanted
from dnsproxy.errors import DiscoverError, Doubt
from dnsproxy.helper.discover import Report, Target
from dnsproxy.helper.issue import LIFETIME, next_snapshot
from dnsproxy.helper.jury import Jury
from dnsproxy.helper.observe import Look
from dnsproxy.helper.outlets import Outlets, make_targets
from dnsproxy.helper.seek import Seeker
from dnsproxy.helper.service import Helper
from dnsproxy.settings.discovery import DiscoverSettings
from dnsproxy.settings.jury import JurySettings
from dnsproxy.settings.publishing import FileTarget

RESOLVER = "10.0.0.2:53"
KEY = Ed25519PrivateKey.generate()
TRUSTED = {seal.key_id(KEY.public_key()): KEY.public_key()}
WALL = 1_764_000_000.5
AUTH = Wanted("auth.example.", "auth", "r")
BUCKET = Wanted("*.oss.example.", "storage", "r")


def good(*addresses: str, ttl: int = 60) -> tuple[Look, ...]:
    return (Look(RESOLVER, addresses, ttl),)


def bad(reason: str = "SERVFAIL") -> tuple[Look, ...]:
    return (Look(RESOLVER, error=f"{RESOLVER}: {reason}"),)


class World:
    """What resolvers would say, and the time; the helper sees nothing else."""

    def __init__(self) -> None:
        self.wall = WALL
        self.says: dict[str, Sequence[Look]] = {
            "auth.example.": good("192.0.2.1"),
            "oss.example.": good("192.0.2.9"),
        }
        self.asked: list[str] = []

    async def look(self, wanted: Wanted) -> Sequence[Look]:
        self.asked.append(wanted.ask)
        return self.says[wanted.ask]

    def helper(self, *wanted: Wanted, interval: float = 30, **options: Any) -> Helper:
        names = wanted or (AUTH, BUCKET)
        return Helper("helper-a", names, self.look, KEY, interval=interval, wall=lambda: self.wall, **options)


@pytest.fixture
def world() -> World:
    return World()


def learned(**changes: Any) -> LearnedName:
    entry = LearnedName("auth.example.", "auth", "r", ("192.0.2.1",), None, 60, 100, (RESOLVER,), "ok")
    return replace(entry, **changes)


LAST = Snapshot("helper-a", 5_000_000, 5000, 5000 + LIFETIME, (learned(),))


def test_the_first_serial_is_the_time_in_milliseconds() -> None:
    assert next_snapshot(None, "helper-a", (learned(),), WALL) == Snapshot(
        "helper-a", 1_764_000_000_500, 1_764_000_000, 1_764_086_400, (learned(),)
    )


def test_the_serial_stays_when_only_times_ttl_or_resolvers_change() -> None:
    entry = learned(ttl=7, observed_at=200, resolvers=("10.0.0.3:53",))
    snapshot = next_snapshot(LAST, "helper-a", (entry,), 5030.0)
    assert (snapshot.serial, snapshot.issued_at, snapshot.expires_at) == (5_000_000, 5030, 5030 + LIFETIME)
    assert snapshot.names == (entry,)


@pytest.mark.parametrize(
    "entries",
    [
        (learned(addresses=("192.0.2.2",)),),
        (learned(status="stale"),),
        (learned(cname="end.example."),),
        (learned(), learned(name="b.example.")),
        (),
    ],
)
def test_the_serial_grows_with_each_change_that_a_proxy_must_hear_of(
    entries: tuple[LearnedName, ...],
) -> None:
    assert next_snapshot(LAST, "helper-a", entries, 5030.0).serial == 5_030_000


def test_the_serial_grows_even_when_the_clock_stands_or_goes_back() -> None:
    changed = (learned(addresses=("192.0.2.2",)),)
    assert next_snapshot(LAST, "helper-a", changed, 5000.0).serial == 5_000_001
    assert next_snapshot(LAST, "helper-a", changed, 10.0).serial == 5_000_001


def test_after_the_clock_was_set_back_proxies_still_take_the_next_snapshot() -> None:
    snapshot = next_snapshot(LAST, "helper-a", LAST.names, 4000.0)
    assert (snapshot.serial, snapshot.issued_at) == (5_000_001, 4000)
    scope = Scope(frozenset({to_key("auth.example.")}))
    assert isinstance(judge(LAST, snapshot, 4000.0, scope), Accepted)


async def test_a_round_publishes_a_signed_snapshot_of_all_names(world: World) -> None:
    helper = world.helper()
    snapshot = await helper.round()
    assert helper.current is not None
    assert seal.verify(helper.current.token, TRUSTED) == snapshot == helper.current.snapshot
    assert {entry.name: entry.addresses for entry in snapshot.names} == {
        "auth.example.": ("192.0.2.1",),
        "*.oss.example.": ("192.0.2.9",),
    }


async def test_pinned_names_are_neither_asked_for_nor_published(world: World) -> None:
    pinned = Wanted("files.example.", "other", "r", addresses=("10.1.2.3",))
    snapshot = await world.helper(AUTH, pinned).round()
    assert world.asked == ["auth.example."]
    assert [entry.name for entry in snapshot.names] == ["auth.example."]


async def test_a_wildcard_and_its_parent_share_one_look(world: World) -> None:
    snapshot = await world.helper(BUCKET, Wanted("oss.example.", "storage", "r")).round()
    assert world.asked == ["oss.example."]
    assert [entry.addresses for entry in snapshot.names] == [("192.0.2.9",)] * 2


async def test_no_more_than_32_names_are_looked_at_at_once() -> None:
    busy = peak = 0

    async def look(_wanted: Wanted) -> Sequence[Look]:
        nonlocal busy, peak
        busy += 1
        peak = max(peak, busy)
        await asyncio.sleep(0)
        busy -= 1
        return good("192.0.2.1")

    names = [Wanted(f"n{number}.example.", "other", "r") for number in range(100)]
    snapshot = await Helper("helper-a", names, look, KEY, interval=30).round()
    assert (len(snapshot.names), peak) == (100, 32)


async def test_a_failure_keeps_the_addresses_and_tells_with_a_new_serial(world: World) -> None:
    helper = world.helper()
    before = await helper.round()
    world.says["auth.example."] = bad()
    world.wall += 30
    after = await helper.round()
    assert after.serial > before.serial
    assert after.names[0] == replace(before.names[0], status="stale")
    world.wall += 30
    assert (await helper.round()).serial == after.serial


@pytest.mark.parametrize(
    ("ttl", "interval", "expected"),
    [(60, 30, 30), (12, 30, 12), (0, 30, 5), (3, 30, 5), (3, 2, 2), (9000, 3600, 3600)],
)
async def test_the_next_round_respects_ttl_and_interval(
    world: World, ttl: int, interval: float, expected: float
) -> None:
    world.says["auth.example."] = good("192.0.2.1", ttl=ttl)
    helper = world.helper(AUTH, interval=interval)
    await helper.round()
    assert helper.delay() == expected


async def test_bad_rounds_are_repeated_soon_and_then_less_often(world: World) -> None:
    world.says["auth.example."] = bad()
    helper = world.helper(AUTH, interval=30)
    delays = []
    for _ in range(5):
        await helper.round()
        delays.append(helper.delay())
    assert delays == [5, 10, 20, 30, 30]
    world.says["auth.example."] = good("192.0.2.1")
    await helper.round()
    assert helper.delay() == 30


async def test_the_loop_goes_round_until_it_is_cancelled(world: World) -> None:
    third = asyncio.Event()

    async def look(wanted: Wanted) -> Sequence[Look]:
        seen = await world.look(wanted)
        if len(world.asked) >= 3:
            third.set()
        return seen

    # A clock that leaps makes every pause have passed already.
    ticks = iter(range(0, 1_000_000, 1000))
    helper = Helper("helper-a", [AUTH], look, KEY, interval=30, monotonic=lambda: float(next(ticks)))
    task = asyncio.create_task(helper.run())
    async with asyncio.timeout(20):
        await third.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_waiter_wakes_on_a_new_serial_only(world: World) -> None:
    helper = world.helper(AUTH)
    serial = (await helper.round()).serial
    waiter = asyncio.create_task(helper.wait_beyond(serial))
    world.wall += 30
    await helper.round()
    await asyncio.sleep(0)
    assert not waiter.done()
    world.says["auth.example."] = good("192.0.2.2")
    await helper.round()
    async with asyncio.timeout(20):
        await waiter
        await helper.wait_beyond(serial)
    assert helper.current is not None
    assert helper.current.snapshot.serial != serial


async def test_release_lets_waiters_go_now_and_later(world: World) -> None:
    helper = world.helper(AUTH)
    serial = (await helper.round()).serial
    waiter = asyncio.create_task(helper.wait_beyond(serial))
    await asyncio.sleep(0)
    helper.release()
    async with asyncio.timeout(20):
        await waiter
        await helper.wait_beyond(serial)


async def test_before_the_first_snapshot_nobody_waits(world: World) -> None:
    async with asyncio.timeout(20):
        await world.helper(AUTH).wait_beyond(0)


async def test_the_file_holds_the_current_token_and_is_renewed_each_round(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "snapshot.jws"
    helper = world.helper(AUTH, publish_file=path)
    for _ in range(2):
        world.wall += 30
        snapshot = await helper.round()
        assert seal.verify(path.read_text(encoding="ascii"), TRUSTED) == snapshot
    assert os.listdir(tmp_path) == ["snapshot.jws"]  # noqa: PTH208 - ASYNC240 is for the paths of programs


async def test_a_file_that_cannot_be_written_is_logged_once_and_not_fatal(
    world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "absent"
    helper = world.helper(AUTH, publish_file=folder / "snapshot.jws")
    with capture_logs() as logs:
        await helper.round()
        await helper.round()
        folder.mkdir()
        await helper.round()
    events = [entry["event"] for entry in logs if "publish_file" in entry["event"]]
    assert events == ["helper.publish_file_failed", "helper.publish_file_written"]
    assert helper.current is not None


async def test_after_a_restart_serial_and_addresses_go_on(world: World, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.jws"
    before = await world.helper(AUTH, publish_file=path).round()
    world.wall += 60
    again = world.helper(AUTH, publish_file=path)
    await again.restore()
    assert again.current is None
    # The file may be a backup, and proxies may have had a later serial since.
    after = await again.round()
    assert (after.serial, after.names[0].addresses) == (int(world.wall * 1000), ("192.0.2.1",))
    assert after.serial > before.serial
    assert (await again.round()).serial == after.serial

    world.says["auth.example."] = bad()
    third = world.helper(AUTH, publish_file=path)
    await third.restore()
    entry = (await third.round()).names[0]
    assert (entry.addresses, entry.status) == (("192.0.2.1",), "stale")


@pytest.mark.parametrize("content", ["", "not a token", "é"])
async def test_a_file_that_is_not_ours_is_passed_over(world: World, tmp_path: Path, content: str) -> None:
    path = tmp_path / "snapshot.jws"
    path.write_text(content, encoding="utf-8")
    helper = world.helper(AUTH, publish_file=path)
    with capture_logs() as logs:
        await helper.restore()
    assert [entry["event"] for entry in logs] == ["helper.restore_failed"]
    assert (await helper.round()).serial == int(WALL * 1000)


@pytest.mark.parametrize("fault", ["key", "issuer"])
async def test_a_snapshot_of_another_helper_is_passed_over(world: World, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "snapshot.jws"
    key = Ed25519PrivateKey.generate() if fault == "key" else KEY
    issuer = "helper-b" if fault == "issuer" else "helper-a"
    path.write_text(seal.sign(replace(LAST, issuer=issuer, serial=2**60), key), encoding="ascii")
    helper = world.helper(AUTH, publish_file=path)
    with capture_logs() as logs:
        await helper.restore()
    assert [entry["event"] for entry in logs] == ["helper.restore_failed"]
    assert (await helper.round()).serial == int(WALL * 1000)


async def test_a_file_that_does_not_exist_yet_is_no_event(world: World, tmp_path: Path) -> None:
    with capture_logs() as logs:
        await world.helper(AUTH, publish_file=tmp_path / "snapshot.jws").restore()
    assert logs == []


async def test_a_restart_goes_on_from_the_latest_of_all_targets(world: World, tmp_path: Path) -> None:
    old, new = tmp_path / "old.jws", tmp_path / "new.jws"
    world.wall += 1000
    for path in (old, new):
        await world.helper(AUTH, publish_file=path).round()
        world.wall += 1000
    world.wall -= 10_000  # a clock that runs behind
    entries = [FileTarget(type="file", path=path) for path in (new, tmp_path / "none.jws")]
    again = world.helper(AUTH, publish_file=old, outlets=Outlets(make_targets(entries)))
    world.says["auth.example."] = bad()
    await again.restore()
    snapshot = await again.round()
    latest = seal.verify(new.read_text(), TRUSTED)
    assert snapshot.serial > latest.serial
    assert snapshot.names[0].addresses == latest.names[0].addresses == ("192.0.2.1",)


async def test_changes_are_logged_once_each(world: World) -> None:
    helper = world.helper(AUTH)
    states = [good("192.0.2.1"), good("192.0.2.1"), bad(), bad("timeout"), good("192.0.2.2")]
    with capture_logs() as logs:
        for state in states:
            world.says["auth.example."] = state
            await helper.round()
    events = [entry["event"] for entry in logs]
    assert events == [
        "helper.resolved",
        "helper.resolve_failed",
        "helper.resolver_failed",
        "helper.resolved",
        "helper.resolver_recovered",
    ]
    assert logs[1]["reasons"] == [f"{RESOLVER}: SERVFAIL"]
    assert (logs[3]["old"], logs[3]["new"]) == (("192.0.2.1",), ("192.0.2.2",))


async def test_a_resolver_that_fails_while_another_answers_is_logged_once(world: World) -> None:
    world.says["auth.example."] = (*good("192.0.2.1"), Look("10.0.0.3:53", error="10.0.0.3:53: silence"))
    helper = world.helper(AUTH)
    with capture_logs() as logs:
        await helper.round()
        await helper.round()
    assert [entry["event"] for entry in logs] == ["helper.resolved", "helper.resolver_failed"]
    assert logs[1]["resolver"] == "10.0.0.3:53"


# --- what registries tell

TARGET = Target("r", "registry.example.", frozenset({"auth"}), DiscoverSettings())


def seeker(world: World, *reports: Report) -> Seeker:
    waiting = list(reports)

    async def ask(_target: Target) -> Report:
        return waiting.pop(0) if waiting else await asyncio.Future[Report]()

    return Seeker([TARGET], ask, interval=30, wall=lambda: world.wall, monotonic=lambda: world.wall)


def told(*names: str) -> Report:
    return Report({"auth": names})


async def test_a_found_name_is_looked_at_published_and_told_of(world: World) -> None:
    seeking = seeker(world, told("auth.example."))
    helper = world.helper(BUCKET, seeker=seeking)
    before = await helper.round()
    assert (before.found, [entry.name for entry in before.names]) == ((), ["*.oss.example."])
    await seeking.ask_once(TARGET)
    after = await helper.round()
    assert after.found == (Found("r", "auth", ("auth.example.",), int(WALL)),)
    assert after.names[1] == replace(after.names[1], name="auth.example.", addresses=("192.0.2.1",))
    assert (after.names[1].role, after.names[1].registry) == ("auth", "r")
    assert after.serial > before.serial


async def test_the_serial_stays_while_a_registry_tells_the_same(world: World) -> None:
    seeking = seeker(world, told("auth.example."), told("auth.example."), *[told()] * 13)
    helper = world.helper(BUCKET, seeker=seeking)
    await seeking.ask_once(TARGET)
    first = await helper.round()
    world.wall += 300
    await seeking.ask_once(TARGET)
    second = await helper.round()
    assert (second.serial, second.found[0].observed_at) == (first.serial, int(world.wall))
    for _ in range(13):
        assert (await helper.round()).serial == first.serial
        world.wall += 300
        await seeking.ask_once(TARGET)
    third = await helper.round()
    assert (third.found[0].names, third.serial > second.serial) == ((), True)
    assert [entry.name for entry in third.names] == ["*.oss.example."]


async def test_a_found_name_that_is_pinned_is_not_looked_at(world: World) -> None:
    pinned = Wanted("auth.example.", "auth", "r", addresses=("10.1.2.3",))
    seeking = seeker(world, told("auth.example."))
    helper = world.helper(pinned, seeker=seeking)
    await seeking.ask_once(TARGET)
    snapshot = await helper.round()
    assert (snapshot.names, world.asked) == ((), [])
    assert snapshot.found[0].names == ("auth.example.",)


async def test_what_was_found_goes_on_after_a_restart(world: World, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.jws"
    seeking = seeker(world, told("auth.example."))
    await seeking.ask_once(TARGET)
    before = await world.helper(BUCKET, seeker=seeking, publish_file=path).round()
    failed = seeker(world, Report({"auth": DiscoverError(Doubt.TIMEOUT, "silence")}))
    again = world.helper(BUCKET, seeker=failed, publish_file=path)
    await again.restore()
    assert not await failed.ask_once(TARGET)
    after = await again.round()
    assert (after.found, after.names) == (before.found, before.names)
    assert (again.failing, world.helper(BUCKET).failing) == (True, False)


async def test_a_time_from_a_clock_that_was_set_back_is_not_told(world: World) -> None:
    seeking = seeker(world, told("auth.example."))
    await seeking.ask_once(TARGET)
    helper = world.helper(BUCKET, seeker=seeking)
    await helper.round()
    world.wall -= 86_400
    world.says = {name: bad() for name in ("*.oss.example.", "oss.example.", "auth.example.")}
    for later in (0, 30):
        world.wall += later
        snapshot = await helper.round()
        assert snapshot.issued_at == int(world.wall)
        told_at = [entry.observed_at for entry in snapshot.names]
        told_at += [entry.observed_at for entry in snapshot.found]
        # Of the first round after that, and no later for being told again.
        assert told_at == [int(world.wall) - later] * 3


async def test_a_round_follows_at_once_when_a_registry_has_told(world: World) -> None:
    # Nothing but what was found can make the second round come: the interval is an hour.
    helper = world.helper(BUCKET, seeker=seeker(world, told("auth.example.")), interval=3600)
    world.says["oss.example."] = good("192.0.2.9", ttl=3600)
    task = asyncio.create_task(helper.run())
    async with asyncio.timeout(20):
        await helper.wait_first()
        while "auth.example." not in world.asked:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_waiting_for_the_first_snapshot_ends_with_the_helper(world: World) -> None:
    helper = world.helper(AUTH)
    waiter = asyncio.create_task(helper.wait_first())
    await asyncio.sleep(0)
    assert not waiter.done()
    helper.release()
    async with asyncio.timeout(20):
        await waiter
    assert helper.current is None


async def test_the_document_says_when_the_addresses_of_each_name_changed(world: World) -> None:
    helper = world.helper()
    first = await helper.round()
    world.wall += 30.25
    world.says["auth.example."] = good("192.0.2.2")
    second = await helper.round()
    changed = {entry.name: entry.changed_at for entry in second.names}
    assert changed == {"auth.example.": WALL + 30.25, "*.oss.example.": WALL}
    assert [entry.changed_at for entry in first.names] == [WALL, WALL]
    again = world.helper()
    again.resume(second)
    assert {entry.name: entry.changed_at for entry in (await again.round()).names} == changed


async def test_what_proxies_have_rolled_back_is_refused_with_a_new_serial(world: World) -> None:
    jury = Jury(JurySettings(proxies=["https://10.0.0.1:9153"]), wall=lambda: WALL)
    helper = world.helper(AUTH, jury=jury)
    first = await helper.round()
    jury.ruling.take("https://10.0.0.1:9153", {("auth.example.", ("192.0.2.1",)): None}, WALL)
    second = await helper.round()
    assert second.names[0].refused == (("192.0.2.1",),)
    assert second.serial > first.serial
    # A helper in its place goes on with it until it has asked itself.
    again = world.helper(AUTH, jury=Jury(JurySettings(proxies=["https://10.0.0.1:9153"]), wall=lambda: WALL))
    again.resume(second)
    assert (await again.round()).names[0].refused == (("192.0.2.1",),)
    world.says["auth.example."] = good("192.0.2.2")
    assert (await again.round()).names[0].refused == ()


async def test_another_helper_takes_over_what_was_published_and_its_serial(world: World) -> None:
    first, second = world.helper(), world.helper()
    other = Helper("helper-b", (AUTH,), world.look, KEY, interval=30, wall=lambda: world.wall)
    snapshot = await first.round()
    waiting = asyncio.ensure_future(second.wait_first())
    await asyncio.sleep(0)
    for later in (second, other):
        later.take_over(first)
        assert later.current is first.current
    async with asyncio.timeout(10):
        await waiting
    assert (await second.round()).serial == snapshot.serial
    # The serial of another issuer is no reason to publish nothing, though it is higher.
    world.wall -= 1000
    assert (await other.round()).serial < snapshot.serial
    assert other.current is not None
    assert other.current.snapshot.issuer == "helper-b"
