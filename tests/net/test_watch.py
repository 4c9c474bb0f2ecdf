from __future__ import annotations

import random
import threading
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from dnsproxy.core.chance import Chance
from dnsproxy.core.seen import Seen
from dnsproxy.core.stats import LEARNED, SOURCES, Stats
from dnsproxy.errors import DropReason
from dnsproxy.net import watch as watch_module
from dnsproxy.net.watch import QueuedWriter, Sampler, Watch
from tests.fakes.writers import Kept
from tests.messages import CLIENT, query, seeded


@pytest.mark.parametrize("every", [1, 2, 10, 1000])
def test_one_in_so_many_is_picked(every: int) -> None:
    sampler = Sampler(every, seeded())
    count = 2000 * every
    picked = sum(sampler.picks() for _ in range(count))
    # Distances are even from 1 to 2 * every - 1: the mean of 2000 of them is within a tenth.
    assert abs(picked - 2000) <= (0 if every == 1 else 200)


def test_queries_that_come_in_turn_are_all_picked_at_times() -> None:
    sampler = Sampler(2, Chance(random.Random(3).randbytes))  # noqa: S311 - nothing is protected by them
    picked = {number % 2 for number in range(1000) if sampler.picks()}
    assert picked == {0, 1}


def test_who_does_not_want_a_query_is_not_told() -> None:
    one, other = Kept([True, False, False]), Kept([False, False, True])
    watch = Watch([one, other])
    for number in range(3):
        seen = watch.begin("udp", CLIENT, 5353, query("a.example.", ident=number), 1.0, 1000.0)
        assert (seen is None) == (number == 1)
        if seen is not None:
            watch.end(seen, b"response", LEARNED, 1.5)
    assert [seen.query[1] for seen in one.seen] == [0]
    assert [seen.query[1] for seen in other.seen] == [2]


def test_a_query_that_is_answered_and_one_that_is_dropped() -> None:
    kept = Kept()
    watch = Watch([kept])
    for drops in (False, True):
        seen = watch.begin("tcp", CLIENT, 7, b"query", 1.0, 1000.0)
        assert seen is not None
        if drops:
            watch.drop(seen, DropReason.OVERLOADED, 1.0)
        else:
            watch.end(seen, b"response", LEARNED, 1.25)
    first, second = kept.seen
    assert (first.response, SOURCES[first.source], first.duration, first.wall) == (
        b"response",
        "learned",
        0.25,
        1000.0,
    )
    assert (second.response, second.reason) == (b"", "overloaded")


class Memory:
    def __init__(self) -> None:
        self.records: list[bytes] = []

    def open(self) -> None:
        pass

    def write(self, batch: list[bytes]) -> int:
        self.records += batch
        return 1

    def close(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True


async def test_records_are_written_and_counted() -> None:
    def make(seen: Seen) -> Sequence[bytes]:
        return seen.query, seen.response

    outlet, stats = Memory(), Stats()
    writer = QueuedWriter("dnstap", Sampler(1, seeded()), make, outlet)
    watch = Watch([writer])
    watch.open(stats)
    seen = watch.begin("udp", CLIENT, 1, b"query", 1.0, 1000.0)
    assert seen is not None
    watch.end(seen, b"response", LEARNED, 1.0)
    await watch.close()
    assert outlet.records == [b"query", b"response"]
    assert (stats.records, stats.records_lost) == ({"dnstap": 1}, {"dnstap": 1})


async def test_a_watch_that_was_never_opened_is_closed_and_tells_nobody() -> None:
    writer = QueuedWriter("queries", Sampler(1, seeded()), lambda _: (b"x",), Memory())
    watch = Watch([writer])
    seen = watch.begin("udp", CLIENT, 1, b"query", 1.0, 1000.0)
    assert seen is not None
    watch.end(seen, b"", LEARNED, 1.0)
    await watch.close()


async def test_a_sink_that_is_stuck_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "CLOSE_SECONDS", 0.01)
    gate = threading.Event()

    class Stuck(Memory):
        def write(self, batch: list[bytes]) -> int:
            gate.wait(60)
            super().write(batch)
            return 0

    stats = Stats()
    watch = Watch([QueuedWriter("queries", Sampler(1, seeded()), lambda _: (b"x",), Stuck())])
    watch.open(stats)
    for _ in range(3):
        seen = watch.begin("udp", CLIENT, 1, b"query", 1.0, 1000.0)
        assert seen is not None
        watch.end(seen, b"", LEARNED, 1.0)
    await watch.close()
    gate.set()
    assert stats.records_lost["queries"] == 3


async def test_records_that_were_lost_are_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    class Slow(Memory):
        def write(self, batch: list[bytes]) -> int:
            gate.wait(60)
            super().write(batch)
            return 0

    monkeypatch.setattr(watch_module, "DELAY_SECONDS", 0.0)
    stats = Stats()
    watch = Watch([QueuedWriter("queries", Sampler(1, seeded()), lambda _: (bytes(1 << 20),), Slow())])
    watch.open(stats)
    with capture_logs() as logs:
        for _ in range(9):
            seen = watch.begin("udp", CLIENT, 1, b"query", 1.0, 1000.0)
            assert seen is not None
            watch.end(seen, b"", LEARNED, 1.0)
        gate.set()
        await watch.close()
    (report,) = logs
    assert (report["event"], report["log"]) == ("log.records_lost", "queries")
    assert report["count"] == stats.records_lost["queries"] == 9 - stats.records["queries"]
