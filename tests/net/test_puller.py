from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dnsproxy.core import names, seal
from dnsproxy.core.addresses.lifecycle import MAX_ISSUERS, AddressLifecycle, OpenedSnapshot
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.learned import CLOCK_SKEW, LearnedName, Scope, Snapshot
from dnsproxy.core.registry import Wanted
from dnsproxy.core.totals import PullResult
from dnsproxy.core.trust import Trust
from dnsproxy.errors import FetchError
from dnsproxy.net import puller
from dnsproxy.net.fetch import Fetched, Request
from dnsproxy.net.puller import (
    COLD_RETRY,
    HINTED,
    MAX_BACKOFF,
    QUICK_RETRIES,
    QUICK_RETRY,
    RECENT,
    SnapshotPuller,
)
from dnsproxy.settings.etcd import EtcdSource
from dnsproxy.settings.learning import LearnSettings, SourceSettings
from dnsproxy.settings.sources import Source
from tests.fakes.kubelet import AtomicWriter
from tests.strategies import learned, snapshot

KEY, OTHER_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TRUSTED = {seal.key_id(KEY.public_key()): KEY.public_key()}
NAMES = ("a.example.", "b.example.", "c.example.")
SCOPE = Scope(frozenset(names.to_key(name) for name in NAMES))
ONE, TWO = "http://one.example/v1/snapshot", "http://two.example/v1/snapshot"
REFRESH = 15.0

FIRST = snapshot(learned("a.example.", ("10.0.0.1",)), serial=1, at=1000)
SECOND = snapshot(learned("a.example.", ("10.0.0.2",)), serial=2, at=1030)
Outcome = str | Exception | None


def token(content: Snapshot, key: Ed25519PrivateKey = KEY) -> str:
    return seal.sign(content, key)


class World:
    """A puller with sources and a wall clock that the test holds, and the state that it feeds."""

    def __init__(self, *urls: str, refresh: float = REFRESH) -> None:
        self.wall = 1050.0
        self.outcomes: dict[str, Outcome] = {}
        self.requests: list[tuple[str, Request]] = []
        self.accepted: list[OpenedSnapshot] = []
        managed = tuple(Wanted(name, "other", "hangzhou") for name in NAMES)
        self.state = AddressLifecycle(AddressPolicy(managed, keys=dict.fromkeys(TRUSTED), ports=()))
        self.settings = LearnSettings(
            sources=[SourceSettings(url=url) for url in urls or (ONE,)],
            trusted_keys=[Path("helper.pub")],
            refresh=refresh,
        )
        self.puller = self.made()

    def made(self, **given: Any) -> SnapshotPuller:
        options: dict[str, Any] = {"wall": lambda: self.wall, "fetch": self.fetch, **given}
        self.puller = SnapshotPuller(self.settings, Trust(TRUSTED, SCOPE), self.state, self.accept, **options)
        return self.puller

    def accept(self, opened: OpenedSnapshot) -> None:
        self.accepted.append(opened)
        self.state.accept(opened)
        while not self.state.settle(100, 0.0, self.wall):
            pass

    async def fetch(self, source: Source, request: Request) -> Fetched:
        self.requests.append((source.url, request))
        outcome = self.outcomes[source.url]
        if isinstance(outcome, Exception):
            raise outcome
        return Fetched(outcome, f'"{len(self.requests)}"')

    async def pull(self, outcome: Outcome, url: str = ONE) -> bool:
        self.outcomes[url] = outcome
        source = next(source for source in self.settings.sources if source.url == url)
        return await self.puller._pull_safely(source, may_wait=True)

    def addresses(self, name: str = "a.example.") -> tuple[str, ...]:
        owned = self.state.owned(name)
        return owned.learned.addresses if owned is not None else ()


@pytest.fixture
def world() -> World:
    return World()


def of(logs: list[Any], event: str) -> list[dict[str, Any]]:
    return [entry for entry in logs if entry["event"] == event]


# -- one source --------------------------------------------------------------------


async def test_an_accepted_snapshot_is_handed_over_as_it_was_signed(world: World) -> None:
    with capture_logs() as logs:
        assert await world.pull(token(FIRST))
        assert await world.pull(token(SECOND))
    assert world.addresses() == ("10.0.0.2",)
    assert [opened.token for opened in world.accepted] == [token(FIRST), token(SECOND)]
    assert {opened.key_id for opened in world.accepted} == set(TRUSTED)
    assert of(logs, "learned.refreshed")
    (status,) = world.puller.statuses
    assert (status.url, status.issuer, status.serial) == (ONE, "helper-a", 2)
    assert (status.last_attempt, status.last_success, status.last_error) == (1050, 1050, None)


async def test_an_unchanged_one_changes_nothing(world: World) -> None:
    await world.pull(token(FIRST))
    with capture_logs() as logs:
        assert await world.pull(token(FIRST))
        assert await world.pull(None)
    assert len(world.accepted) == 1
    assert logs == []
    assert not world.puller.rejected


async def test_what_is_held_is_judged_by_its_time_and_not_verified_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.pull(token(FIRST))
    opened: list[str] = []
    monkeypatch.setattr(Trust, "open", lambda _self, text: opened.append(text))
    assert await world.pull(token(FIRST))
    world.wall = FIRST.expires_at + 10_000.0
    assert not await world.pull(token(FIRST))
    assert world.puller.rejected == {"expired": 1}
    assert opened == []


async def test_a_look_again_renews_without_a_swap(world: World) -> None:
    await world.pull(token(FIRST))
    with capture_logs() as logs:
        await world.pull(token(snapshot(learned("a.example.", ("10.0.0.1",)), serial=1, at=1030)))
    assert [entry["event"] for entry in logs] == ["learned.refreshed"]
    assert world.state.snapshots["helper-a"].snapshot.issued_at == 1030
    assert len(world.accepted) == 2


def cut(text: str) -> str:
    return text[: len(text) // 2]


FAR = 1050 + CLOCK_SKEW + 10
BAD: dict[str, str] = {
    "older": token(snapshot(learned("a.example.", ("10.0.0.9",)), serial=0, at=1040)),
    "unknown_key": token(SECOND, OTHER_KEY),
    "bad_signature": ".".join([*token(SECOND).split(".")[:2], token(FIRST).split(".")[2]]),
    "malformed": cut(token(SECOND)),
    "expired": token(Snapshot("helper-a", 3, 100, 200, (learned("a.example.", ("10.0.0.9",)),))),
    "not_yet_valid": token(snapshot(learned("a.example.", ("10.0.0.9",)), serial=3, at=FAR)),
    "not_ours": token(snapshot(learned("www.bank.example.", ("10.0.0.9",)), serial=3, at=1040)),
    "shrank_to_empty": token(snapshot(learned("a.example.", ()), serial=3, at=1040)),
}


@pytest.mark.parametrize("reason", sorted(BAD))
async def test_a_bad_snapshot_is_counted_logged_once_and_changes_nothing(world: World, reason: str) -> None:
    await world.pull(token(FIRST))
    with capture_logs() as logs:
        assert not await world.pull(BAD[reason])
        assert not await world.pull(BAD[reason])
    assert (world.addresses(), len(world.accepted)) == (("10.0.0.1",), 1)
    assert world.puller.rejected == {reason: 2}
    assert [entry["reason"] for entry in of(logs, "learned.rejected")] == [reason]
    (status,) = world.puller.statuses
    assert (status.last_error or "").startswith(f"{reason}: ")
    with capture_logs() as logs:
        assert await world.pull(token(SECOND))
    assert world.addresses() == ("10.0.0.2",)
    assert of(logs, "learned.source_recovered")
    assert world.puller.statuses[0].last_error is None


async def test_a_rejection_is_logged_again_for_another_serial(world: World) -> None:
    await world.pull(token(SECOND))
    with capture_logs() as logs:
        for serial in (1, 1, 0, 1):
            await world.pull(token(snapshot(learned("a.example."), serial=serial, at=1000)))
    assert [entry["serial"] for entry in of(logs, "learned.rejected")] == [1, 0, 1]


async def test_after_a_rejection_the_whole_document_is_asked_for(world: World) -> None:
    await world.pull(token(FIRST))
    await world.pull(BAD["not_yet_valid"])
    await world.pull(token(SECOND))
    await world.pull(None)
    shapes = [(request.etag, request.wait) for _, request in world.requests]
    # Else a tag would turn a rejected document into "nothing new", hence into a success.
    assert shapes == [(None, 0), ('"1"', REFRESH), (None, 0), ('"3"', REFRESH)]


async def test_what_is_not_valid_yet_is_taken_when_its_time_comes(world: World) -> None:
    await world.pull(token(FIRST))
    await world.pull(BAD["not_yet_valid"])
    world.wall = FAR
    assert await world.pull(BAD["not_yet_valid"])
    assert world.addresses() == ("10.0.0.9",)


async def test_a_failure_is_logged_when_it_begins_and_when_it_ends(world: World) -> None:
    await world.pull(token(FIRST))
    world.wall = 1060.0
    with capture_logs() as logs:
        for reason in ("no route", "no route", "refused"):
            assert not await world.pull(FetchError(reason))
        assert await world.pull(None)
    assert [entry["event"] for entry in logs] == ["learned.source_failed", "learned.source_recovered"]
    assert world.addresses() == ("10.0.0.1",)
    assert world.puller.statuses[0].last_success == 1060.0


async def test_status_of_a_source_that_was_never_reached(world: World) -> None:
    assert world.puller.statuses[0].last_attempt is None
    await world.pull(FetchError("no route"))
    (status,) = world.puller.statuses
    assert (status.last_attempt, status.last_success, status.last_error) == (1050, None, "no route")


async def test_an_error_of_the_program_does_not_end_the_pulling(world: World) -> None:
    await world.pull(token(FIRST))
    with capture_logs() as logs:
        assert not await world.pull(ZeroDivisionError())
    assert of(logs, "learned.source_crashed")
    assert await world.pull(token(SECOND))
    assert world.addresses() == ("10.0.0.2",)


async def test_foreign_names_of_helpers_without_end_are_not_kept(world: World) -> None:
    foreign = learned("www.bank.example.", ("10.6.6.6",))
    for number in range(MAX_ISSUERS + 9):
        mine = learned("a.example.", ("10.0.0.1",))
        assert await world.pull(token(snapshot(mine, foreign, issuer=f"helper-{number}")))
    assert len(world.puller._foreign) <= MAX_ISSUERS + 1


async def test_foreign_names_are_left_out_and_named_once(world: World) -> None:
    foreign = learned("www.bank.example.", ("10.6.6.6",))
    with capture_logs() as logs:
        for serial in (1, 2):
            mine = learned("a.example.", (f"10.0.0.{serial}",))
            await world.pull(token(snapshot(mine, foreign, serial=serial)))
        await world.pull(token(snapshot(mine, foreign, learned("x.example."), serial=3)))
    assert list(world.state.names) == ["a.example."]
    assert [entry["names"] for entry in of(logs, "learned.foreign_names")] == [
        ["www.bank.example."],
        ["x.example."],
    ]


async def test_a_name_without_addresses_is_kept_and_said(world: World) -> None:
    both = (learned("a.example.", ("10.0.0.1",)), learned("b.example.", ("10.0.0.2",)))
    await world.pull(token(snapshot(*both, serial=1)))
    with capture_logs() as logs:
        await world.pull(token(snapshot(both[0], learned("b.example.", (), status="failed"), serial=2)))
    assert world.addresses("b.example.") == ("10.0.0.2",)
    assert [entry["names"] for entry in of(logs, "learned.kept")] == [["b.example."]]


async def test_passwords_and_queries_of_a_source_are_not_shown() -> None:
    url = "http://me:hunter2@one.example/x?sig=s3cret"
    world = World(url)
    with capture_logs() as logs:
        await world.pull("junk", url)
        await world.pull(ZeroDivisionError(), url)
    shown = repr([world.puller.statuses, [{**entry, "exc_info": None} for entry in logs]])
    assert "http://one.example/x" in shown
    assert "hunter2" not in shown
    assert "s3cret" not in shown
    # The query may be signed as a whole, so nothing is added to it.
    await world.pull(token(FIRST), url)
    await world.pull(None, url)
    assert world.requests[-1][1].wait == 0


async def test_a_file_is_followed_however_long_the_pauses(tmp_path: Path) -> None:
    """The real fetcher and a volume written as the kubelet does: learned, spoiled, gone and mended."""
    writer = AtomicWriter(tmp_path / "volume")
    world = World((tmp_path / "volume" / "snapshot.jws").as_uri(), refresh=3600)
    puller = world.made(fetch=None)
    contents = [token(FIRST), "junk", token(SECOND), token(snapshot(learned("a.example."), serial=3))]
    writer.write({"snapshot.jws": contents[0].encode()})

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    pulling = asyncio.create_task(puller.run())
    try:
        await until(lambda: world.state.serial == 1)
        writer.write({"snapshot.jws": contents[1].encode()})
        await until(lambda: puller.rejected["malformed"] == 1)
        writer.write({"snapshot.jws": contents[2].encode()})
        await until(lambda: world.state.serial == 2)
        (tmp_path / "volume").rename(tmp_path / "gone")
        await until(lambda: "No such file" in (puller.statuses[0].last_error or ""))
        (tmp_path / "gone").rename(tmp_path / "volume")
        writer.write({"snapshot.jws": contents[3].encode()})
        await until(lambda: world.state.serial == 3)
    finally:
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
    assert puller.statuses[0].last_error is None


# -- two sources ---------------------------------------------------------------------


async def test_two_issuers_are_judged_apart() -> None:
    world = World(ONE, TWO)
    mine = snapshot(learned("a.example.", ("10.0.0.1",)), issuer="helper-a", serial=900)
    theirs = snapshot(learned("b.example.", ("10.0.0.2",)), issuer="helper-b", serial=5)
    assert await world.pull(token(mine), ONE)
    assert await world.pull(token(theirs), TWO)
    assert (world.addresses("a.example."), world.addresses("b.example.")) == (("10.0.0.1",), ("10.0.0.2",))
    assert [status.serial for status in world.puller.statuses] == [900, 5]
    assert set(world.state.snapshots) == {"helper-a", "helper-b"}


async def test_one_bad_source_does_not_disturb_the_other() -> None:
    world = World(ONE, TWO)
    assert not await world.pull("junk", ONE)
    assert await world.pull(token(FIRST), TWO)
    assert [status.last_error is None for status in world.puller.statuses] == [False, True]
    assert world.addresses() == ("10.0.0.1",)


async def test_a_lagging_mirror_of_the_same_helper_takes_nothing_back() -> None:
    world = World(ONE, TWO)
    await world.pull(token(SECOND), ONE)
    assert not await world.pull(token(FIRST), TWO)
    assert world.addresses() == ("10.0.0.2",)


# -- another configuration ---------------------------------------------------------------


async def test_counters_and_status_continue_and_the_whole_snapshot_is_requested(world: World) -> None:
    await world.pull(token(FIRST))
    await world.pull(BAD["older"])
    earlier = world.puller
    puller = world.made()
    puller.take_over(earlier)
    (status,) = puller.statuses
    assert (status.issuer, status.serial, status.last_success) == ("helper-a", None, 1050)
    assert puller.rejected == {"older": 1}
    await world.pull(token(FIRST))
    assert (world.requests[-1][1].serial, world.requests[-1][1].etag) == (None, None)
    # Nothing is new in it.
    assert len(world.accepted) == 1


async def test_what_was_pulled_by_earlier_settings_is_not_handed_over_later(world: World) -> None:
    """Its key may be trusted no more."""
    earlier, go = world.puller, asyncio.Event()

    async def fetch(_source: Source, _request: Request) -> Fetched:
        await go.wait()
        return Fetched(token(FIRST), None)

    earlier._fetch = fetch
    pulling = asyncio.ensure_future(earlier._pull_safely(world.settings.sources[0], may_wait=False))
    await asyncio.sleep(0)
    world.made().take_over(earlier)
    go.set()
    await pulling
    assert world.accepted == []


# -- pace ------------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    for source in world.settings.sources:
        world.outcomes.setdefault(source.url, FetchError("not yet"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(world.puller.run())
        yield
        task.cancel()


async def test_every_source_is_asked_at_once_and_again() -> None:
    world = World(ONE, TWO, refresh=0.1)
    async with running(world):
        await until(lambda: {url for url, _ in world.requests[:2]} == {ONE, TWO})
        await until(lambda: min(sum(url == each for url, _ in world.requests) for each in (ONE, TWO)) >= 3)


async def test_refresh_now_ends_a_pause() -> None:
    world = World(refresh=3600)
    world.outcomes[ONE] = token(FIRST)
    async with running(world):
        # The first answer is new, so one more request follows soon; then it is quiet for an hour.
        await until(lambda: len(world.requests) == 2)
        await asyncio.sleep(0)
        world.outcomes[ONE] = token(SECOND)
        world.puller.refresh_now()
        await until(lambda: world.state.serial == 2)
    assert world.requests[2][1].wait == 0


async def test_refresh_now_at_the_end_of_a_pause() -> None:
    """A pause that has just ended by itself keeps no source from being asked."""
    world = World(ONE, TWO, refresh=0.3)
    refreshed = asyncio.Event()

    async def changed(source: Source) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if source.url == ONE and not refreshed.is_set():
                world.puller.refresh_now()
                refreshed.set()
            raise

    world.made(changed=changed)
    world.outcomes |= {ONE: token(FIRST), TWO: token(SECOND)}
    async with running(world):
        await until(refreshed.is_set)
        asked = len(world.requests)
        await until(lambda: {url for url, _ in world.requests[asked:]} == {ONE, TWO})


class Polled(World):
    """Its source keeps each long poll for ever, and each plain request until ``go``."""

    def __init__(self) -> None:
        super().__init__(refresh=3600)
        self.polls = self.ended = 0
        self.go = asyncio.Event()
        self.go.set()

    async def fetch(self, source: Source, request: Request) -> Fetched:
        if request.wait:
            self.polls += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.ended += 1
        fetched = await super().fetch(source, request)
        await self.go.wait()
        return fetched


async def test_refresh_now_ends_a_long_poll() -> None:
    world = Polled()
    world.outcomes[ONE] = token(FIRST)
    async with running(world):
        await until(lambda: world.polls == 1)
        world.outcomes[ONE] = token(SECOND)
        world.puller.refresh_now()
        world.puller.refresh_now()
        await until(lambda: world.state.serial == 2)
        await until(lambda: world.polls == 2)
    assert world.polls == world.ended
    assert world.puller.statuses[0].last_error is None


async def test_a_watched_source_is_waited_on_again_at_once_after_a_mere_look() -> None:
    world = Polled()
    world.settings = world.settings.model_copy(
        update={
            "refresh": 3600.0,
            "sources": [EtcdSource(type="etcd", endpoints=["http://127.0.0.1:1"], key="k")],
        }
    )
    puller = world.made()
    documents = [FIRST, replace(FIRST, issued_at=1010), replace(FIRST, issued_at=1020), SECOND]

    async def fetch(_source: Source, request: Request) -> Fetched:
        world.requests.append((ONE, request))
        if not documents:
            await asyncio.Event().wait()
        content = documents.pop(0)
        return Fetched(token(content), f"{content.serial}:{content.issued_at}")

    puller._fetch = fetch
    running = asyncio.create_task(puller.run())
    async with asyncio.timeout(20):
        while world.state.serial != SECOND.serial:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [request.wait > 0 for _, request in world.requests[:4]] == [False, True, True, True]


async def test_refresh_now_during_a_plain_request_asks_once_more() -> None:
    world = Polled()
    world.outcomes[ONE] = FetchError("not yet")
    world.go.clear()
    world.outcomes[ONE] = token(FIRST)
    async with running(world):
        await until(lambda: len(world.requests) == 1)
        # What this request brings was read before the operator asked.
        world.outcomes[ONE] = token(SECOND)
        world.puller.refresh_now()
        world.go.set()
        await until(lambda: world.state.serial == 2)


async def test_a_refresh_reports_what_each_pull_did_that_began_after_it() -> None:
    world = World(ONE, TWO, refresh=3600)
    world.outcomes |= {ONE: token(FIRST), TWO: FetchError(f"{TWO}: Connection refused")}
    async with running(world):
        await until(lambda: len(world.requests) >= 3)
        world.outcomes[ONE] = token(SECOND)
        assert await world.puller.refresh() == [
            PullResult(ONE, None, SECOND.issuer, 2),
            PullResult(TWO, "Connection refused"),
        ]


async def test_a_refresh_does_not_take_the_end_of_an_earlier_pull_for_its_own() -> None:
    world = Polled()
    world.go.clear()
    world.outcomes[ONE] = token(FIRST)
    async with running(world):
        await until(lambda: len(world.requests) == 1)
        refreshing = asyncio.ensure_future(world.puller.refresh())
        await asyncio.sleep(0)
        world.outcomes[ONE] = token(SECOND)
        world.go.set()
        assert [result.serial for result in await refreshing] == [2]


async def test_a_source_without_an_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puller, "REFRESH_DEADLINE", 0.1)
    world = Polled()
    world.go.clear()
    world.outcomes[ONE] = token(FIRST)
    async with running(world):
        (result,) = await world.puller.refresh()
        world.go.set()
    assert result.error == "no whole answer within 0.1 s"


async def test_a_source_that_was_well_is_retried_soon_when_it_cannot_be_reached(world: World) -> None:
    source = world.settings.sources[0]
    await world.pull(token(FIRST))
    await world.pull(FetchError("Connection refused"))
    # A restart is over by then: no growth that would make the last delay longer than the restart was.
    delays = [world.puller._backoff(source, n) for n in range(1, QUICK_RETRIES + 1) for _ in range(50)]
    assert QUICK_RETRY <= min(delays) <= max(delays) <= 3 * QUICK_RETRY
    assert max(world.puller._backoff(source, QUICK_RETRIES + 1) for _ in range(50)) > 3 * QUICK_RETRY
    assert max(world.puller._backoff(source, 60) for _ in range(50)) <= 4 * REFRESH
    world.wall += RECENT
    assert world.puller._backoff(source, 1) >= REFRESH
    # What it publishes is wrong: that does not mend itself in a second.
    world.wall -= RECENT
    await world.pull("nonsense")
    assert world.puller._backoff(source, 1) >= REFRESH


async def test_a_source_that_says_when_to_come_again_is_retried_then(world: World) -> None:
    source = world.settings.sources[0]
    await world.pull(FetchError("status 503", 2.0))
    for failures in range(1, HINTED + 1):
        assert 2.0 <= world.puller._backoff(source, failures) <= 4.0
    await world.pull(FetchError("status 503", 999_999.0))
    assert world.puller._backoff(source, 1) <= 4 * REFRESH
    await world.pull(FetchError("status 503", 0.0))
    assert world.puller._backoff(source, 1) >= QUICK_RETRY


async def test_without_sources_there_is_nothing_to_pull() -> None:
    world = World()
    world.settings = LearnSettings()
    async with asyncio.timeout(10):
        await world.made().run()
    assert (world.puller.statuses, world.requests) == ([], [])


async def test_back_off(world: World) -> None:
    source = world.settings.sources[0]

    def longest() -> float:
        return max(world.puller._backoff(source, failures) for failures in range(1, 60) for _ in range(20))

    assert world.puller._backoff(source, 1) < 3 * COLD_RETRY
    assert longest() <= 4 * REFRESH
    await world.pull(token(FIRST))
    assert world.puller._backoff(source, 1) >= REFRESH
    assert longest() <= 4 * REFRESH
    world.wall += RECENT
    assert 4 * REFRESH < longest() <= MAX_BACKOFF


@pytest.mark.parametrize("refresh", [0.1, 100.0, 3600.0])
async def test_back_off_is_bounded_for_every_refresh(refresh: float) -> None:
    world = World(refresh=refresh)
    await world.pull(token(FIRST))
    for wall in (world.wall, world.wall + RECENT):
        world.wall = wall
        delays = [world.puller._backoff(world.settings.sources[0], failures) for failures in range(1, 60)]
        assert refresh <= min(delays)
        assert max(delays) <= max(refresh, MAX_BACKOFF)


# -- for any sequence ------------------------------------------------------------------

entries = st.builds(
    lambda name, hosts: learned(name, tuple(f"10.0.0.{host}" for host in sorted(hosts))),
    st.sampled_from([*NAMES, "foreign.example."]),
    st.sets(st.integers(1, 3), max_size=2),
)
contents: st.SearchStrategy[tuple[LearnedName, ...]] = st.lists(
    entries, max_size=4, unique_by=lambda entry: entry.name
).map(tuple)
candidates = st.builds(
    lambda content, serial, at: snapshot(*content, serial=serial, at=at),
    contents,
    st.integers(0, 6),
    st.integers(1000, 1004),
)


@settings(max_examples=60)
@given(st.lists(candidates, max_size=10))
def test_serials_never_fall_and_names_never_lose_their_addresses(sequence: list[Snapshot]) -> None:
    async def play(world: World) -> None:
        for candidate in sequence:
            before, known = world.state.serial, set(world.state.names)
            await world.pull(token(candidate))
            assert world.state.serial >= before
            assert known <= set(world.state.names) <= set(NAMES)
            assert all(world.addresses(name) for name in world.state.names)

    with capture_logs():
        asyncio.run(play(World()))
