"""The shell of learned addresses: what is answered is on disk, commands are acknowledged once they are.

The rules by which addresses are chosen are tested in ``tests/core/addresses`` and ``tests/model``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dnsproxy import address_service, config, supervise
from dnsproxy.address_service import AddressService, AddressSettings
from dnsproxy.core import seal
from dnsproxy.core.addresses.health import Outcome, Probe, Result
from dnsproxy.core.addresses.lifecycle import AddressLifecycle, OpenedSnapshot
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.learned import Snapshot
from dnsproxy.core.trust import Trust
from dnsproxy.errors import OrderError, StartError
from dnsproxy.files import write_atomically
from dnsproxy.keys import read_private_key, write_key_pair
from dnsproxy.net import statefile
from dnsproxy.net.probe import Prober
from dnsproxy.net.statefile import load_state, open_snapshot, overrides_path
from dnsproxy.settings import Settings
from dnsproxy.settings.learning import VerifySettings
from dnsproxy.trust import read_trust
from tests.strategies import learned, snapshot

A, B, PINNED = "a.example.", "b.example.", "p.example."
OLD, NEW, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"
INTERVAL = 0.1


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


class FakeProber(Prober):
    """Addresses in ``dead`` refuse; the others answer."""

    def __init__(self, dead: set[str]) -> None:
        super().__init__(VerifySettings())
        self._dead = dead

    async def probe(self, probe: Probe) -> Result:
        if probe.address in self._dead:
            return Result(Outcome.FAILED, dict.fromkeys(probe.ports, "Connection refused"))
        return Result(Outcome.ANSWERED, dict.fromkeys(probe.ports, "ok"))


class World:
    """The service of one proxy, which can be started again in the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_key_pair(folder / "keys")
        self.key = read_private_key(folder / "keys" / "helper.key")
        self.dead: set[str] = set()
        self.wall = time.time()
        self.serial = 0
        self.learn = ""
        self.verify = f"{{interval: {INTERVAL:g}s}}"
        self.names = [A, B]
        self.state = folder / "state" / "learned.jws"
        self.tables: list[ServedTable] = []
        # What a restart would have answered, at the time of each table.
        self.kept: list[dict[str, tuple[str, ...]]] = []
        self.restart()

    def settings(self) -> Settings:
        names = ", ".join(f"{{name: {name}}}" for name in self.names)
        return config.parse(
            f"""
registries:
  - name: hz
    provider: generic
    network: {{routed: [10.0.0.0/24], conflicts: [10.9.0.0/16]}}
    names: [{names}, {{name: {PINNED}, addresses: [10.1.2.3]}}]
learn:
  state_file: {self.state}
  trusted_keys: [{self.folder}/keys/helper.pub]
  verify: {self.verify}
  {self.learn}
"""
        )

    def made(self) -> tuple[AddressSettings, Trust]:
        settings = self.settings()
        trust = read_trust(settings)
        return replace(AddressSettings.make(settings, trust), prober=FakeProber(self.dead)), trust

    def restart(self) -> AddressService:
        made, trust = self.made()
        self.service = AddressService(made, self._publish, wall=lambda: self.wall)
        self.service.load(trust)
        return self.service

    def reload(self, *, verified: bool = False) -> None:
        """Go by the settings of this time; ``verified`` has all snapshots verified again."""
        made, trust = self.made()
        held = list(self.service.lifecycle.snapshots.values())
        opened = [open_snapshot(each.token, trust) for each in held] if verified else None
        self.service.configure(made, opened)

    def _publish(self, table: ServedTable) -> None:
        self.tables.append(table)
        self.kept.append(self.on_disk(is_whole=False))

    def state_of_disk(self, *, is_whole: bool = True) -> AddressLifecycle:
        """Return what a proxy would start with."""
        made, trust = self.made()
        state = AddressLifecycle(made.policy)
        problems = load_state(self.state, state, trust)
        assert not (is_whole and problems)
        while not state.settle(1000, 0.0, self.wall):
            pass
        return state

    def on_disk(self, *, is_whole: bool = True) -> dict[str, tuple[str, ...]]:
        sets = self.state_of_disk(is_whole=is_whole).table().sets
        return {name: held.learned.addresses for name, held in sets.items()}

    def accept(self, *addresses: str, issuer: str = "helper-a", **others: tuple[str, ...]) -> None:
        """Have a helper state ``addresses`` for A; ``b`` may be given as well."""
        self.serial += 1
        at = int(self.wall)
        stated = {A: addresses, **{f"{label}.example.": found for label, found in others.items()}}
        entries = [learned(name, found, registry="hz", observed_at=at) for name, found in stated.items()]
        self.service.accept(self.signed(snapshot(*entries, issuer=issuer, serial=self.serial, at=at)))

    def signed(self, content: Snapshot) -> OpenedSnapshot:
        return OpenedSnapshot(content, seal.key_id(self.key.public_key()), seal.sign(content, self.key))

    async def take(self, *addresses: str, **others: tuple[str, ...]) -> tuple[str, ...]:
        """As `accept`, of the first helper; return what is answered for A then."""
        self.accept(*addresses, issuer="helper-a", **others)
        await self.settled()
        return self.served()

    async def settled(self) -> None:
        """Publish what has come, by a command that changes nothing."""
        await self.service.order(lambda _state, _wall_now: None)

    def alive(self, address: str, name: str = A) -> bool | None:
        state = self.service.lifecycle.names.get(name)
        health = state.health.get(address) if state is not None else None
        return health.alive if health is not None else None

    async def pin(self, name: str, addresses: Iterable[str]) -> str | None:
        return await self.service.order(lambda state, wall_now: state.pin(name, addresses, wall_now))

    async def unpin(self, name: str) -> str | None:
        return await self.service.order(lambda state, _: state.unpin(name))

    async def freeze(self) -> str | None:
        return await self.service.order(lambda state, wall_now: state.freeze(wall_now))

    def served(self, name: str = A) -> tuple[str, ...]:
        entry = self.tables[-1].sets.get(name)
        return entry.learned.addresses if entry else ()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.service.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.service.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def of(logs: list[Any], event: str) -> list[Any]:
    return [line for line in logs if line["event"] == event]


class Disk:
    """Stands between the service and its file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.reason: int | None = None
        self.writing = self.most = self.writes = 0
        monkeypatch.setattr(statefile, "write_atomically", self._write)

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        self.writing += 1
        self.most = max(self.most, self.writing)
        try:
            self.entered.set()
            assert self.go.wait(20)
            if self.reason is not None:
                raise OSError(self.reason, os.strerror(self.reason))
            write_atomically(path, content, mode)
            self.writes += 1
        finally:
            self.writing -= 1

    def block(self) -> None:
        self.go.clear()
        self.entered.clear()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.go.set()


# -- what is answered --------------------------------------------------------------------------


async def test_first_addresses_are_answered_and_logged_once(world: World, logs: list[Any]) -> None:
    assert await world.take(OLD, NEW) == (OLD, NEW)
    (line,) = of(logs, "learned.in_service")
    assert line["changes"] == [{"name": A, "old": [], "new": [OLD, NEW]}]
    assert world.tables[-1].serial == world.serial
    await world.take(OLD, NEW)
    assert len(of(logs, "learned.in_service")) == 1
    (line,) = of(logs, "learned.swapped")
    assert (line["issuer"], line["changed"]) == ("helper-a", 1)


async def test_a_change_is_answered_once_it_works(world: World) -> None:
    await world.take(OLD)
    async with world.running():
        world.dead.add(NEW)
        world.accept(NEW)
        await until(lambda: world.alive(NEW) is False)
        assert world.served() == (OLD,)
        world.dead.clear()
        await until(lambda: world.served() == (NEW,))


async def test_a_dead_member_is_left_out_logged_and_returns(world: World, logs: list[Any]) -> None:
    await world.take(OLD, NEW)
    async with world.running():
        world.dead.add(NEW)
        await until(lambda: world.served() == (OLD,))
        assert world.on_disk()[A] == (OLD,)
        world.dead.clear()
        await until(lambda: world.served() == (OLD, NEW))
    (line,) = of(logs, "learned.unreachable")
    assert (line["name"], line["address"], line["serving"]) == (A, NEW, False)
    assert line["reason"] == "port 443: Connection refused"
    assert [line["address"] for line in of(logs, "learned.reachable")] == [NEW]


async def test_refused_addresses_are_not_answered_and_logged_once(world: World, logs: list[Any]) -> None:
    for _ in range(2):
        assert await world.take(OLD, "10.9.0.1", "127.0.0.1") == (OLD,)
    assert world.service.lifecycle.refused == {"conflict": 1, "loopback": 1}
    (line,) = of(logs, "learned.refused")
    assert line["addresses"] == {"10.9.0.1": "conflict", "127.0.0.1": "loopback"}
    assert await world.take(OLD) == (OLD,)
    assert len(of(logs, "learned.refused_no_more")) == 1


async def test_addresses_leave_the_table_by_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second helper's set takes the place of one that `max_stale` has ended, without any input."""
    monkeypatch.setattr(address_service, "TICK", 0.02)
    world = World(tmp_path)
    world.learn, world.verify = "max_stale: 1h", "{ports: []}"
    world.restart()
    await world.take(OLD)
    async with world.running():
        world.wall += 3_600
        world.accept(NEW, issuer="helper-b")
        await world.settled()
        world.wall += 86_400
        await until(lambda: world.served() == (NEW,))


async def test_when_answers_expire_follows_the_wall_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS goes by monotonic times, status by the wall clock: they agree after it was set."""
    monkeypatch.setattr(address_service, "TICK", 0.02)
    world = World(tmp_path)
    world.verify = "{ports: []}"
    world.restart()
    await world.take(OLD)
    async with world.running():
        before = len(world.tables)
        world.wall += 86_400
        await until(lambda: len(world.tables) > before)
        ahead = len(world.tables)
        world.wall -= 86_400
        await until(lambda: len(world.tables) > ahead)


async def test_many_names_are_settled_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries have their turn between two slices, also while the state is written."""
    monkeypatch.setattr(address_service, "SLICE", 10)
    world = World(tmp_path)
    world.names = [f"n{number}.example." for number in range(200)]
    world.restart()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    await world.take(OLD, **{name.partition(".")[0]: (OLD,) for name in world.names})
    counting.cancel()
    await asyncio.gather(counting, return_exceptions=True)
    assert len(world.tables[-1].sets) == 200
    assert turns >= 30


# -- the disk comes first ----------------------------------------------------------------------


async def test_the_last_confirmation_is_on_disk_after_a_stop(world: World) -> None:
    await world.take(OLD)
    world.wall += 30
    await world.take(OLD)
    await world.service.close()
    assert world.state_of_disk().table().sets[A].learned.observed_at == int(world.wall)


@pytest.mark.parametrize("is_running", [True, False])
async def test_an_age_that_a_clock_step_changes_is_on_disk_after_a_stop(
    world: World, *, is_running: bool
) -> None:
    """That of a set which no helper states any more. The clock is set back while it runs or does not run."""
    await world.take(OLD)
    world.dead.add(NEW)
    await world.take(NEW)
    await world.service.close()
    world.wall -= 3600
    if not is_running:
        world.restart()
    await world.settled()
    set_back_at = int(world.wall)
    world.wall += 100
    await world.service.close()
    held = world.state_of_disk().table().sets[A].learned
    assert (held.addresses, held.observed_at) == ((OLD,), set_back_at)


async def test_whatever_is_answered_is_answered_after_a_restart(world: World) -> None:
    """A restart at any time answers what the last table answered."""
    async with world.running():
        for number in range(1, 30):
            world.accept(f"10.0.0.{number}", f"10.0.0.{number + 1}", b=(f"10.0.1.{number // 5}",))
            if number % 7 == 0:
                await world.pin(B, [f"10.0.2.{number}"])
            if number % 7 == 3 and number > 7:
                await world.unpin(B)
            await until(lambda expected=number: f"10.0.0.{expected}" in world.served())  # type: ignore[misc]
    for table, kept in list(zip(world.tables, world.kept, strict=True))[1:]:
        assert {name: held.learned.addresses for name, held in table.sets.items()} == kept


async def test_a_changed_answer_waits_for_the_disk(world: World, disk: Disk) -> None:
    await world.take(OLD)
    async with world.running():
        disk.block()
        world.accept(NEW)
        await until(disk.entered.is_set)
        # NEW has answered its probe, or the write were not under way; it is answered after the write.
        assert world.served() == (OLD,)
        disk.go.set()
        await until(lambda: world.served() == (NEW,))


async def test_status_tells_what_is_answered_and_the_last_serial(world: World, disk: Disk) -> None:
    async with world.running():
        disk.block()
        world.accept(OLD)
        await until(disk.entered.is_set)
        # It is learned, but a query would get SERVFAIL.
        assert A in world.service.lifecycle.table().sets
        assert (world.service.table.sets, world.service.table.serial) == ({}, 1)
        disk.go.set()
        await until(lambda: world.service.table.sets)
    await world.take("127.0.0.9")  # refused: nothing changes for clients
    assert (world.service.table.sets[A].learned.addresses, world.service.table.serial) == ((OLD,), 2)


async def test_it_does_not_wait_longer_than_patience(
    world: World, disk: Disk, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.take(OLD)
    async with world.running():
        disk.block()
        monkeypatch.setattr(statefile, "PATIENCE", 0.05)
        world.accept(NEW)
        await until(lambda: world.served() == (NEW,))
        reason = "the disk has not completed a write within 0.05 s"
        assert world.service.disk_failure == reason
        # A command is carried out, and the operator learns that a restart would forget it.
        assert await world.pin(B, [OTHER]) == reason
        assert world.served(B) == (OTHER,)
        assert disk.writing == 1
        monkeypatch.setattr(statefile, "PATIENCE", 20.0)
        disk.go.set()
        await world.settled()
        await until(lambda: world.on_disk().get(B) == (OTHER,))
        assert world.on_disk()[A] == (NEW,)
    assert disk.most == 1
    assert [line["reason"] for line in of(logs, "learned.state_write_failed")] == [reason]
    assert len(of(logs, "learned.state_written")) == 1


async def test_a_write_that_fails_is_logged_once_and_retried(
    world: World, disk: Disk, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_service, "REFRESH_GAP", 0.05)
    await world.take(OLD)
    async with world.running():
        disk.reason = 28
        assert await world.pin(A, [NEW]) == "No space left on device"
        assert world.served() == (NEW,)
        assert await world.pin(B, [NEW]) == "No space left on device"
        assert world.on_disk()[A] == (OLD,)
        disk.reason = None
        await until(lambda: world.service.disk_failure is None)
        assert (world.on_disk()[A], world.on_disk()[B]) == ((NEW,), (NEW,))
    assert len(of(logs, "learned.state_write_failed")) == 1
    assert len(of(logs, "learned.state_written")) == 1


async def test_when_no_thread_can_be_started_it_answers_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
        assert await world.take(OLD) == (OLD,)
        assert world.service.disk_failure == "can't start new thread"
    await world.settled()
    assert world.on_disk()[A] == (OLD,)


async def test_mere_confirmations_are_written_once_in_a_while(world: World, disk: Disk) -> None:
    await world.take(OLD)
    writes = disk.writes
    for _ in range(3):
        world.wall += 30
        await world.take(OLD)
    assert disk.writes == writes
    # The age that clients and status see is the new one all the same.
    assert world.tables[-1].sets[A].learned.observed_at == int(world.wall)
    await world.take(OLD, NEW)
    assert disk.writes == writes + 1


async def test_a_mere_confirmation_is_written_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_service, "REFRESH_GAP", 0.05)
    await world.take(OLD)
    async with world.running():
        world.wall += 1
        world.accept(OLD)
        await until(lambda: world.state_of_disk().table().sets[A].learned.observed_at == int(world.wall))


async def test_an_order_that_is_cancelled_while_it_waits_is_answered(world: World, disk: Disk) -> None:
    """The admin endpoint may end a request; what it asked for is on disk then, and must be answered."""
    await world.take(OLD)
    async with world.running():
        disk.block()
        asked = asyncio.ensure_future(world.pin(A, [NEW]))
        await until(disk.entered.is_set)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        disk.go.set()
        await until(lambda: world.served() == (NEW,))


# -- commands ----------------------------------------------------------------------------------


async def test_a_command_is_acknowledged_when_it_is_on_disk(world: World) -> None:
    world.names = [f"n{number}.example." for number in range(60)]
    world.restart()
    acknowledged = []

    async def pin(name: str) -> None:
        assert await world.pin(name, [NEW]) is None
        acknowledged.append(name)
        assert set(acknowledged) <= world.state_of_disk().overrides.pins.keys()

    async with world.running():
        await asyncio.gather(*(pin(name) for name in world.names))
    assert sorted(acknowledged) == sorted(world.names)


def test_sigkill_after_an_acknowledged_command_loses_none(tmp_path: Path) -> None:
    """In a process of its own, at any time between two acknowledgements of many that wait together."""
    world = World(tmp_path)
    world.names = [f"n{number}.example." for number in range(40)]
    for count in (1, 7, 23):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                asyncio.run(_acknowledge_all(world, writing))
            finally:
                os._exit(1)
        os.close(writing)
        told = b""
        while told.count(b"\n") < count:
            told += os.read(reading, 4096)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while octets := os.read(reading, 4096):
            told += octets
        os.close(reading)
        acknowledged = told.decode().splitlines()
        assert len(acknowledged) >= count
        assert set(acknowledged) <= world.state_of_disk().overrides.pins.keys()
        world.state.unlink()


async def _acknowledge_all(world: World, writing: int) -> None:
    world.restart()

    async def pin(name: str, address: str) -> None:
        assert await world.pin(name, [address]) is None
        os.write(writing, f"{name}\n".encode())

    async with world.running():
        for number in range(1, 250):
            await asyncio.gather(*(pin(name, f"10.0.0.{number}") for name in world.names))


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (lambda state, now: state.pin("x.example", [OLD], now), "x.example. is no name"),
        (lambda state, now: state.pin(A, [], now), "no address"),
        (lambda state, _: state.unpin(A), "is not pinned"),
        (lambda state, _: state.unfreeze(), "nothing is frozen"),
        (lambda state, now: state.rollback(99, now), "serial 99 is not in the history"),
        (lambda state, _: state.promote(A), "no new addresses are on trial"),
    ],
)
async def test_a_command_that_cannot_be_changes_nothing(
    command: Callable[[AddressLifecycle, float], None], complaint: str, world: World, disk: Disk
) -> None:
    await world.take(OLD)
    writes, tables = disk.writes, len(world.tables)
    with pytest.raises(OrderError, match=complaint):
        await world.service.order(command)
    await world.settled()
    assert (disk.writes, len(world.tables)) == (writes, tables)


async def test_commands_hold_over_a_restart(world: World) -> None:
    await world.take(OLD, b=(OTHER,))
    assert await world.pin(A, [NEW]) is None
    assert await world.freeze() is None
    world.restart()
    assert (world.served(), world.served(B)) == ((NEW,), (OTHER,))
    assert await world.take(OLD, b=(OLD,)) == (NEW,)
    assert world.served(B) == (OTHER,)


# -- start -------------------------------------------------------------------------------------


async def test_a_restart_answers_as_before_and_writes_nothing(
    world: World, disk: Disk, logs: list[Any]
) -> None:
    await world.take(OLD)
    async with world.running():
        world.accept(OLD, issuer="helper-b")
        world.dead.add(NEW)
        world.accept(NEW)
        await until(lambda: world.alive(NEW) is False)
    writes = disk.writes
    logs.clear()
    world.restart()
    assert world.served() == (OLD,)
    (line,) = of(logs, "learned.loaded")
    assert (line["names"], line["serial"]) == (1, world.serial)
    assert of(logs, "learned.in_service") == []
    await world.settled()
    assert disk.writes == writes


async def test_a_torn_file_gives_what_is_whole_and_is_set_aside(world: World, logs: list[Any]) -> None:
    await world.take(OLD, b=(OTHER,))
    whole = world.state.read_text()
    torn = whole[: whole.index('"names"')]
    world.state.write_text(torn)
    world.restart()
    assert (world.served(), world.served(B)) == ((OLD,), (OTHER,))
    assert of(logs, "learned.state_rejected")
    (aside,) = world.state.parent.glob("*.bad-*")
    assert aside.read_text() == torn
    await world.settled()
    assert world.on_disk() == {A: (OLD,), B: (OTHER,)}


async def test_a_file_that_cannot_be_read_is_kept(
    world: World, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.take(OLD)
    content = world.state.read_bytes()

    def refuse(_: Path) -> str:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(statefile, "_read", refuse)
        made, trust = world.made()
        world.service = AddressService(made, world.tables.append, wall=lambda: world.wall)
        world.service.load(trust)
    assert world.served() == ()
    assert of(logs, "learned.state_unreadable")
    await world.take(NEW)
    assert world.on_disk()[A] == (NEW,)
    (aside,) = world.state.parent.glob("*.bad-*")
    assert aside.read_bytes() == content


EARLIER_OVERRIDES: dict[str, Any] = {
    "version": 1,
    "pins": [{"name": B, "addresses": [OTHER], "since": 1000}],
    "freeze": None,
    "history": [],
    "in_service": [],
    "held_back": [{"name": A, "addresses": [NEW]}],
    "trials": [],
}


def write_earlier(world: World, overrides: object = EARLIER_OVERRIDES, *, state: bool = True) -> None:
    """Write the two files of the version before."""
    at = int(world.wall)
    signed = snapshot(learned(A, (OLD, NEW), registry="hz", observed_at=at), serial=5, at=at)
    world.state.parent.mkdir(exist_ok=True)
    if state:
        world.state.write_text(f"{seal.sign(signed, world.key)}\n")
    content = overrides if isinstance(overrides, str) else json.dumps(overrides)
    overrides_path(world.state).write_text(content)


@pytest.mark.parametrize("state", [True, False])
async def test_files_of_the_version_before_are_converted_once(world: World, *, state: bool) -> None:
    """Pins may be there before the first snapshot is."""
    write_earlier(world, state=state)
    world.dead.add(NEW)
    world.restart()
    expected = {A: (OLD,), B: (OTHER,)} if state else {B: (OTHER,)}
    assert {name: held.learned.addresses for name, held in world.tables[-1].sets.items()} == expected
    # Until the one file is written, the two are what the next start reads.
    assert overrides_path(world.state).exists()
    async with world.running():
        await until(lambda: not overrides_path(world.state).exists())
    assert world.state.read_text().startswith('{"version": 2')
    assert world.on_disk() == expected
    assert list(world.state.parent.glob("*.bad-*")) == []
    world.restart()
    assert {name: held.learned.addresses for name, held in world.tables[-1].sets.items()} == expected


async def test_the_files_of_the_version_before_stay_until_the_new_one_is_written(
    world: World, disk: Disk
) -> None:
    write_earlier(world)
    disk.reason = 28
    world.restart()
    async with world.running():
        await until(lambda: world.service.disk_failure)
        assert overrides_path(world.state).exists()
        disk.reason = None
        assert await world.freeze() is None
        assert not overrides_path(world.state).exists()


@pytest.mark.parametrize("content", ["torn", "[]", '{"version": 1, "pins": 5}', '{"version": 7}'])
async def test_overrides_of_the_version_before_that_make_no_sense_are_set_aside(
    content: str, world: World, logs: list[Any]
) -> None:
    write_earlier(world, content)
    world.restart()
    assert set(world.served()) == {OLD, NEW}
    assert of(logs, "learned.state_rejected")
    await world.settled()
    assert not overrides_path(world.state).exists()
    (aside,) = world.state.parent.glob("*.orders.bad-*")
    assert aside.read_text() == content


async def test_a_frozen_name_may_be_removed_before_a_restart(world: World) -> None:
    await world.take(OLD, b=(OTHER,))
    await world.freeze()
    world.names = [A]
    world.restart()
    assert (world.served(), world.served(B)) == ((OLD,), ())


# -- other settings ----------------------------------------------------------------------------


async def test_after_each_reload_a_dead_address_is_left_out(world: World) -> None:
    await world.take(OLD, NEW)
    async with world.running():
        for turn in range(20):
            world.learn = f"ttl: {turn + 1}"
            world.reload(verified=bool(turn % 2))
            world.dead.add(dead := (OLD, NEW)[turn % 2])
            died = time.monotonic()
            await until(lambda dead=dead: dead not in world.served())  # type: ignore[misc]
            # Two intervals, and what the retry after the first failure takes on a busy machine.
            assert time.monotonic() - died < 2 * INTERVAL + 1.0
            world.dead.clear()
            await until(lambda: world.served() == (OLD, NEW))


async def test_a_reload_probes_as_the_new_settings_say(world: World) -> None:
    await world.take(OLD, NEW)
    async with world.running():
        world.dead.add(NEW)
        await until(lambda: world.served() == (OLD,))
        world.learn = "on_change: null"
        made, _ = world.made()
        world.service.configure(replace(made, policy=replace(made.policy, ports=())), None)
        # What is not probed counts as alive.
        await until(lambda: world.served() == (OLD, NEW))


async def test_a_reload_keeps_pins_freeze_and_history(world: World) -> None:
    await world.take(OLD, b=(OTHER,))
    await world.pin(A, [NEW])
    await world.freeze()
    before = world.service.lifecycle.overrides
    world.learn = "ttl: 7"
    world.reload(verified=True)
    await world.settled()
    assert world.service.lifecycle.overrides == before
    assert await world.take(OLD, b=(OLD,)) == (NEW,)
    assert world.served(B) == (OTHER,)
    # Commands act on the state that answers.
    assert await world.unpin(A) is None
    assert world.served() == (OLD,)
    assert world.on_disk() == {A: (OLD,), B: (OTHER,)}


@pytest.mark.parametrize("has_pin", [True, False])
async def test_a_moved_file_is_written(world: World, *, has_pin: bool) -> None:
    await world.take(OLD)
    await world.pin(A, [NEW])
    if not has_pin:
        await world.unpin(A)
    async with world.running():
        world.state = world.folder / "elsewhere" / "learned.jws"
        world.reload()
        await until(world.state.exists)
        assert world.on_disk() == {A: (NEW,) if has_pin else (OLD,)}
        if has_pin:
            assert await world.unpin(A) is None
            assert world.on_disk() == {A: (OLD,)}


async def test_a_moved_file_replaces_an_older_state_with_a_pin(world: World) -> None:
    await world.take(OLD)
    await world.pin(A, [NEW])
    elsewhere = world.folder / "elsewhere.jws"
    elsewhere.write_bytes(world.state.read_bytes())
    await world.unpin(A)
    async with world.running():
        world.state = elsewhere
        world.reload()
        await until(lambda: world.on_disk() == {A: (OLD,)})


async def test_a_moved_file_that_cannot_be_written_is_retried(
    world: World, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_service, "REFRESH_GAP", 0.05)
    world.verify = "{ports: []}"  # no probe that ends has it publish
    world.restart()
    await world.take(OLD)
    async with world.running():
        disk.reason = 28
        world.state = world.folder / "elsewhere" / "learned.jws"
        world.reload()
        await until(lambda: world.service.disk_failure)
        disk.reason = None
        await until(world.state.exists)
        assert world.on_disk() == {A: (OLD,)}


async def test_a_file_that_is_moved_during_a_write_is_written_too(world: World, disk: Disk) -> None:
    await world.take(OLD)
    async with world.running():
        disk.block()
        asked = asyncio.ensure_future(world.pin(A, [NEW]))
        await until(disk.entered.is_set)
        world.state = world.folder / "elsewhere" / "learned.jws"
        world.reload()
        disk.go.set()
        assert await asked is None
        await until(world.state.exists)
        assert world.on_disk() == {A: (NEW,)}


async def test_what_a_key_that_is_removed_signed_is_answered_no_more(world: World) -> None:
    await world.take(OLD)
    write_key_pair(world.folder / "other")
    (world.folder / "keys" / "helper.pub").write_bytes((world.folder / "other" / "helper.pub").read_bytes())
    made, _ = world.made()
    world.service.configure(made, [])
    await world.settled()
    assert world.served() == ()
    assert world.on_disk() == {}


# -- figures and the operator's program ---------------------------------------------------------


async def test_a_change_is_measured_but_not_what_was_on_disk_or_held_by_commands(world: World) -> None:
    async def change(address: str) -> int:
        world.serial += 1
        at = time.time()
        entry = learned(A, (address,), registry="hz", observed_at=int(at), changed_at=at)
        world.service.accept(world.signed(snapshot(entry, serial=world.serial, at=int(at))))
        await world.settled()
        return sum(world.service.convergence.counts)

    world.wall = time.time() - 100
    world.restart()
    accept = replace(world.made()[0].policy, accept=True)
    world.service.configure(replace(world.made()[0], policy=accept), None)
    assert await change(OLD) == 0  # the first addresses are no change
    assert await change(NEW) == 1
    await world.freeze()
    assert await change(OTHER) == 1
    await world.service.order(lambda state, _: state.unfreeze())
    assert (world.served(), sum(world.service.convergence.counts)) == ((OTHER,), 1)


def hook_program(world: World) -> Callable[[], list[Any]]:
    """Have `learn.on_change` write down what it gets; return what reads that."""
    program, events = world.folder / "on-change", world.folder / "events"
    program.write_text(f"#!/bin/sh\ncat >> {events}\n")
    program.chmod(0o755)
    world.learn = f"on_change: {program}"
    return lambda: [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []


async def test_the_program_gets_addresses_and_the_routes_they_need(world: World) -> None:
    documents = hook_program(world)
    world.restart()
    world.dead.add("10.0.1.1")
    async with world.running():
        await until(documents)
        world.accept(OLD)
        await until(lambda: len(documents()) == 2)
        world.accept("10.0.1.1", "127.0.0.1")
        await until(lambda: len(documents()) == 3)
    start, first, second = documents()
    assert {name["name"]: name["new"] for name in start["names"]} == {PINNED: ["10.1.2.3"]}
    assert {name["name"]: name["new"] for name in first["names"]} == {A: [OLD]}
    assert first["routes_needed"] == ["10.1.2.3"]
    (name,) = second["names"]
    # Held back for want of a route: this is when the program can add it.
    assert (name["old"], name["new"], name["learned"]) == ([OLD], [OLD], ["10.0.1.1"])
    assert (name["routes_needed"], second["routes_needed"]) == (["10.0.1.1"], ["10.0.1.1", "10.1.2.3"])


async def test_after_a_start_the_program_gets_every_name(world: World) -> None:
    """What it did for the run before may be lost: a host that was restarted has none of its routes."""
    await world.take(OLD)
    documents = hook_program(world)
    world.restart()
    async with world.running():
        await until(documents)
    assert {name["name"]: name["new"] for name in documents()[0]["names"]} == {A: [OLD], PINNED: ["10.1.2.3"]}


async def test_after_a_reload_the_program_gets_what_changes_and_a_new_one_everything(world: World) -> None:
    await world.take(OLD)
    async with world.running():
        documents = hook_program(world)
        world.reload()
        await until(documents)
        assert {name["name"] for name in documents()[0]["names"]} == {A, PINNED}
        world.learn += "\n  ttl: 7"
        world.reload(verified=True)
        world.accept(OLD, b=(OTHER,))
        await until(lambda: len(documents()) == 2)
    assert [name["name"] for name in documents()[1]["names"]] == [B]


def test_a_program_that_cannot_be_run_is_a_start_error(world: World) -> None:
    world.learn = f"on_change: {world.folder}/none"
    with pytest.raises(StartError, match=r"learn\.on_change"):
        world.made()


# -- errors of the program -----------------------------------------------------------------------


async def test_a_task_that_fails_starts_again_and_no_change_is_lost(
    world: World, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "FIRST_SECONDS", 0.01)
    await world.take(OLD)
    async with world.running():
        with monkeypatch.context() as patched:
            patched.setattr(world.service, "_publish_table", lambda _: 1 // 0)
            world.accept(NEW)
            await until(lambda: of(logs, "task.failed"))
        await until(lambda: world.served() == (NEW,))
