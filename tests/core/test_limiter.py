from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.clients import Clients
from dnsproxy.core.limiter import DROP, MAX_BUCKETS, PASS, SLIPS, RateLimiter


def packed(address: str) -> bytes:
    return ip_address(address).packed


ONE, TWO = packed("192.0.2.1"), packed("192.0.2.2")


def test_p26_so_many_a_second_and_half_of_the_rest_is_told_to_use_tcp() -> None:
    limiter = RateLimiter(3)
    assert [limiter.verdict(ONE, 10.0) for _ in range(7)] == [PASS] * 3 + [DROP, SLIPS, DROP, SLIPS]
    assert limiter.verdict(TWO, 10.0) == PASS
    assert limiter.verdict(ONE, 10.4) == PASS
    assert limiter.verdict(ONE, 10.4) == DROP
    assert [limiter.verdict(ONE, 100.0) for _ in range(4)] == [PASS] * 3 + [SLIPS]


def test_p26_exempt_ranges_are_not_limited() -> None:
    limiter = RateLimiter(1, [ip_network("192.0.2.2/32")])
    assert {limiter.verdict(TWO, 0.0) for _ in range(50)} == {PASS}
    assert limiter.left(TWO, 0.0) is None
    assert [limiter.verdict(ONE, 0.0) for _ in range(2)] == [PASS, DROP]


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("0.0.0.1", "::1", False),
    ],
)
def test_p26_a_client_is_an_ipv4_address_or_an_ipv6_network(one: str, other: str, shared: bool) -> None:
    limiter = RateLimiter(1)
    assert limiter.verdict(packed(one), 0.0) == PASS
    assert limiter.verdict(packed(other), 0.0) == (DROP if shared else PASS)


def test_p26_prefixes_can_be_chosen() -> None:
    limiter = RateLimiter(1, clients=Clients(24, 128))
    assert [limiter.verdict(source, 0.0) for source in (ONE, TWO)] == [PASS, DROP]
    assert limiter.verdict(packed("192.0.3.1"), 0.0) == PASS
    assert [limiter.verdict(packed(a), 0.0) for a in ("fd00::1", "fd00::2", "fd00::2")] == [PASS, PASS, DROP]


def test_looking_spends_nothing() -> None:
    limiter = RateLimiter(2)
    assert [limiter.left(ONE, 0.0) for _ in range(3)] == [2.0] * 3
    assert len(limiter) == 0
    limiter.verdict(ONE, 0.0)
    assert limiter.left(ONE, 0.0) == 1.0
    assert limiter.left(ONE, 0.25) == 1.5
    assert limiter.left(ONE, 9.0) == 2.0


def test_p26_the_table_is_bounded_and_a_busy_client_stays_limited() -> None:
    limiter = RateLimiter(2)
    passed = 0
    for number in range(3 * MAX_BUCKETS):
        limiter.verdict(number.to_bytes(4, "big"), 0.0)
        passed += number % 1000 == 0 and limiter.verdict(packed("203.0.113.1"), 0.0) == PASS
    assert len(limiter) <= MAX_BUCKETS
    assert passed == 2


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 20))
def test_p26_never_more_than_the_rate_and_one_burst(waits: list[float], rate: int) -> None:
    limiter = RateLimiter(rate)
    now, passed = 0.0, 0
    for wait in waits:
        now += wait
        passed += limiter.verdict(ONE, now) == PASS
    assert passed <= rate + now * rate + 1e-6
