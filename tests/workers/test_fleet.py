"""The fleet with workers that are played, so that they do what real ones seldom do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from dnsproxy import supervise
from dnsproxy.core import names
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.explain import Question, explain
from dnsproxy.core.restarts import MAX_MISSED
from dnsproxy.core.stats import Stats
from dnsproxy.core.totals import Traffic
from dnsproxy.errors import StartError, WorkerError
from dnsproxy.net.doors import Doorkeeper
from dnsproxy.workers import crew
from dnsproxy.workers import fleet as module
from dnsproxy.workers.fleet import Fleet
from dnsproxy.workers.messages import Content, Explain, Flush, Request, TellTraffic
from tests.fakes.starter import FakeStarter
from tests.messages import engine
from tests.strategies import learned, served_table, snapshot
from tests.test_server import free_port, settings

NAME = "abc-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
QUESTION = Question(names.to_key("www.example"), 1)


def counted(count: int) -> Traffic:
    stats = Stats()
    stats.requests["udp", "A"] = count
    return Traffic(stats, {}, cache_entries=count, in_flight=0)


def answer(request: Request) -> Content | None:
    if isinstance(request, Flush):
        return 2
    if isinstance(request, Explain):
        return explain(engine(), request.question, 1.0)
    return counted(5)


def table(serial: int) -> ServedTable:
    return served_table(snapshot(learned(NAME), serial=serial))


@pytest.fixture
def starter() -> Iterator[FakeStarter]:
    made = FakeStarter(answer)
    yield made
    made.close()


def fleet(starter: FakeStarter, count: int = 2, **options: Any) -> Fleet:
    return Fleet(starter, settings("127.0.0.1:9"), count, Doorkeeper(shares=count), **options)


@contextlib.asynccontextmanager
async def running(starter: FakeStarter, count: int = 2, beat: float = 60.0) -> AsyncIterator[Fleet]:
    made = fleet(starter, count, beat_seconds=beat)
    made.swap_table(table(1))
    await made.open()
    looking_after = asyncio.ensure_future(made.run())
    try:
        yield made
    finally:
        looking_after.cancel()
        await asyncio.gather(looking_after, return_exceptions=True)
        await made.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def well(made: Fleet) -> list[bool]:
    return [worker.answers for worker in made.traffic().workers]


async def test_all_answer_before_it_is_open_and_each_from_the_table(starter: FakeStarter) -> None:
    async with running(starter, 3) as made:
        assert starter.started == [1, 2, 3]
        for worker in starter.living.values():
            assert worker.serials == [1]
        assert well(made) == [True, True, True]
        stopped = list(starter.living.values())
    assert [worker.is_stopped for worker in stopped] == [True] * 3
    assert starter.living == {}


async def test_a_change_goes_to_all_and_to_who_starts_later(starter: FakeStarter) -> None:
    async with running(starter) as made:
        made.swap_table(table(2))
        await until(lambda: all(worker.serials == [1, 2] for worker in starter.living.values()))
        starter.living[1].die()
        await until(lambda: starter.started == [1, 2, 1] and well(made) == [True, True])
        assert starter.living[1].serials == [2]


async def test_only_names_that_changed_are_sent(starter: FakeStarter) -> None:
    async with running(starter, 1) as made:
        sent = starter.living[1].slices
        both = served_table(snapshot(learned(NAME)), snapshot(learned("b.example.")))
        made.update(both, ["b.example."])
        await until(lambda: len(sent) == 2)
        assert [entry.name for entry in sent[1].entries] == ["b.example."]
        made.swap_table(served_table(snapshot(learned(NAME))))
        await until(lambda: len(sent) == 3)
        assert [(entry.name, entry.is_managed) for entry in sent[2].entries] == [("b.example.", False)]


async def test_settings_that_are_too_large_are_refused(
    starter: FakeStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(starter) as made:
        monkeypatch.setattr(module, "MAX_SETTINGS", 10)
        with pytest.raises(StartError, match="too large for workers"):
            await made.prepare(settings("127.0.0.1:9"))
        assert well(made) == [True, True]


# -- starts that fail ------------------------------------------------------------------------


async def test_a_worker_that_cannot_open_is_why_nothing_starts(starter: FakeStarter) -> None:
    starter.refusals[2] = "cannot listen on udp 127.0.0.1 port 53: Address already in use"
    made = fleet(starter)
    with pytest.raises(
        StartError, match=r"^cannot listen on udp 127\.0\.0\.1 port 53: Address already in use$"
    ):
        await made.open()
    assert starter.living == {}
    assert starter.started == [1, 2]


async def test_a_worker_that_ends_at_its_start_is_named(starter: FakeStarter) -> None:
    starter.refusals[1] = ""
    made = fleet(starter)
    opening = asyncio.ensure_future(made.open())
    await until(lambda: 1 in starter.living and bool(starter.living[1].slices))
    starter.living[1].die()
    with pytest.raises(StartError, match="serve.workers: worker 1 ended: exit code 1"):
        await opening


async def test_a_worker_that_says_nothing_is_not_waited_for_forever(
    starter: FakeStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "START_SECONDS", 0.05)
    starter.refusals[1] = ""
    with pytest.raises(StartError, match=r"serve.workers: not all answer within 0\.05 s"):
        await fleet(starter).open()
    assert starter.living == {}


async def test_a_port_that_somebody_shares_with_us_is_in_use(starter: FakeStarter) -> None:
    """The kernel would let workers join a program of the same user that has SO_REUSEPORT as well."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        with pytest.raises(StartError, match=f"udp 127.0.0.1 port {port}: Address already in use"):
            await Fleet(starter, settings("127.0.0.1:9", port), 2, Doorkeeper(shares=2)).open()
    assert starter.started == []


async def test_a_nursery_that_has_gone_before_the_start(starter: FakeStarter) -> None:
    starter.has_gone = True
    with pytest.raises(StartError, match="gone"):
        await fleet(starter).open()


# -- ends ----------------------------------------------------------------------------------------


async def test_at_once_the_first_time_and_later_the_second(starter: FakeStarter) -> None:
    with capture_logs() as logs:
        async with running(starter) as made:
            starter.living[1].die()
            await until(lambda: starter.started == [1, 2, 1] and well(made) == [True, True])
            starter.living[1].die()
            await until(lambda: 1 not in starter.living)
            await until(lambda: well(made) == [False, True])
            assert starter.started == [1, 2, 1]
            first, second = made.traffic().workers
            assert (first.pid, first.started_at, first.restarts, second.restarts) == (None, None, 2, 0)
    ends = [entry for entry in logs if entry["event"] == "worker.ended"]
    assert [(entry["worker"], entry["how"], entry["restart_in"]) for entry in ends] == [
        (1, "exit code 1", 0.0),
        (1, "exit code 1", 1.0),
    ]
    # The one that waits for its time is not started by a program that ends.
    assert starter.started == [1, 2, 1]


async def test_a_worker_that_cannot_open_again_is_tried_again(
    starter: FakeStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dnsproxy.core.restarts.DELAY_FIRST", 0.001)
    with capture_logs() as logs:
        async with running(starter) as made:
            starter.refusals[2] = "cannot listen"
            starter.living[2].die()
            await until(lambda: starter.started == [1, 2, 2, 2] and well(made) == [True, True])
    assert [entry["how"] for entry in logs if entry["event"] == "worker.ended"] == [
        "exit code 1",
        "cannot listen",
    ]


async def test_counters_do_not_go_back_when_a_worker_ends(starter: FakeStarter) -> None:
    async with running(starter) as made:
        await made.gather()
        assert made.traffic().queries == 10
        starter.answer = lambda _: counted(1)
        starter.living[1].die()
        await until(lambda: len(starter.started) == 3 and well(made) == [True, True])
        assert (made.traffic().queries, made.traffic().cache_entries) == (10, 5)
        await made.gather()
        assert made.traffic().queries == 11
        assert [worker.queries for worker in made.traffic().workers] == [1, 5]


async def test_a_stuck_worker_is_replaced_and_holds_nobody_up(starter: FakeStarter) -> None:
    with capture_logs() as logs:
        async with running(starter, beat=0.002) as made:
            starter.living[1].answer = lambda _: None
            await until(lambda: not well(made)[0])
            started = asyncio.get_running_loop().time()
            await made.gather()
            assert await made.flush(None) == 2
            found = await made.explain(QUESTION)
            assert asyncio.get_running_loop().time() - started < module.ANSWER_SECONDS
            assert found.worker == 2
            await until(lambda: starter.started == [1, 2, 1] and well(made) == [True, True])
            assert 2 not in starter.killed
    assert [entry["worker"] for entry in logs if entry["event"] == "worker.stuck"] == [1]
    assert [entry["answered"] for entry in logs if entry["event"] == "workers.not_all_flushed"] == [1]


async def test_a_worker_that_never_opens_again_is_replaced(starter: FakeStarter) -> None:
    async with running(starter, beat=0.002) as made:
        starter.refusals[2] = ""
        starter.living[2].die()
        await until(lambda: starter.started == [1, 2, 2])
        # Killed after so many beats; the third start waits for its time.
        await until(lambda: starter.killed.count(2) == 2)
        await until(lambda: made.traffic().workers[1].restarts == 2)


async def test_a_slow_beat_alone_kills_nobody(starter: FakeStarter) -> None:
    late: list[Request] = []

    def slow(request: Request) -> Content | None:
        late.append(request)
        return None if len(late) % (MAX_MISSED - 2) else counted(1)

    async with running(starter, beat=0.001) as made:
        starter.living[1].answer = slow
        await until(lambda: len(starter.living[2].asked) > 3 * MAX_MISSED)
        # A question that is not answered is not asked again: the next beat only looks.
        assert len(late) < len(starter.living[2].asked)
        assert made.traffic().workers[1].restarts == 0


async def test_without_the_nursery_it_ends(starter: FakeStarter) -> None:
    made = fleet(starter, beat_seconds=0.001)
    await made.open()
    starter.go()
    with pytest.raises(WorkerError, match="gone"):
        await asyncio.wait_for(made.run(), 10)
    assert well(made) == [False, False]
    started = asyncio.get_running_loop().time()
    await made.close()
    assert asyncio.get_running_loop().time() - started < crew.STOP_SECONDS


async def test_who_does_not_stop_is_killed(starter: FakeStarter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnsproxy.workers.fleet.STOP_SECONDS", 0.05)
    monkeypatch.setattr(crew, "STOP_SECONDS", 0.05)
    with capture_logs() as logs:
        async with running(starter):
            worker = starter.living[2]
            monkeypatch.setattr(worker, "_take", lambda _: None)
            worker._channel._take = lambda _: None
    assert starter.living == {}
    assert [(entry["event"], entry["worker"]) for entry in logs if entry["log_level"] == "warning"] == [
        ("worker.killed", 2)
    ]


# -- questions ---------------------------------------------------------------------------------


async def test_flush_goes_to_all_and_explain_to_one(starter: FakeStarter) -> None:
    async with running(starter) as made:
        assert await made.flush(names.to_key("www.example")) == 4
        found = await made.explain(QUESTION)
        assert (found.worker, found.outcome) == (1, "forward")
        asked = [worker.asked for _, worker in sorted(starter.living.items())]
        assert asked == [[Flush(QUESTION.key), Explain(QUESTION)], [Flush(QUESTION.key)]]


async def test_explain_asks_the_next_when_the_first_does_not_answer(
    starter: FakeStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.02)
    async with running(starter) as made:
        starter.living[1].answer = lambda _: None
        assert (await made.explain(QUESTION)).worker == 2
        starter.living[2].answer = lambda _: None
        with pytest.raises(WorkerError, match="no worker answers"):
            await made.explain(QUESTION)


async def test_a_worker_that_ends_while_it_is_asked(starter: FakeStarter) -> None:
    async with running(starter) as made:
        starter.living[1].answer = lambda _: None
        asking = asyncio.ensure_future(made.flush(None))
        await until(lambda: bool(starter.living[1].asked))
        starter.living[1].die()
        assert await asking == 2


async def test_a_scrape_waits_for_nobody_long(starter: FakeStarter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.02)
    async with running(starter) as made:
        starter.living[1].answer = lambda _: None
        await made.gather()
        assert made.traffic().queries == 5
        assert starter.living[2].asked == [TellTraffic()]


async def test_looking_after_the_workers_goes_on_after_a_failure(
    starter: FakeStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor free, for one: that must not end the proxy while its workers answer."""
    monkeypatch.setattr(supervise, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(supervise, "LONGEST_SECONDS", 0.01)
    failures = 2
    again = asyncio.Event()
    really = Fleet._deal

    async def deal(made: Fleet) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(24, "Too many open files")
        again.set()
        await really(made)

    monkeypatch.setattr(Fleet, "_deal", deal)
    with capture_logs() as logs:
        async with running(starter, beat=0.001) as made:
            async with asyncio.timeout(10):
                await again.wait()
            assert well(made) == [True, True]
            assert starter.started == [1, 2]
    failed = [entry["task"] for entry in logs if entry["event"] == "task.failed"]
    assert failed == ["workers"] * 2


async def test_a_worker_that_cannot_be_started_for_want_of_descriptors_is_started_later(
    starter: FakeStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "RETRY_SECONDS", 0.001)
    really = starter.start_worker
    failures = 2

    def start_worker(process: int, number: int) -> socket.socket:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(24, "Too many open files")
        return really(process, number)

    async with running(starter) as made:
        monkeypatch.setattr(starter, "start_worker", start_worker)
        starter.living[1].die()
        await until(lambda: starter.started == [1, 2, 1] and well(made) == [True, True])
    assert failures == 0


async def test_a_worker_that_gets_no_sockets_is_ended_and_another_one_started(
    starter: FakeStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Fleet._sockets
    failures = 1

    def sockets(made: Fleet, shares: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(24, "Too many open files")
        return really(made, shares)

    async with running(starter) as made:
        monkeypatch.setattr(Fleet, "_sockets", sockets)
        starter.living[1].die()
        await until(lambda: starter.started == [1, 2, 1, 1] and well(made) == [True, True])
        # The one that has died, to make sure, and the one without sockets.
        assert starter.killed == [1, 1]


async def test_a_start_without_descriptors_fails_with_its_reason(
    starter: FakeStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_worker(_process: int, _number: int) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(starter, "start_worker", start_worker)
    with pytest.raises(StartError, match=r"serve\.workers: worker 1: Too many open files"):
        await fleet(starter).open()
