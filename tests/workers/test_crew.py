"""One worker after another, with workers that are played."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from structlog.testing import capture_logs

from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.stats import Stats
from dnsproxy.core.totals import Traffic
from dnsproxy.workers import crew as module
from dnsproxy.workers.crew import Crew
from dnsproxy.workers.messages import Begin, Content, Stop
from dnsproxy.workers.seat import Seat
from dnsproxy.workers.table_feed import SharedTable, TableFeed
from tests.fakes.starter import FakeStarter


class Owner:
    """Tells every process the same."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    def brief(self, seat: Seat, process: int, sock: socket.socket) -> None:
        seat.begin(process, sock, Begin(b"", ()), (), TableFeed(SharedTable(ServedTable())))

    def heard(self, seat: Seat, content: Content) -> None:
        """Nothing is asked."""

    def ended(self, process: int) -> None:
        self.ends.append(process)


@pytest.fixture
def starter() -> Iterator[FakeStarter]:
    made = FakeStarter(lambda _: Traffic(Stats(), {}, 0, 0))
    yield made
    made.close()


@contextlib.asynccontextmanager
async def opened(starter: FakeStarter) -> AsyncIterator[tuple[Crew, Owner]]:
    owner = Owner()
    crew = Crew(owner, starter, 2)
    assert await crew.open() is None
    try:
        yield crew, owner
    finally:
        await crew.close(10.0)


async def test_each_goes_once_its_successor_answers(starter: FakeStarter) -> None:
    async with opened(starter) as (crew, owner):
        before = dict(starter.living)
        with capture_logs() as logs:
            assert await crew.renew(10.0) is None
        assert starter.started == [1, 2, 1, 2]
        assert [worker.stops for _, worker in sorted(before.items())] == [[Stop(gently=True)]] * 2
        assert owner.ends == [1, 2]
        assert [(seat.number, seat.process, seat.is_open) for seat in crew.seats] == [
            (1, 3, True),
            (2, 4, True),
        ]
        # Asked for, so it is no restart in the sense of the metric.
        assert [seat.restarts.count for seat in crew.seats] == [0, 0]
        assert [entry["event"] for entry in logs] == ["worker.started", "worker.replaced"] * 2


async def test_who_has_no_successor_stays_and_the_others_too(starter: FakeStarter) -> None:
    async with opened(starter) as (crew, _):
        starter.refusals[1] = "the certificate has gone"
        before = dict(starter.living)
        assert await crew.renew(10.0) == "the certificate has gone"
        assert [seat.process for seat in crew.seats] == [1, 2]
        assert not any(worker.is_stopped for worker in before.values())
        starter.living[1] = before[1]
        assert await crew.renew(10.0) is None


async def test_who_does_not_go_is_ended(starter: FakeStarter) -> None:
    async with opened(starter) as (crew, owner):
        starter.living[1]._channel._take = lambda _: None
        with capture_logs() as logs:
            assert await crew.renew(0.05) is None
        assert [entry["worker"] for entry in logs if entry["event"] == "worker.killed"] == [1]
        async with asyncio.timeout(10):
            while len(owner.ends) < 2:
                await asyncio.sleep(0.001)


async def test_one_at_a_time(starter: FakeStarter) -> None:
    async with opened(starter) as (crew, _):
        first, second = await asyncio.gather(crew.renew(10.0), crew.renew(10.0))
        assert (first, second) == (None, "they are being restarted already")


async def test_one_that_dies_while_its_successor_starts_is_not_started_again(starter: FakeStarter) -> None:
    async with opened(starter) as (crew, _):
        starter.living[1].die()
        assert await crew.renew(10.0) is None
        assert all(seat.is_open for seat in crew.seats)
        started = len(starter.started)
        await asyncio.sleep(0.05)
        assert len(starter.started) == started


async def test_all_have_to_answer(starter: FakeStarter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.05)
    starter.refusals[2] = ""
    crew = Crew(Owner(), starter, 2)
    assert await crew.open() == "serve.workers: not all answer within 0.05 s"
    await crew.close(10.0)
    assert crew.processes == {}
