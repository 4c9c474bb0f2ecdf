from __future__ import annotations

import pytest

from dnsproxy.core.upstreams import FAILURES_TO_DOWN, RETRY_MOST, Secure, Upstream, order


def upstream(name: str = "one") -> Upstream:
    return Upstream(name, ("192.0.2.1", 53))


def fail(target: Upstream, now: float, times: int = FAILURES_TO_DOWN) -> None:
    for _ in range(times):
        target.record_failure("timeout", now)


def test_p22_down_after_failures_in_a_row_and_up_with_one_response() -> None:
    target = upstream()
    fail(target, 0.0, FAILURES_TO_DOWN - 1)
    target.record_response(0.01)
    seen = []
    for _ in range(FAILURES_TO_DOWN):
        fail(target, 1.0, 1)
        seen.append(target.stats.up)
    assert seen == [True] * (FAILURES_TO_DOWN - 1) + [False]
    assert target.stats.failures["timeout"] == 2 * FAILURES_TO_DOWN - 1
    assert repr(target) == "<Upstream one down>"
    target.record_response(0.02)
    assert target.stats.up


def test_p22_a_dead_one_goes_last_and_costs_one_query_per_back_off() -> None:
    dead, good = upstream("dead"), upstream("good")
    group = (dead, good)
    assert order(group, 0.0) == group
    fail(dead, 0.0)
    assert order(group, 0.5) == (good, dead)
    assert order(group, 1.0) == (dead, good)
    assert order(group, 1.0) == (good, dead)


def test_p22_back_off_doubles_to_a_limit() -> None:
    dead = upstream()
    fail(dead, 0.0)
    now, waits = 0.0, []
    for _ in range(9):
        step = now
        while not dead.may_lead(step):
            step += 0.25
        waits.append(step - now)
        fail(dead, step, 1)
        now = step
    assert waits == sorted(waits)
    assert waits[0] == 1.0
    assert waits[-1] == RETRY_MOST


def test_p22_all_dead_are_all_still_tried() -> None:
    group = (upstream("a"), upstream("b"))
    for target in group:
        fail(target, 0.0)
    assert set(order(group, 0.1)) == set(group)


def test_round_trip_time_decays() -> None:
    target = upstream()
    target.record_response(0.1)
    assert target.stats.rtt == 0.1
    target.record_response(0.9)
    assert target.stats.rtt == pytest.approx(0.2)


def test_what_is_asked_over_tls_is_never_asked_over_udp() -> None:
    assert Upstream("dot", ("192.0.2.1", 853), secure=Secure("dns.example")).tcp
    assert Upstream("doh", ("dns.example", 443), secure=Secure("dns.example", "/dns-query")).tcp
    assert not upstream().tcp
