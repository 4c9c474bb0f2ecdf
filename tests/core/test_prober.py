from __future__ import annotations

import random

import pytest

from dnsproxy.core import names
from dnsproxy.core.attempt import Failure
from dnsproxy.core.chance import Chance
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.group import Group
from dnsproxy.core.prober import Prober
from dnsproxy.core.returns import AWAITED_FOR, KEY_SIZE, Returns
from dnsproxy.core.upstreams import FALL, Upstream
from tests.messages import read, reply_to, seeded

ROOT = b"\x00"


def upstream(name: str) -> Upstream:
    return Upstream(name, ("192.0.2.1", 53))


def prober(zones: dict[str, list[Upstream]], interval: float = 60.0) -> Prober:
    chance = seeded()
    groups = {names.to_key(zone): Group(tuple(held), "sequential", chance) for zone, held in zones.items()}
    return Prober(groups, interval, 0.8, chance)


def sent(exchange: Exchange, now: float) -> bytes:
    attempt = exchange.next_attempt(now)
    assert attempt is not None
    return b"\x12\x34" + attempt.payload


def answered(made: Prober, exchange: Exchange, now: float, *, rcode: int = 3) -> None:
    exchange.receive_reply(reply_to(sent(exchange, now), rcode=rcode), now)
    made.complete(exchange, now)


def silent(made: Prober, exchange: Exchange, now: float) -> None:
    sent(exchange, now)
    exchange.fail_attempt(Failure.TIMEOUT, now)
    assert exchange.next_attempt(now) is None
    made.complete(exchange, now)


def test_p22_each_upstream_is_probed_at_the_start_and_at_the_interval() -> None:
    one, two = upstream("one"), upstream("two")
    made = prober({".": [one, two], "corp.example": [one]})
    assert [probe.upstream for probe in made.due(5.0)] == [one, two]
    assert made.due(64.0) == []
    assert len(made.due(65.0)) == 2


def test_a_probe_asks_for_a_new_name_below_the_zone_and_once() -> None:
    one, two = upstream("one"), upstream("two")
    made = prober({".": [one], "corp.example": [two]})
    seen = set()
    for now in (0.0, 60.0):
        for probe, zone in zip(made.due(now), ("", "corp.example."), strict=True):
            (question,) = read(sent(probe, now)).question
            name = question.name.to_text()
            assert name.endswith(f".{zone}")
            assert len(name) == 34 + len(zone)
            assert probe.next_attempt(now) is None
            seen.add(name)
    assert len(seen) == 4


def test_without_an_interval_only_the_dead_are_probed() -> None:
    one, two = upstream("one"), upstream("two")
    made = prober({".": [one, two]}, float("inf"))
    assert made.due(1e9) == []
    for _ in range(FALL):
        two.record_failure("timeout", 10.0)
    assert made.due(10.5) == []
    assert [probe.upstream for probe in made.due(11.0)] == [two]


@pytest.mark.parametrize("rcode", [0, 1, 2, 3, 5])
def test_p22_any_reply_to_probes_brings_a_dead_one_back(rcode: int) -> None:
    one = upstream("one")
    made = prober({".": [one]}, float("inf"))
    for _ in range(FALL):
        one.record_failure("timeout", 0.0)
    assert made.news() == [("down", "one")]
    now, probes = 0.0, 0
    while not one.usable:
        now += 0.5
        for probe in made.due(now):
            probes += 1
            answered(made, probe, now, rcode=rcode)
    assert (probes, now) == (2, 1.5)
    assert made.news() == [("up", "one")]
    assert made.news() == []


def test_p22_silent_probes_back_off() -> None:
    one = upstream("one")
    made = prober({".": [one]})
    times = []
    for half in range(400):
        now = half / 2
        for probe in made.due(now):
            times.append(now)
            silent(made, probe, now)
    assert times == [0.0, 60.0, 120.0, 121.0, 122.0, 124.0, 128.0, 136.0, 152.0, 182.0]


def test_p23_a_probe_that_comes_back_takes_the_upstream_out() -> None:
    one = upstream("one")
    made = prober({".": [one]})
    (probe,) = made.due(0.0)
    sent(probe, 0.0)
    assert not made.came_back(names.to_key("www.example"), 0.1)
    assert made.came_back(probe.key, 0.1)
    assert (one.usable, one.stats.failures) == (False, {"loop": 1})
    assert made.news() == [("loop", "one")]


def test_p23_an_answer_that_comes_with_the_loop_does_not_clear_it() -> None:
    one = upstream("one")
    made = prober({".": [one]})
    (probe,) = made.due(0.0)
    asked = sent(probe, 0.0)
    assert made.came_back(probe.key, 0.1)
    probe.receive_reply(reply_to(asked, rcode=2), 0.2)
    made.complete(probe, 0.2)
    assert one.looped
    (again,) = made.due(1.5)
    silent(made, again, 1.5)
    assert one.looped
    (third,) = made.due(10.0)
    answered(made, third, 10.0)
    assert (one.looped, one.usable) == (False, True)
    assert made.news() == []


def test_p23_one_that_comes_back_late_still_counts_but_not_for_ever() -> None:
    one = upstream("one")
    made = prober({".": [one]})
    (probe,) = made.due(0.0)
    answered(made, probe, 0.0)
    assert made.came_back(probe.key, 10.0)
    assert not made.came_back(probe.key, float(AWAITED_FOR))


class Workers:
    """Two workers' probers for upstreams of the same names, ``one`` and ``two``."""

    def __init__(self) -> None:
        self.returns = Returns(bytes(KEY_SIZE), [0.0, 0.0])
        self.upstreams: list[list[Upstream]] = []
        self.probers = [self.start() for _ in range(2)]

    def start(self) -> Prober:
        held = [upstream("one"), upstream("two")]
        self.upstreams.append(held)
        chance = Chance(random.Random(len(self.upstreams)).randbytes)  # noqa: S311
        group = Group(tuple(held), "sequential", chance)
        return Prober({names.to_key("."): group}, 60.0, 0.8, chance, self.returns)

    def looped(self) -> list[list[bool]]:
        return [[one.looped for one in held] for held in self.upstreams]


def test_p23_a_probe_that_comes_back_to_another_worker_takes_the_upstream_out_of_both() -> None:
    made = Workers()
    first, second = made.probers
    probe, _ = first.due(5.0)
    assert second.came_back(probe.key, 5.1)
    assert made.looped() == [[False, False], [True, False]]
    first.due(6.0)
    assert made.looped() == [[True, False], [True, False]]
    assert (first.news(), second.news()) == ([("loop", "one")], [("loop", "one")])
    # Counted once, by the one that saw it.
    assert [held[0].stats.failures for held in made.upstreams] == [{}, {"loop": 1}]


def test_p23_a_loop_to_other_workers_is_not_taken_for_its_end() -> None:
    made = Workers()
    first, second = made.probers
    probe, _ = first.due(5.0)
    assert second.came_back(probe.key, 5.1)
    (again,) = [each for each in second.due(7.0) if each.upstream.name == "one"]
    asked = sent(again, 7.0)
    assert first.came_back(again.key, 7.1)
    again.receive_reply(reply_to(asked, rcode=2), 7.2)
    second.complete(again, 7.2)
    assert made.looped() == [[True, False], [True, False]]


def test_p23_each_worker_finds_the_end_of_a_loop() -> None:
    made = Workers()
    first, second = made.probers
    probe, _ = first.due(5.0)
    assert second.came_back(probe.key, 5.1)
    first.due(6.0)
    for worker, expected in ((first, [False, True]), (second, [False, False])):
        (again,) = [each for each in worker.due(10.0) if each.upstream.name == "one"]
        answered(worker, again, 10.0)
        assert [held[0].looped for held in made.upstreams] == expected


def test_p23_a_worker_that_is_started_again_does_not_believe_old_news() -> None:
    made = Workers()
    first, second = made.probers
    probe, _ = first.due(5.0)
    assert second.came_back(probe.key, 5.1)
    third = made.start()
    probes = third.due(500.0)
    assert made.looped()[2] == [False, False]
    # Its own probes tell how things are.
    assert first.came_back(probes[0].key, 500.1)
    third.due(501.0)
    assert made.looped()[2] == [True, False]


def test_a_zone_whose_name_leaves_no_room_is_probed_below_the_root() -> None:
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 40])
    made = prober({longest: [upstream("one")]})
    (probe,) = made.due(0.0)
    assert len(probe.key) == 35
