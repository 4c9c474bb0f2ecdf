from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import wire
from dnsproxy.core.cache import MAX_SPARED, Cache, CachePolicy, Entry
from dnsproxy.core.response import Response, scan_response
from tests.messages import query, reply_to

ASKED = query("www.example.")
SOA = "example. 900 IN SOA ns.example. host.example. 1 2 3 4 900"


def scanned(*records: str, rcode: int = 0, authority: tuple[str, ...] = ()) -> Response:
    return scan_response(reply_to(ASKED, records, rcode=rcode, authority=authority), 29)


def entry(size: int = 10, ttl: float = 60.0) -> Entry:
    response = Response(0, 29)
    response.sections = b"x" * size
    return Entry(response, 0.0, ttl)


def test_p18_fresh_until_the_ttl_is_over() -> None:
    cache = Cache(10)
    held = cache.keep(b"k", scanned("www.example. 60 IN A 192.0.2.1"), 100.0)
    assert cache.get(b"k", 159.9) is held
    assert cache.get(b"k", 160.0) is None
    assert cache.get(b"other", 100.0) is None


@pytest.mark.parametrize(
    ("response", "lifetime"),
    [
        (scanned("www.example. 7200 IN A 192.0.2.1"), 600),
        (scanned("www.example. 5 IN A 192.0.2.1"), 10),
        (scanned("www.example. 0 IN A 192.0.2.1"), 10),
        (scanned(rcode=3, authority=(SOA,)), 30),
        (scanned(authority=(SOA,)), 30),
        (scanned(rcode=3), None),
        (scanned("www.example. 60 IN A 192.0.2.1", rcode=9), None),
    ],
    ids=["max", "min", "zero", "NXDOMAIN", "NODATA", "no SOA", "other RCODE"],
)
def test_p18_lifetimes_within_the_policy(response: Response, lifetime: int | None) -> None:
    cache = Cache(10, CachePolicy(min_ttl=10, max_ttl=600, negative_ttl=30))
    cache.keep(b"k", response, 0.0)
    if lifetime is None:
        assert len(cache) == 0
    else:
        assert cache.get(b"k", lifetime - 0.1) is not None
        assert cache.get(b"k", lifetime) is None


def test_clients_see_the_ttl_that_they_get() -> None:
    cache = Cache(10, CachePolicy(min_ttl=10, max_ttl=600))
    for ttl, shown in ((7200, 600), (5, 10), (60, 60)):
        held = cache.keep(b"k", scanned(f"www.example. {ttl} IN A 192.0.2.1"), 0.0)
        (at,) = held.ttl_offsets
        assert int.from_bytes(held.sections[at : at + 4], "big") == shown


def test_zero_ttl_is_not_kept_without_a_minimum() -> None:
    cache = Cache(10)
    cache.keep(b"k", scanned("www.example. 0 IN A 192.0.2.1"), 0.0)
    assert len(cache) == 0


def test_only_ad_survives_of_the_flags() -> None:
    response = scanned("www.example. 60 IN A 192.0.2.1")
    response.flags |= wire.AD | wire.AA
    assert Cache(10).keep(b"k", response, 0.0).flags == wire.AD


def test_p20_a_flood_of_unique_names_spares_what_is_asked_again() -> None:
    cache = Cache(100)
    for number in range(10):
        cache.put(b"busy%d" % number, entry())
    for number in range(5000):
        cache.put(b"flood%d" % number, entry())
        for busy in range(10):
            assert cache.get(b"busy%d" % busy, 1.0) is not None
    assert len(cache) == 100


def test_p29_one_put_spares_a_bounded_number_of_entries() -> None:
    """All were used since the hand passed: the least used of the next goes."""
    cache = Cache(1000)
    for number in range(1000):
        cache.put(b"%d" % number, entry())
        for _ in range(2 if number != 7 else 1):
            cache.get(b"%d" % number, 1.0)
    cache.put(b"new", entry())
    assert cache.peek(b"7") is None
    left = [held for key in cache.keys() if (held := cache.peek(key)) is not None]  # noqa: SIM118 - not a dict
    assert sum(not held.hits for held in left) == MAX_SPARED - 1 + 1
    assert len(cache) == 1000


def test_p29_the_hand_passes_no_empty_cells() -> None:
    """Many small entries have made place for a few large ones."""
    cache = Cache(10_000, max_bytes=10_000 * 500)
    for number in range(10_000):
        cache.put(b"%d" % number, entry())
    for number in range(300):
        cache.put(b"large%d" % number, entry(60_000))
    assert len(cache._ring) == len(cache) < 1000
    assert all(cache.peek(key) is not None for key in cache._ring)


def test_p20_bounded_by_bytes() -> None:
    cache = Cache(1000, max_bytes=10_000)
    for number in range(100):
        cache.put(b"%d" % number, entry(2000))
    assert cache.bytes <= 10_000
    assert 0 < len(cache) < 5
    cache.put(b"giant", entry(20_000))
    assert cache.get(b"giant", 0.0) is None


def test_size_zero_turns_it_off() -> None:
    cache = Cache(0)
    cache.put(b"k", entry())
    assert len(cache) == 0


def test_put_again_replaces_and_counts_bytes_once() -> None:
    cache = Cache(10)
    cache.put(b"k", entry(10))
    first = cache.bytes
    cache.put(b"k", entry(30))
    assert (len(cache), cache.bytes) == (1, first + 20)


def test_remove_and_clear() -> None:
    cache = Cache(2)
    cache.put(b"a", entry())
    cache.put(b"b", entry())
    assert cache.remove(b"a")
    assert not cache.remove(b"a")
    cache.put(b"c", entry())
    assert set(cache.keys()) == {b"b", b"c"}
    assert cache.clear() == 2
    assert (len(cache), cache.bytes) == (0, 0)
    cache.put(b"d", entry())
    assert len(cache) == 1


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "get", "remove"]), st.integers(0, 30), st.integers(0, 3000)),
    max_size=200,
)


@given(OPERATIONS, st.integers(1, 8))
def test_p20_bounds_hold_whatever_happens(operations: list[tuple[str, int, int]], size: int) -> None:
    cache = Cache(size, max_bytes=6000)
    for verb, number, octets in operations:
        key = b"%d" % number
        if verb == "put":
            cache.put(key, entry(octets))
        elif verb == "get":
            cache.get(key, 1.0)
        else:
            cache.remove(key)
        assert len(cache) <= size
        assert 0 <= cache.bytes <= 6000
        assert sorted(cache._ring) == sorted(cache.keys())
        assert all((held := cache.peek(key)) and cache._ring[held.slot] == key for key in cache.keys())  # noqa: SIM118 - not a dict
    for key in list(cache.keys()):
        assert cache.remove(key)
    assert cache.bytes == 0


def test_one_cache_takes_over_another() -> None:
    before, after = Cache(10), Cache(3)
    for number in range(6):
        before.put(b"%d" % number, entry())
    before.get(b"5", 1.0)
    after.take_over(before)
    assert (len(before), before.bytes, len(after)) == (0, 0, 3)
    assert after.get(b"5", 1.0) is not None, "what is used is the last to go"
    alone = Cache(3)
    alone.put(b"0", entry())
    assert after.bytes == 3 * alone.bytes
    # Both go on by themselves.
    before.put(b"late", entry())
    after.put(b"new", entry())
    assert (after.get(b"late", 1.0), len(before), len(after)) == (None, 1, 3)


def test_a_cache_that_is_off_takes_nothing_over() -> None:
    before, after = Cache(10), Cache(0)
    before.put(b"k", entry())
    after.take_over(before)
    assert (len(after), after.bytes) == (0, 0)
