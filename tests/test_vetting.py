"""From the learner's book to the book that is answered, with probes that the test answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dnsproxy import config, vetting
from dnsproxy.core.book import Book
from dnsproxy.core.health import Outcome, Probe, Result
from dnsproxy.core.orders import NEVER
from dnsproxy.errors import OrderError, StartError
from dnsproxy.net.probe import Prober
from dnsproxy.settings import Settings
from dnsproxy.vetting import Vetting
from tests.strategies import learned, snapshot

A, B, PINNED = "a.example.", "b.example.", "p.example."
OLD, NEW, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


class FakeProber(Prober):
    """Addresses in ``dead`` refuse; the others answer."""

    dead: set[str]

    async def probe(self, probe: Probe) -> Result:
        if probe.address in self.dead:
            return Result(Outcome.FAILED, dict.fromkeys(probe.ports, "Connection refused"))
        return Result(Outcome.ANSWERED, dict.fromkeys(probe.ports, "ok"))


class World:
    """A proxy's vetting, which can be started again in the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dead: set[str] = set()
        self.books: list[Book] = []
        self.wall = 1_000_000.0
        self.serial = 0
        self.book = Book()
        self.learn = ""
        self.has_b = True
        self.network = "routed: [10.0.0.0/24], conflicts: [10.9.0.0/16]"
        self.vetting = self.restarted()

    def settings(self) -> Settings:
        other = f"{{name: {B}}}, " if self.has_b else ""
        return config.parse(
            f"""
registries:
  - name: hz
    provider: generic
    network: {{{self.network}}}
    names: [{{name: {A}}}, {other}{{name: {PINNED}, addresses: [10.1.2.3]}}]
learn:
  state_file: {self.folder}/learned.jws
  verify: {{interval: 100ms}}
  {self.learn}
"""
        )

    def restarted(self) -> Vetting:
        self.vetting = Vetting(self.settings(), self.books.append, wall=lambda: self.wall)
        prober = self.vetting._probes._prober
        assert isinstance(prober, FakeProber)
        prober.dead = self.dead
        self.vetting.load()
        return self.vetting

    def take(self, *addresses: str, **others: tuple[str, ...]) -> tuple[str, ...]:
        """Have the helper say that A has ``addresses``; ``b`` may be given as well."""
        self.serial += 1
        contents = [learned(A, addresses, registry="hz", observed_at=int(self.wall))]
        contents += [learned(f"{label}.example.", found) for label, found in others.items()]
        self.book = self.book.merged(snapshot(*contents, serial=self.serial, at=int(self.wall)))
        self.vetting.take(self.book)
        return self.served()

    def served(self, name: str = A) -> tuple[str, ...]:
        entry = self.books[-1].entries.get(name)
        return entry.learned.addresses if entry else ()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.vetting.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.vetting.close()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(vetting, "Prober", FakeProber)
    return World(tmp_path)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def events(logs: list[Any], event: str) -> list[Any]:
    return [line for line in logs if line["event"] == event]


# -- what is learned -----------------------------------------------------------------------------


def test_what_is_learned_first_is_answered_at_once(world: World, logs: list[Any]) -> None:
    assert world.take(OLD, NEW) == (OLD, NEW)
    assert world.books[-1].latest == world.book.latest
    (line,) = events(logs, "learned.in_service")
    assert line["changes"] == [{"name": A, "old": [], "new": [OLD, NEW]}]
    world.take(OLD, NEW)
    assert len(events(logs, "learned.in_service")) == 1


async def test_a_change_is_answered_once_it_works(world: World) -> None:
    world.take(OLD)
    async with world.running():
        world.dead.add(NEW)
        assert world.take(NEW) == (OLD,)
        state = {s.address: s for s in world.vetting.vetted(world.vetting.wanted()[0]).states}
        await until(lambda: world.vetting._verifier.is_alive(A, NEW) is False)
        assert world.served() == (OLD,)
        assert state[NEW].reason == "not probed yet"
        world.dead.clear()
        await until(lambda: world.served() == (NEW,))


async def test_a_dead_member_is_held_back_told_and_returns(world: World, logs: list[Any]) -> None:
    world.take(OLD, NEW)
    async with world.running():
        world.dead.add(NEW)
        await until(lambda: world.served() == (OLD,))
        world.dead.clear()
        await until(lambda: world.served() == (OLD, NEW))
    (line,) = events(logs, "learned.unreachable")
    assert (line["name"], line["address"], line["serving"]) == (A, NEW, False)
    assert line["reason"] == "port 443: Connection refused"
    assert [line["address"] for line in events(logs, "learned.reachable")] == [NEW]


async def test_a_dead_member_is_not_answered_after_a_restart(world: World) -> None:
    world.take(OLD, NEW)
    world.dead.add(NEW)
    async with world.running():
        await until(lambda: world.served() == (OLD,))
    world.restarted()
    world.vetting.take(world.book)
    assert world.served() == (OLD,)
    world.dead.clear()
    async with world.running():
        await until(lambda: world.served() == (OLD, NEW))
    assert world.vetting.orders.held_back == {}


def test_refused_addresses_are_not_answered_and_told_once(world: World, logs: list[Any]) -> None:
    for _ in range(2):
        assert world.take(OLD, "10.9.0.1", "127.0.0.1") == (OLD,)
    assert world.vetting.screen.refused == {"conflict": 1, "loopback": 1}
    (line,) = events(logs, "learned.refused")
    assert line["addresses"] == {"10.9.0.1": "conflict", "127.0.0.1": "loopback"}
    assert world.take(OLD) == (OLD,)
    assert len(events(logs, "learned.refused_no_more")) == 1


def test_a_refused_set_leaves_what_is_known(world: World) -> None:
    assert world.take("127.0.0.1") == ()
    world.take(OLD)
    assert world.take("47.97.242.13") == (OLD,)
    vetted = world.vetting.vetted(world.vetting.wanted()[0])
    assert [(state.address, state.serving) for state in vetted.states] == [(OLD, True)]
    assert [(finding.address, finding.reason.value) for finding in vetted.refused] == [
        ("47.97.242.13", "public")
    ]


def test_routes_are_told_and_refuse_nothing(world: World) -> None:
    assert world.take(OLD, "10.0.1.1") == (OLD, "10.0.1.1")
    assert world.vetting.vetted(world.vetting.wanted()[0]).routed == {OLD: True, "10.0.1.1": False}


# -- over a restart ------------------------------------------------------------------------------


async def test_what_was_in_service_is_in_service_again(world: World) -> None:
    world.take(OLD)
    world.dead.add(NEW)
    async with world.running():
        assert world.take(NEW) == (OLD,)
    world.books.clear()
    world.restarted()
    # Before any helper has said a word, and after the last word has been read back.
    assert world.served() == (OLD,)
    world.vetting.take(world.book)
    assert world.served() == (OLD,)
    assert world.books[-1].entries[A].learned.observed_at == world.wall


async def test_orders_hold_over_a_restart(world: World) -> None:
    world.take(OLD, b=(OTHER,))
    world.vetting.pin(A, [NEW])
    world.vetting.freeze()
    assert await world.vetting.saved() is None
    world.restarted()
    assert (world.served(), world.served(B)) == ((NEW,), (OTHER,))
    assert world.take(OLD, b=(OLD,)) == (NEW,)
    assert world.served(B) == (OTHER,)


async def test_a_set_that_is_refused_by_now_is_not_taken_up(world: World) -> None:
    world.take(OLD)
    world.take("127.0.0.1")
    await world.vetting.close()
    world.network = "conflicts: [10.0.0.0/24]"
    world.restarted()
    assert world.served() == ()


async def test_a_name_that_is_configured_no_more_is_forgotten(world: World) -> None:
    world.take(OLD, b=(OTHER,))
    world.take(OLD, b=(NEW,))
    await world.vetting.close()
    world.has_b = False
    world.restarted()
    world.book = Book()
    world.take(OLD)
    assert world.vetting._verifier.names() == [PINNED, A]
    assert world.vetting.orders.in_service == {}


def test_a_torn_file_is_no_end(world: World, logs: list[Any]) -> None:
    (world.folder / "learned.jws.orders").write_text('{"version":')
    world.restarted()
    assert world.take(OLD) == (OLD,)
    assert len(events(logs, "learned.orders_rejected")) == 1


# -- orders --------------------------------------------------------------------------------------


def test_a_pinned_name_has_its_pin_and_nothing_else(world: World, logs: list[Any]) -> None:
    world.take(OLD)
    world.vetting.pin("A.example", [NEW, "10.0.0.9", NEW])
    assert world.served() == (NEW, "10.0.0.9")
    assert world.take(OTHER) == (NEW, "10.0.0.9")
    assert world.books[-1].entries[A].snapshot.expires_at == NEVER
    assert events(logs, "learned.orders")[-1]["pinned"] == [A]
    world.vetting.unpin("a.example")
    # What was in service before is proven; what came since is not yet.
    assert world.served() == (OLD,)


def test_what_the_configuration_pins_is_not_probed_unasked(world: World) -> None:
    world.take(OLD)
    assert {probe.name for probe in world.vetting._verifier.next_probes(1e12)} == {A}


def test_a_pin_may_be_what_the_guard_refuses(world: World) -> None:
    world.vetting.pin(A, ["127.0.0.1"])
    assert world.served() == ("127.0.0.1",)
    assert world.vetting.screen.refused == {}


async def test_a_dead_pin_is_answered_and_told(world: World, logs: list[Any]) -> None:
    world.dead.add(NEW)
    world.vetting.pin(A, [NEW])
    async with world.running():
        await until(lambda: events(logs, "learned.unreachable"))
    assert world.served() == (NEW,)


@pytest.mark.parametrize(
    ("name", "addresses", "complaint"),
    [
        ("x.example", [OLD], "x.example. is no name of a configured registry"),
        (PINNED, [OLD], "is pinned in the configuration"),
        ("a..b", [OLD], "label"),
        (A, ["10.0.0.300"], "10.0.0.300"),
        (A, ["fe80::1%eth0"], "scope id"),
        (A, [], "no address"),
        (A, [f"10.0.{n >> 8}.{n & 255}" for n in range(257)], "257 addresses; a name can have 256"),
    ],
)
def test_pins_that_cannot_be(name: str, addresses: list[str], complaint: str, world: World) -> None:
    with pytest.raises(OrderError, match=complaint):
        world.vetting.pin(name, addresses)
    assert world.vetting.orders.pins == {}


@pytest.mark.parametrize("name", [A, PINNED, "a..b"])
def test_only_what_is_pinned_can_be_unpinned(name: str, world: World) -> None:
    with pytest.raises(OrderError):
        world.vetting.unpin(name)


def test_frozen_sets_stay_and_their_age_is_that_of_the_last_confirmation(world: World) -> None:
    world.take(OLD, b=(OTHER,))
    world.vetting.freeze()
    world.wall += 100
    assert world.take(OLD, b=(OLD,)) == (OLD,)
    entries = world.books[-1].entries
    assert entries[A].learned.observed_at == world.wall  # confirmed
    assert entries[B].learned.addresses == (OTHER,)
    assert entries[B].learned.observed_at == 1000  # not confirmed any more
    assert {entry.snapshot.expires_at for entry in entries.values()} == {NEVER}
    since = world.vetting.orders.freeze
    world.vetting.freeze()
    assert world.vetting.orders.freeze is since


async def test_after_a_freeze_what_works_is_followed_again(world: World) -> None:
    world.take(OLD)
    world.vetting.freeze()
    world.take(NEW)
    world.dead.add(NEW)
    async with world.running():
        world.vetting.unfreeze()
        await until(lambda: world.vetting._verifier.is_alive(A, NEW) is False)
        assert world.served() == (OLD,)
        assert world.books[-1].entries[A].snapshot.expires_at < NEVER
        world.dead.clear()
        await until(lambda: world.served() == (NEW,))


def test_a_name_without_addresses_takes_its_first_set_while_frozen(world: World) -> None:
    world.take(OLD)
    world.vetting.freeze()
    world.take(OLD, b=(NEW,))
    assert world.served(B) == (NEW,)
    world.take(OLD, b=(OTHER,))
    assert world.served(B) == (NEW,)


async def test_dead_members_of_a_frozen_set_are_held_back(world: World) -> None:
    world.take(OLD, NEW)
    world.vetting.freeze()
    async with world.running():
        world.dead.add(NEW)
        await until(lambda: world.served() == (OLD,))


async def test_a_roll_back_freezes_an_earlier_set_at_once(world: World) -> None:
    world.take(OLD, b=(OTHER,))
    async with world.running():
        world.take(NEW)
        await until(lambda: world.served() == (NEW,))
        assert [record.serial for record in world.vetting.orders.history] == [1, 2]
        world.dead.add(OLD)  # the operator knows better
        world.vetting.rollback(1)
        assert world.served() == (OLD,)
        freeze = world.vetting.orders.freeze
        assert freeze is not None
        assert freeze.serial == 1
        assert world.take(OTHER) == (OLD,)
        world.dead.clear()
        world.vetting.unfreeze()
        await until(lambda: world.served() == (OTHER,))


async def test_a_roll_back_brings_back_no_name_that_is_configured_no_more(world: World) -> None:
    world.take(OLD, b=(OTHER,))
    await world.vetting.close()
    world.has_b, world.book = False, Book()
    world.restarted()
    world.take(NEW)
    world.vetting.rollback(1)
    assert (world.served(), world.served(B)) == ((OLD,), ())


def test_a_roll_back_to_nowhere_changes_nothing(world: World) -> None:
    world.take(OLD)
    with pytest.raises(OrderError, match="serial 99 is not in the history"):
        world.vetting.rollback(99)
    with pytest.raises(OrderError, match="nothing is frozen"):
        world.vetting.unfreeze()
    assert world.vetting.orders.freeze is None


def test_a_roll_back_passes_the_guard(world: World) -> None:
    world.take(OLD, "127.0.0.1")
    world.take(NEW)
    world.vetting.rollback(1)
    assert world.served() == (OLD,)


def test_history_is_bounded(world: World) -> None:
    world.learn = "history: 2"
    world.restarted()
    for octet in range(1, 6):
        world.take(f"10.0.0.{octet}")
    assert [record.serial for record in world.vetting.orders.history] == [4, 5]


async def test_a_file_that_cannot_be_written_is_told(world: World) -> None:
    world.vetting.pin(A, [OLD])
    (world.folder / "learned.jws.orders").mkdir()
    assert await world.vetting.saved() == "Is a directory"


# -- the operator's program ----------------------------------------------------------------------


async def test_the_program_is_told_of_addresses_and_the_routes_they_need(world: World) -> None:
    program = world.folder / "on-change"
    program.write_text(f"#!/bin/sh\ncat >> {world.folder}/told\n")
    program.chmod(0o755)
    world.learn = f"on_change: {program}"
    world.restarted()
    world.take(OLD)
    world.dead.add("10.0.1.1")
    told = world.folder / "told"

    def documents() -> list[Any]:
        return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []

    async with world.running():
        await until(documents)
        world.take("10.0.1.1", "127.0.0.1")
        await until(lambda: len(documents()) == 2)
    first, second = documents()
    assert {name["name"]: name["new"] for name in first["names"]} == {A: [OLD], PINNED: ["10.1.2.3"]}
    assert first["routes_needed"] == ["10.1.2.3"]
    (name,) = second["names"]
    # Held back for want of a route: this is when the program can add it.
    assert (name["old"], name["new"], name["learned"]) == ([OLD], [OLD], ["10.0.1.1"])
    assert (name["routes_needed"], second["routes_needed"]) == (["10.0.1.1"], ["10.0.1.1", "10.1.2.3"])


def test_a_program_that_cannot_be_run_is_said_at_start(world: World) -> None:
    world.learn = f"on_change: {world.folder}/none"
    with pytest.raises(StartError, match="learn.on_change"):
        world.restarted()
