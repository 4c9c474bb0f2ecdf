from __future__ import annotations

import pytest

from dnsproxy.core.upstreams import FAILURE_RTT, FALL, PROBE_FIRST, PROBE_MOST, RISE, Secure, Upstream


def upstream(name: str = "one", *, rise: int = RISE, fall: int = FALL) -> Upstream:
    return Upstream(name, ("192.0.2.1", 53), rise=rise, fall=fall)


def fail(target: Upstream, now: float, times: int = FALL) -> None:
    for _ in range(times):
        target.record_failure("timeout", now)


def test_p22_down_after_failures_in_a_row() -> None:
    target = upstream()
    fail(target, 0.0, FALL - 1)
    target.record_response(0.01)
    seen = []
    for _ in range(FALL):
        fail(target, 1.0, 1)
        seen.append(target.usable)
    assert seen == [True] * (FALL - 1) + [False]
    assert target.stats.failures["timeout"] == 2 * FALL - 1
    assert repr(target) == "<Upstream one down>"


def test_p22_up_after_replies_in_a_row() -> None:
    target = upstream(rise=3)
    fail(target, 0.0)
    seen = []
    for works in (True, True, False, True, True, True):
        if works:
            target.record_response(0.01)
        else:
            fail(target, 1.0, 1)
        seen.append(target.stats.up)
    assert seen == [False] * 5 + [True]
    assert target.usable
    fail(target, 2.0, FALL - 1)
    assert target.usable


def test_p22_rise_and_fall_of_one() -> None:
    target = upstream(rise=1, fall=1)
    for _ in range(2):
        fail(target, 0.0, 1)
        assert not target.usable
        target.record_response(0.01)
        assert target.usable


def test_p22_probes_of_a_dead_one_back_off_to_a_limit() -> None:
    target = upstream()
    fail(target, 100.0)
    waits, now = [target.probe_at - 100.0], target.probe_at
    for _ in range(8):
        target.probed(now, 60.0)
        waits.append(target.probe_at - now)
        fail(target, target.probe_at, 1)
        now = target.probe_at
    assert waits[:4] == [PROBE_FIRST, 1.0, 2.0, 4.0]
    assert waits[-1] == PROBE_MOST


def test_p22_a_first_reply_has_it_probed_again_soon() -> None:
    target = upstream()
    fail(target, 0.0)
    for _ in range(6):
        target.probed(target.probe_at, 60.0)
    target.record_response(0.01)
    assert (target.usable, target.probe_at) == (False, 0.0)


def test_one_that_is_well_is_probed_at_the_interval() -> None:
    target = upstream()
    target.probed(10.0, 60.0)
    assert target.probe_at == 70.0


def test_p23_a_loop_takes_it_out_of_use_until_it_is_gone() -> None:
    target = upstream()
    target.record_loop(5.0, looped=True)
    assert (target.usable, target.stats.looped, target.stats.up) == (False, True, True)
    assert target.probe_at == 5.0 + PROBE_FIRST
    target.record_response(0.01)
    assert not target.usable
    target.record_loop(6.0, looped=False)
    assert (target.usable, target.stats.looped) == (True, False)


def test_p23_one_that_is_down_stays_down_when_its_loop_is_gone() -> None:
    target = upstream()
    target.record_loop(5.0, looped=True)
    fail(target, 5.0)
    target.record_loop(6.0, looped=False)
    assert not target.usable
    for _ in range(RISE):
        target.record_response(0.01)
    assert target.usable


def test_round_trip_time_decays_and_failures_weigh() -> None:
    target = upstream()
    target.record_response(0.1)
    assert target.stats.rtt == 0.1
    target.record_response(0.9)
    assert target.stats.rtt == pytest.approx(0.2)
    fail(target, 0.0, 1)
    assert target.stats.rtt == pytest.approx(0.3)
    silent = upstream()
    fail(silent, 0.0, 1)
    assert silent.stats.rtt == FAILURE_RTT


def test_secure_ones_are_asked_over_tcp() -> None:
    secure = Upstream("secure", ("192.0.2.1", 853), secure=Secure("dns.example"))
    assert (secure.tcp, upstream().tcp) == (True, False)


def test_what_makes_two_upstreams_one() -> None:
    one = Upstream("a", ("192.0.2.1", 53), rise=2)
    assert one.is_like(Upstream("a", ("192.0.2.1", 53), rise=2))
    for other in (
        Upstream("a", ("192.0.2.2", 53), rise=2),
        Upstream("a", ("192.0.2.1", 53), tcp=True, rise=2),
        Upstream("a", ("192.0.2.1", 53), rise=3),
        Upstream("a", ("192.0.2.1", 53), rise=2, fall=9),
        Upstream("a", ("192.0.2.1", 53), secure=Secure("dns.example"), rise=2),
    ):
        assert not one.is_like(other)
