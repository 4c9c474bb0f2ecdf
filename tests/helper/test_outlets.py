from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dnsproxy.errors import PublishError
from dnsproxy.helper import outlets as module
from dnsproxy.helper.outlets import Outlets, make_targets
from dnsproxy.settings import publishing


class Place:
    """A target that fails as it is told, or hangs until it is let go."""

    def __init__(self, name: str = "place", content: str | None = None) -> None:
        self.name = name
        self.content = content
        self.failure: Exception | None = None
        self.writes: list[str] = []
        self.going = asyncio.Event()
        self.going.set()
        self.closed = False

    async def write(self, token: str) -> None:
        self.writes.append(token)
        await self.going.wait()
        if self.failure is not None:
            raise self.failure
        self.content = token

    async def read(self) -> str | None:
        await self.going.wait()
        if self.failure is not None:
            raise self.failure
        return self.content

    async def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY", 0.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_every_target_gets_it_whatever_the_others_do() -> None:
    good, bad = Place("good"), Place("bad")
    bad.failure = PublishError("no leader")
    outlets = Outlets([good, bad])
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(outlets.run())
            outlets.offer("one", 1)
            await until(lambda: outlets.statuses[1].failures >= 3)
            assert (outlets.statuses[0].serial, outlets.statuses[0].error) == (1, None)
            assert (outlets.statuses[1].serial, outlets.statuses[1].error) == (None, "no leader")
            bad.failure = None
            await until(lambda: bad.content == "one" and outlets.statuses[1].error is None)
            running.cancel()
    assert (good.writes, good.closed, bad.closed) == (["one"], True, True)
    assert [(entry["event"], entry["target"]) for entry in logs] == [
        ("helper.target_failed", "bad"),
        ("helper.target_recovered", "bad"),
    ]


async def test_only_the_latest_is_written() -> None:
    place = Place()
    place.going.clear()
    outlets = Outlets([place])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(outlets.run())
        outlets.offer("one", 1)
        await until(lambda: place.writes == ["one"])
        for serial, token in ((2, "two"), (3, "three")):
            outlets.offer(token, serial)
        place.going.set()
        await until(lambda: outlets.statuses[0].serial == 3)
        running.cancel()
    assert place.writes == ["one", "three"]


async def test_what_is_withdrawn_is_not_tried_again() -> None:
    place = Place()
    place.failure = PublishError("serial 2 is there")
    outlets = Outlets([place])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(outlets.run())
        outlets.offer("one", 1)
        await until(lambda: outlets.statuses[0].failures > 0)
        outlets.withdraw()
        outlets.withdraw()
        place.failure = None
        await until(lambda: outlets.statuses[0].error is None)
        tried = len(place.writes)
        outlets.offer("three", 3)
        await until(lambda: place.content is not None)
        running.cancel()
    assert set(place.writes[:tried]) == {"one"}
    assert (place.content, place.writes[tried:]) == ("three", ["three"])


async def test_a_write_that_hangs_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE", 0.05)
    place = Place()
    place.going.clear()
    outlets = Outlets([place])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(outlets.run())
        outlets.offer("one", 1)
        await until(lambda: outlets.statuses[0].failures > 0)
        assert outlets.statuses[0].error == "not done within 0.05 s"
        running.cancel()


async def test_a_mistake_of_ours_is_logged_and_tried_again() -> None:
    place = Place()
    place.failure = KeyError("oops")
    outlets = Outlets([place])
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(outlets.run())
            outlets.offer("one", 1)
            await until(lambda: outlets.statuses[0].failures > 0)
            place.failure = None
            await until(lambda: place.content == "one")
            running.cancel()
    assert logs[0]["event"] == "helper.target_crashed"


async def test_what_is_published_is_read_from_all_that_can_be() -> None:
    bad = Place("bad")
    bad.failure = OSError(13, "denied")
    outlets = Outlets([Place("a", "one"), bad, Place("c"), Place("d", "two")])
    with capture_logs() as logs:
        assert await outlets.read() == [("a", "one"), ("d", "two")]
    assert [(entry["event"], entry["target"], entry["reason"]) for entry in logs] == [
        ("helper.target_unread", "bad", "Permission denied")
    ]


def test_targets_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.jws"
    (target,) = make_targets([publishing.FileTarget(type="file", path=path)])
    assert target.name == f"file://{path}"
