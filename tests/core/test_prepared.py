from __future__ import annotations

import pytest

from dnsproxy.core import prepared
from dnsproxy.core.prepared import PreparedTable
from dnsproxy.core.stats import CACHE, LEARNED, Stats, request_number, response_number
from dnsproxy.core.wire import scan_query
from tests.messages import query

ASKED = query("www.example.")
REQUEST = request_number(1, tcp=False)
RESPONSE = response_number(0, LEARNED)


def test_responses_are_given_in_turn_without_their_id() -> None:
    stats = Stats()
    table = PreparedTable(stats)
    table.current(1.0)
    table.keep(scan_query(ASKED), [b"IDone", b"IDtwo"], REQUEST, RESPONSE)
    held = table.current(1.5)[ASKED[2:]]
    assert [held.take() for _ in range(3)] == [b"one", b"two", b"one"]


def test_it_lives_for_one_second_and_its_hits_are_counted() -> None:
    stats = Stats()
    table = PreparedTable(stats)
    table.current(1.2)
    table.keep(scan_query(ASKED), [b"IDone"], REQUEST, response_number(3, CACHE))
    for _ in range(5):
        table.current(1.9)[ASKED[2:]].take()
    assert len(table) == 1
    assert table.current(2.0) == {}
    stats.settle()
    assert stats.requests == {("udp", "A"): 5}
    assert stats.responses == {("NXDOMAIN", "cache"): 5}
    assert stats.cache_hits == 5


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "MAX_PREPARED", 3)
    table = PreparedTable(Stats())
    table.current(1.0)
    for number in range(10):
        table.keep(scan_query(query(f"n{number}.example.")), [b"ID"], REQUEST, RESPONSE)
    assert len(table) == 3
