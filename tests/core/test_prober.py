from __future__ import annotations

import pytest

from dnsproxy.core import names
from dnsproxy.core.exchange import Exchange, Failure
from dnsproxy.core.group import Group
from dnsproxy.core.prober import AWAITED_FOR, Prober
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


def test_p23_one_that_comes_back_late_still_counts_and_names_are_forgotten() -> None:
    one = upstream("one")
    made = prober({".": [one]})
    (probe,) = made.due(0.0)
    answered(made, probe, 0.0)
    assert made.came_back(probe.key, 10.0)
    made.due(AWAITED_FOR)
    assert probe.key not in made.awaited
    assert not made.came_back(probe.key, AWAITED_FOR)


def test_a_zone_whose_name_leaves_no_room_is_probed_below_the_root() -> None:
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 40])
    made = prober({longest: [upstream("one")]})
    (probe,) = made.due(0.0)
    assert len(probe.key) == 35
