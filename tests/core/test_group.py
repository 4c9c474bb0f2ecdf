from __future__ import annotations

from collections import Counter

import pytest

from dnsproxy.core.group import EXPLORE_EVERY, FASTEST, RACE, RANDOM, SEQUENTIAL, Group, by_health
from dnsproxy.core.upstreams import FALL, Upstream
from tests.messages import seeded

POLICIES = [SEQUENTIAL, FASTEST, RANDOM, RACE]


def made(names: str, policy: str) -> tuple[Group, list[Upstream]]:
    members = [Upstream(name, ("192.0.2.1", 53)) for name in names]
    return Group(tuple(members), policy, seeded()), members


def order(group: Group) -> str:
    return "".join(upstream.name for upstream in group.order())


def fall(upstream: Upstream) -> None:
    for _ in range(FALL):
        upstream.record_failure("timeout", 0.0)


@pytest.mark.parametrize("policy", POLICIES)
def test_one_upstream_needs_no_policy(policy: str) -> None:
    group, _ = made("a", policy)
    assert {order(group) for _ in range(200)} == {"a"}
    assert not group.races


@pytest.mark.parametrize("policy", POLICIES)
def test_every_order_has_every_upstream_once(policy: str) -> None:
    group, members = made("abcd", policy)
    for step in range(400):
        members[step % 4].record_response(step / 1000)
        assert sorted(order(group)) == ["a", "b", "c", "d"]


def test_sequential_is_the_configured_order() -> None:
    group, members = made("abc", SEQUENTIAL)
    members[0].record_response(5.0)
    assert {order(group) for _ in range(100)} == {"abc"}


def test_random_starts_anywhere() -> None:
    group, _ = made("abc", RANDOM)
    first = Counter(order(group)[0] for _ in range(3000))
    assert all(800 < first[name] < 1200 for name in "abc")


@pytest.mark.parametrize("policy", [FASTEST, RACE])
def test_the_fastest_leads_and_a_few_queries_explore(policy: str) -> None:
    group, members = made("abc", policy)
    for upstream, rtt in zip(members, (0.030, 0.010, 0.020), strict=True):
        upstream.record_response(rtt)
    first = Counter(order(group)[0] for _ in range(100 * EXPLORE_EVERY))
    assert first["b"] == 99 * EXPLORE_EVERY + (EXPLORE_EVERY - 100)
    assert first["a"] + first["c"] == 100
    assert min(first["a"], first["c"]) > 25


def test_one_never_asked_is_asked_first() -> None:
    group, members = made("ab", FASTEST)
    members[0].record_response(0.001)
    assert [order(group) for _ in range(3)][1:] == ["ba", "ba"]


def test_fastest_follows_the_times() -> None:
    group, members = made("ab", FASTEST)
    for upstream, rtt in zip(members, (0.010, 0.020), strict=True):
        upstream.record_response(rtt)
    order(group)
    assert order(group) == "ab"
    for _ in range(30):
        members[0].record_response(0.200)
    assert "ba" in {order(group) for _ in range(EXPLORE_EVERY + 1)}
    order(group)
    assert order(group) == "ba"


def test_fastest_leaves_one_that_fails_at_once() -> None:
    group, members = made("ab", FASTEST)
    for upstream, rtt in zip(members, (0.010, 0.020), strict=True):
        upstream.record_response(rtt)
    order(group)
    assert order(group) == "ab"
    members[0].record_failure("timeout", 0.0)
    order(group)
    assert order(group) == "ba"


@pytest.mark.parametrize("policy", POLICIES)
def test_p22_a_dead_one_goes_last_and_is_still_tried(policy: str) -> None:
    group, members = made("abc", policy)
    fall(members[0])
    for _ in range(200):
        given = order(group)
        assert (given[-1], len(given)) == ("a", 3)


@pytest.mark.parametrize("policy", POLICIES)
def test_p22_all_dead_are_all_tried_the_one_with_a_reply_first(policy: str) -> None:
    group, members = made("abc", policy)
    for upstream in members:
        fall(upstream)
    members[0].record_failure("timeout", 0.0)
    assert sorted(order(group)) == ["a", "b", "c"]
    assert order(group)[-1] == "a"


@pytest.mark.parametrize("policy", POLICIES)
def test_p23_a_loop_leaves_it_out(policy: str) -> None:
    group, members = made("ab", policy)
    members[0].record_loop(0.0, looped=True)
    assert {order(group) for _ in range(100)} == {"b"}
    members[1].record_loop(0.0, looped=True)
    assert order(group) == ""


@pytest.mark.parametrize("policy", POLICIES)
def test_the_expected_order_changes_nothing(policy: str) -> None:
    group, members = made("abc", policy)
    for upstream, rtt in zip(members, (0.030, 0.010, 0.020), strict=True):
        upstream.record_response(rtt)
    same, _ = made("abc", policy)
    for upstream, other in zip(same.members, members, strict=True):
        upstream.record_response(other.stats.rtt or 0.0)
    given = []
    for _ in range(120):
        expected = "".join(upstream.name for upstream in group.expected_order())
        assert expected == ("bca" if policy in {FASTEST, RACE} else "abc")
        given.append(order(group))
    assert given == [order(same) for _ in range(120)]
    fall(members[1])
    assert "".join(upstream.name for upstream in group.expected_order())[-1] == "b"


def test_by_health() -> None:
    _, members = made("abc", SEQUENTIAL)
    fall(members[0])
    members[1].record_loop(0.0, looped=True)
    assert [upstream.name for upstream in by_health(tuple(members))] == ["c", "a"]
