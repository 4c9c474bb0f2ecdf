from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dnsproxy.core.book import Book
from dnsproxy.net.refresh import COLD_RETRY, MAX_BACKOFF, RECENT, Learner
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dnsproxy.core import names, seal
from dnsproxy.core.learned import CLOCK_SKEW, LearnedName, Scope, Snapshot
from dnsproxy.core.trust import Trust
from dnsproxy.errors import FetchError
from dnsproxy.net.fetch import Fetched, Request
from dnsproxy.net.statefile import REFRESH_GAP, read_state, write_state
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
    """A learner with sources and a wall clock that the test holds."""

    def __init__(self, folder: Path, *urls: str, refresh: float = REFRESH) -> None:
        self.state = folder / "learned.jws"
        self.wall = 1050.0
        self.outcomes: dict[str, Outcome] = {}
        self.requests: list[tuple[str, Request]] = []
        self.books: list[Book] = []
        self.settings = LearnSettings(
            sources=[SourceSettings(url=url) for url in urls or (ONE,)],
            trusted_keys=[Path("helper.pub")],
            state_file=self.state,
            refresh=refresh,
        )
        self.learner = self.restarted()

    def restarted(self) -> Learner:
        self.learner = Learner(
            self.settings, Trust(TRUSTED, SCOPE), self.books.append, wall=lambda: self.wall, fetch=self.fetch
        )
        return self.learner

    async def fetch(self, source: Source, request: Request) -> Fetched:
        self.requests.append((source.url, request))
        outcome = self.outcomes[source.url]
        if isinstance(outcome, Exception):
            raise outcome
        return Fetched(outcome, f'"{len(self.requests)}"')

    async def pull(self, outcome: Outcome, url: str = ONE) -> bool:
        self.outcomes[url] = outcome
        source = next(source for source in self.settings.sources if source.url == url)
        return await self.learner._pull_safely(source, may_wait=True)

    def addresses(self, name: str = "a.example.") -> tuple[str, ...]:
        return self.learner.book.entries[name].learned.addresses


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def of(logs: list[Any], event: str) -> list[dict[str, Any]]:
    return [entry for entry in logs if entry["event"] == event]


# -- one source --------------------------------------------------------------------


async def test_an_accepted_snapshot_is_in_force_and_on_disk(world: World) -> None:
    with capture_logs() as logs:
        assert await world.pull(token(FIRST))
        assert await world.pull(token(SECOND))
    assert world.addresses() == ("10.0.0.2",)
    assert [book.serial for book in world.books] == [1, 2]
    await world.learner.close()
    assert read_state(world.state) == [token(SECOND)]
    assert [entry["changes"] for entry in of(logs, "learned.swapped")] == [
        [{"name": "a.example.", "old": [], "new": ["10.0.0.1"]}],
        [{"name": "a.example.", "old": ["10.0.0.1"], "new": ["10.0.0.2"]}],
    ]
    (status,) = world.learner.statuses
    assert (status.url, status.issuer, status.serial) == (ONE, "helper-a", 2)
    assert (status.last_attempt, status.last_success, status.last_error) == (1050, 1050, None)


async def test_an_unchanged_one_changes_nothing(world: World) -> None:
    await world.pull(token(FIRST))
    with capture_logs() as logs:
        assert await world.pull(token(FIRST))
        assert await world.pull(None)
    assert len(world.books) == 1
    assert logs == []
    assert not world.learner.rejected


async def test_a_look_again_renews_without_a_swap(world: World) -> None:
    await world.pull(token(FIRST))
    with capture_logs() as logs:
        await world.pull(token(snapshot(learned("a.example.", ("10.0.0.1",)), serial=1, at=1030)))
    assert [entry["event"] for entry in logs] == ["learned.refreshed"]
    assert world.learner.book.entries["a.example."].snapshot.issued_at == 1030
    assert len(world.books) == 2


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
    assert (world.addresses(), len(world.books)) == (("10.0.0.1",), 1)
    assert world.learner.rejected == {reason: 2}
    assert [entry["reason"] for entry in of(logs, "learned.rejected")] == [reason]
    (status,) = world.learner.statuses
    assert (status.last_error or "").startswith(f"{reason}: ")
    with capture_logs() as logs:
        assert await world.pull(token(SECOND))
    assert world.addresses() == ("10.0.0.2",)
    assert of(logs, "learned.source_recovered")
    assert world.learner.statuses[0].last_error is None


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
    assert world.learner.statuses[0].last_success == 1060.0


async def test_status_of_a_source_that_was_never_reached(world: World) -> None:
    assert world.learner.statuses[0].last_attempt is None
    await world.pull(FetchError("no route"))
    (status,) = world.learner.statuses
    assert (status.last_attempt, status.last_success, status.last_error) == (1050, None, "no route")


async def test_an_error_of_the_program_does_not_end_the_pulling(world: World) -> None:
    await world.pull(token(FIRST))
    with capture_logs() as logs:
        assert not await world.pull(ZeroDivisionError())
    assert of(logs, "learned.source_crashed")
    assert await world.pull(token(SECOND))
    assert world.addresses() == ("10.0.0.2",)


async def test_foreign_names_are_left_out_and_named_once(world: World) -> None:
    foreign = learned("www.bank.example.", ("10.6.6.6",))
    with capture_logs() as logs:
        for serial in (1, 2):
            mine = learned("a.example.", (f"10.0.0.{serial}",))
            await world.pull(token(snapshot(mine, foreign, serial=serial)))
        await world.pull(token(snapshot(mine, foreign, learned("x.example."), serial=3)))
    assert list(world.learner.book.entries) == ["a.example."]
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


async def test_passwords_and_queries_of_a_source_are_not_shown(tmp_path: Path) -> None:
    url = "http://me:hunter2@one.example/x?sig=s3cret"
    world = World(tmp_path, url)
    with capture_logs() as logs:
        await world.pull("junk", url)
        await world.pull(ZeroDivisionError(), url)
    shown = repr([world.learner.statuses, [{**entry, "exc_info": None} for entry in logs]])
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
    world = World(tmp_path, (tmp_path / "volume" / "snapshot.jws").as_uri(), refresh=3600)
    learner = Learner(world.settings, Trust(TRUSTED, SCOPE), world.books.append, wall=lambda: world.wall)
    contents = [token(FIRST), "junk", token(SECOND), token(snapshot(learned("a.example."), serial=3))]
    writer.write({"snapshot.jws": contents[0].encode()})

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    pulling = asyncio.create_task(learner.run())
    try:
        await until(lambda: learner.book.serial == 1)
        writer.write({"snapshot.jws": contents[1].encode()})
        await until(lambda: learner.rejected["malformed"] == 1)
        writer.write({"snapshot.jws": contents[2].encode()})
        await until(lambda: learner.book.serial == 2)
        (tmp_path / "volume").rename(tmp_path / "gone")
        await until(lambda: "No such file" in (learner.statuses[0].last_error or ""))
        (tmp_path / "gone").rename(tmp_path / "volume")
        writer.write({"snapshot.jws": contents[3].encode()})
        await until(lambda: learner.book.serial == 3)
    finally:
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
    assert learner.statuses[0].last_error is None


# -- two sources ---------------------------------------------------------------------


async def test_two_issuers_are_judged_apart(tmp_path: Path) -> None:
    world = World(tmp_path, ONE, TWO)
    mine = snapshot(learned("a.example.", ("10.0.0.1",)), issuer="helper-a", serial=900)
    theirs = snapshot(learned("b.example.", ("10.0.0.2",)), issuer="helper-b", serial=5)
    assert await world.pull(token(mine), ONE)
    assert await world.pull(token(theirs), TWO)
    assert (world.addresses("a.example."), world.addresses("b.example.")) == (("10.0.0.1",), ("10.0.0.2",))
    assert [status.serial for status in world.learner.statuses] == [900, 5]
    await world.learner.close()
    assert sorted(read_state(world.state)) == sorted([token(mine), token(theirs)])
    world.restarted().load()
    assert set(world.learner.book.entries) == {"a.example.", "b.example."}


async def test_one_bad_source_does_not_disturb_the_other(tmp_path: Path) -> None:
    world = World(tmp_path, ONE, TWO)
    assert not await world.pull("junk", ONE)
    assert await world.pull(token(FIRST), TWO)
    assert [status.last_error is None for status in world.learner.statuses] == [False, True]
    assert world.addresses() == ("10.0.0.1",)


async def test_a_lagging_mirror_of_the_same_helper_takes_nothing_back(tmp_path: Path) -> None:
    world = World(tmp_path, ONE, TWO)
    await world.pull(token(SECOND), ONE)
    assert not await world.pull(token(FIRST), TWO)
    assert world.addresses() == ("10.0.0.2",)


# -- the state file ------------------------------------------------------------------


def test_no_state_file_is_no_book(world: World) -> None:
    with capture_logs() as logs:
        world.learner.load()
    assert (world.books, logs) == ([], [])


def test_an_expired_snapshot_on_disk_is_better_than_none(world: World) -> None:
    write_state(world.state, [token(FIRST)])
    world.wall = FIRST.expires_at + 10**7
    world.learner.load()
    assert world.addresses() == ("10.0.0.1",)
    assert len(world.books) == 1


def test_what_is_older_names_come_from_older_tokens(world: World) -> None:
    before = snapshot(learned("a.example.", ("10.0.0.1",)), serial=1)
    after = snapshot(learned("b.example.", ("10.0.0.2",)), serial=2)
    write_state(world.state, [token(before), token(after)])
    world.learner.load()
    assert set(world.learner.book.entries) == {"a.example.", "b.example."}
    assert list(world.state.parent.glob("*.bad-*")) == []


def test_a_state_file_cut_at_any_octet_keeps_what_is_whole(tmp_path: Path) -> None:
    tokens = [token(FIRST), token(snapshot(learned("b.example.", ("10.0.0.2",)), serial=2))]
    content = "".join(f"{each}\n" for each in tokens).encode()
    first_end, second_end = len(tokens[0]), len(content) - 1
    for size in range(len(content) + 1):
        folder = tmp_path / str(size)
        folder.mkdir()
        world = World(folder)
        world.state.write_bytes(content[:size])
        with capture_logs():
            world.learner.load()
        expected = {"a.example."} if size >= first_end else set()
        expected |= {"b.example."} if size >= second_end else set()
        assert set(world.learner.book.entries) == expected, size
        whole = size in {0, first_end, first_end + 1, second_end, second_end + 1}
        asides = list(folder.glob("learned.jws.bad-*"))
        assert [aside.read_bytes() for aside in asides] == ([] if whole else [content[:size]]), size
        assert read_state(world.state) == tokens[: len(expected)], size
        shutil.rmtree(folder)


@pytest.mark.parametrize("content", [b"\x00" * 100, b"\xff\xfe\n\n", b"{}\n", b"..\n", b"a.b.c\n" * 50])
def test_junk_is_set_aside(world: World, content: bytes) -> None:
    world.state.write_bytes(content)
    with capture_logs() as logs:
        world.learner.load()
    assert world.books == []
    assert read_state(world.state) == []
    assert world.state.with_name("learned.jws.bad-1050").read_bytes() == content
    assert len(of(logs, "learned.state_set_aside")) == 1
    assert of(logs, "learned.state_rejected")


def test_an_unreadable_state_file_is_logged(world: World) -> None:
    world.state.mkdir()
    with capture_logs() as logs:
        world.learner.load()
    assert [entry["event"] for entry in logs] == ["learned.state_unreadable"]


def test_a_disk_that_takes_no_write_at_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _tokens: list[str]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dnsproxy.net.refresh.write_state", full)
    world.state.write_text(f"{token(FIRST)}\ntorn")
    with capture_logs() as logs:
        world.learner.load()
    assert world.addresses() == ("10.0.0.1",)
    assert of(logs, "learned.state_write_failed")
    # The good one is still where the next start looks.
    world.restarted().load()
    assert world.addresses() == ("10.0.0.1",)


def test_names_that_are_configured_no_more_are_not_loaded(world: World) -> None:
    write_state(world.state, [token(snapshot(learned("gone.example."), learned("a.example."), serial=1))])
    world.learner.load()
    assert list(world.learner.book.entries) == ["a.example."]


async def test_after_a_restart_an_older_snapshot_is_refused(world: World) -> None:
    await world.pull(token(SECOND))
    await world.learner.close()
    world.restarted().load()
    assert not await world.pull(token(FIRST))
    assert world.learner.rejected == {"older": 1}
    assert world.addresses() == ("10.0.0.2",)


async def test_changed_addresses_are_written_at_once_and_mere_looks_later(world: World) -> None:
    await world.pull(token(FIRST))
    assert world.learner._writer.delay == 0
    await world.learner.close()
    await world.pull(token(snapshot(learned("a.example.", ("10.0.0.1",)), serial=1, at=1030)))
    assert 0 < world.learner._writer.delay <= REFRESH_GAP
    assert read_state(world.state) == [token(FIRST)]
    await world.pull(token(SECOND))
    assert world.learner._writer.delay == 0


async def test_a_disk_that_fails_and_recovers(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.touch()  # a file where the folder was
    world = World(folder)
    with capture_logs() as logs:
        async with running(world):
            world.outcomes[ONE] = token(FIRST)
            world.learner.refresh_now()
            await until(lambda: bool(of(logs, "learned.state_write_failed")))
            assert world.addresses() == ("10.0.0.1",)
            assert world.learner.disk_failure == "File exists"
            folder.unlink()
            world.outcomes[ONE] = token(SECOND)
            world.learner.refresh_now()
            await until(world.state.exists)
    assert read_state(world.state) == [token(SECOND)]


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
        task = group.create_task(world.learner.run())
        yield
        task.cancel()
    await world.learner.close()


async def test_every_source_is_asked_at_once_and_again(tmp_path: Path) -> None:
    world = World(tmp_path, ONE, TWO, refresh=0.1)
    async with running(world):
        await until(lambda: {url for url, _ in world.requests[:2]} == {ONE, TWO})
        await until(lambda: min(sum(url == each for url, _ in world.requests) for each in (ONE, TWO)) >= 3)


async def test_refresh_now_ends_a_pause(tmp_path: Path) -> None:
    world = World(tmp_path, refresh=3600)
    world.outcomes[ONE] = token(FIRST)
    async with running(world):
        # The first answer is new, so one more request follows soon; then it is quiet for an hour.
        await until(lambda: len(world.requests) == 2)
        await asyncio.sleep(0)
        world.outcomes[ONE] = token(SECOND)
        world.learner.refresh_now()
        await until(lambda: world.learner.book.serial == 2)
    assert world.requests[2][1].wait == 0


class Polled(World):
    """Its source keeps each long poll for ever, and each plain request until ``go``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, refresh=3600)
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


async def test_refresh_now_ends_a_long_poll(tmp_path: Path) -> None:
    world = Polled(tmp_path)
    world.outcomes[ONE] = token(FIRST)
    async with running(world):
        await until(lambda: world.polls == 1)
        world.outcomes[ONE] = token(SECOND)
        world.learner.refresh_now()
        world.learner.refresh_now()
        await until(lambda: world.learner.book.serial == 2)
        await until(lambda: world.polls == 2)
    assert world.polls == world.ended
    assert world.learner.statuses[0].last_error is None


async def test_a_watched_source_is_waited_on_again_at_once_after_a_mere_look(tmp_path: Path) -> None:
    world = Polled(tmp_path)
    world.settings = world.settings.model_copy(
        update={
            "refresh": 3600.0,
            "sources": [EtcdSource(type="etcd", endpoints=["http://127.0.0.1:1"], key="k")],
        }
    )
    learner = world.restarted()
    documents = [FIRST, replace(FIRST, issued_at=1010), replace(FIRST, issued_at=1020), SECOND]

    async def fetch(_source: Source, request: Request) -> Fetched:
        world.requests.append((ONE, request))
        if not documents:
            await asyncio.Event().wait()
        content = documents.pop(0)
        return Fetched(token(content), f"{content.serial}:{content.issued_at}")

    learner._fetch = fetch
    running = asyncio.create_task(learner.run())
    async with asyncio.timeout(20):
        while world.learner.book.serial != SECOND.serial:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [request.wait > 0 for _, request in world.requests[:4]] == [False, True, True, True]


async def test_refresh_now_during_a_plain_request_asks_once_more(tmp_path: Path) -> None:
    world = Polled(tmp_path)
    world.outcomes[ONE] = FetchError("not yet")
    world.go.clear()
    world.outcomes[ONE] = token(FIRST)
    async with running(world):
        await until(lambda: len(world.requests) == 1)
        # What this request brings was read before the operator asked.
        world.outcomes[ONE] = token(SECOND)
        world.learner.refresh_now()
        world.go.set()
        await until(lambda: world.learner.book.serial == 2)


async def test_without_sources_it_runs_until_cancelled(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.settings = LearnSettings(state_file=world.state)
    learner = world.restarted()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(learner.run())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()


async def test_back_off(world: World) -> None:
    source = world.settings.sources[0]

    def longest() -> float:
        return max(world.learner._backoff(source, failures) for failures in range(1, 60) for _ in range(20))

    assert world.learner._backoff(source, 1) < 3 * COLD_RETRY
    assert longest() <= 4 * REFRESH
    await world.pull(token(FIRST))
    assert world.learner._backoff(source, 1) >= REFRESH
    assert longest() <= 4 * REFRESH
    world.wall += RECENT
    assert 4 * REFRESH < longest() <= MAX_BACKOFF


@pytest.mark.parametrize("refresh", [0.1, 100.0, 3600.0])
async def test_back_off_is_bounded_for_every_refresh(tmp_path: Path, refresh: float) -> None:
    world = World(tmp_path, refresh=refresh)
    await world.pull(token(FIRST))
    for wall in (world.wall, world.wall + RECENT):
        world.wall = wall
        delays = [world.learner._backoff(world.settings.sources[0], failures) for failures in range(1, 60)]
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
def test_serials_never_fall_names_never_lose_their_addresses_and_a_restart_keeps_them(
    sequence: list[Snapshot],
) -> None:
    async def play(world: World) -> None:
        for candidate in sequence:
            before = world.learner.book
            await world.pull(token(candidate))
            after = world.learner.book
            assert after.serial >= before.serial
            assert set(after.entries) >= set(before.entries)
            assert all(entry.learned.addresses for entry in after.entries.values())
            assert set(after.entries) <= set(NAMES)
        await world.learner.close()

    with TemporaryDirectory() as folder, capture_logs():
        world = World(Path(folder))
        asyncio.run(play(world))
        kept = world.learner.book
        world.restarted().load()
        assert world.learner.book.entries == kept.entries
        assert list(Path(folder).glob("*.bad-*")) == []
