from __future__ import annotations

import pytest

from dnsproxy.core import prepared
from dnsproxy.core.prepared import Prepared, PreparedTable
from dnsproxy.core.stats import CACHE, LEARNED, Stats, request_number, response_number
from dnsproxy.core.wire import scan_query
from tests.messages import query

ASKED = query("www.example.")
REQUEST = request_number(1, tcp=False)
RESPONSE = response_number(0, LEARNED)
FOREVER = float("inf")


def made(*tails: bytes, until: float = FOREVER, response: int = RESPONSE) -> Prepared:
    return Prepared(list(tails), REQUEST, response, until)


def test_responses_are_given_in_turn() -> None:
    held = made(b"one", b"two")
    assert [held.take(1.0) for _ in range(3)] == [b"one", b"two", b"one"]


def test_nothing_is_given_from_the_end_of_its_time_on() -> None:
    held = made(b"one", until=5.0)
    assert held.take(4.9) == b"one"
    assert held.take(5.0) is None
    assert held.hits == 1


def test_ttls_go_down_each_second_from_when_they_were_right() -> None:
    tail = b"x" + (60).to_bytes(4) + b"y" + (2).to_bytes(4)
    held = Prepared([tail], REQUEST, RESPONSE, 60.5, made=0.5, ttl_offsets=(1, 6))

    def ttls(now: float) -> tuple[int, int]:
        given = held.take(now)
        assert given is not None
        assert (given[:1], given[5:6]) == (b"x", b"y")
        return int.from_bytes(given[1:5]), int.from_bytes(given[6:10])

    # Also after a pause, and never below 0.
    assert [ttls(now) for now in (0.6, 1.4, 1.5, 1.6, 31.5, 60.4)] == [
        *((60, 2), (60, 2), (59, 1), (59, 1)),
        *((29, 0), (1, 0)),
    ]
    assert held.take(60.5) is None


def test_hits_are_counted_once() -> None:
    stats = Stats()
    table = PreparedTable(stats)
    table.keep(scan_query(ASKED), made(b"one", response=response_number(3, CACHE)))
    for _ in range(5):
        table.entries[ASKED[2:]].take(1.0)
    for _ in range(2):
        table.settle()
        stats.settle()
        assert stats.requests == {("udp", "A"): 5}
        assert stats.responses == {("NXDOMAIN", "cache"): 5}
        assert stats.cache_hits == 5


@pytest.mark.parametrize("forget", ["clear", "replace"])
def test_hits_are_counted_when_a_response_goes(forget: str) -> None:
    stats = Stats()
    table = PreparedTable(stats)
    table.keep(scan_query(ASKED), made(b"one"))
    table.entries[ASKED[2:]].take(1.0)
    if forget == "clear":
        table.clear()
        assert len(table) == 0
    else:
        table.keep(scan_query(ASKED), made(b"two"))
        assert table.entries[ASKED[2:]].take(1.0) == b"two"
    stats.settle()
    assert stats.requests == {("udp", "A"): 1}


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "MAX_PREPARED", 3)
    table = PreparedTable(Stats())
    for number in range(10):
        table.keep(scan_query(query(f"n{number}.example.")), made(b"one"))
        assert len(table) <= 3
    assert list(table.entries) == [query(f"n{number}.example.")[2:] for number in (7, 8, 9)]


def test_p20_it_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "MAX_BYTES", 10_000)
    table = PreparedTable(Stats())
    for number in range(30):
        table.keep(scan_query(query(f"n{number}.example.")), made(b"one"))
    assert list(table.entries)[-1] == query("n29.example.")[2:]
    small = len(table)
    assert table.size <= 10_000 < table.size * (small + 1) / small
    for number in range(30):
        table.keep(scan_query(query(f"n{number}.example.")), made(*[bytes(500)] * 4))
        assert table.size <= 10_000
    assert 0 < len(table) < small / 4
    table.keep(scan_query(ASKED), made(bytes(20_000)))
    assert (len(table), table.size) == (0, 0)


def test_p29_a_full_table_gives_up_one_response_and_counts_its_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    """To count those of 20,000 at once would cost one query 4 ms."""
    monkeypatch.setattr(prepared, "MAX_PREPARED", 2)
    stats = Stats()
    table = PreparedTable(stats)
    for number in range(3):
        asked = query(f"n{number}.example.")
        table.keep(scan_query(asked), made(b"one"))
        table.entries[asked[2:]].take(1.0)
        table.keep(scan_query(asked), made(b"again"))
    stats.settle()
    assert (len(table), stats.requests) == (2, {("udp", "A"): 3})
    table.clear()
    table.keep(scan_query(ASKED), made(b"one"))
    assert len(table) == 1


def test_queries_over_tcp_take_what_was_prepared_and_are_counted_as_such() -> None:
    stats = Stats()
    table = PreparedTable(stats)
    held = made(b"\x81one", b"\x81two", response=response_number(0, CACHE), until=5.0)
    table.keep(scan_query(ASKED), held)
    given = [held.take(1.0), held.take_for_stream(1.0), held.take_for_stream(1.0), held.take(1.0)]
    assert given == [b"\x81one", b"\x81two", b"\x81one", b"\x81two"]
    assert held.take_for_stream(5.0) is None
    for _ in range(2):
        table.settle()
        stats.settle()
        assert stats.requests == {("udp", "A"): 2, ("tcp", "A"): 2}
        assert stats.responses == {("NOERROR", "cache"): 4}
        assert stats.cache_hits == 4


def test_what_was_cut_for_a_datagram_is_not_for_a_stream() -> None:
    held = made(b"\x83cut")
    assert held.take_for_stream(1.0) is None
    assert held.streamed == 0
    assert held.take(1.0) == b"\x83cut"
