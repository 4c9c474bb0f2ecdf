from __future__ import annotations

from ipaddress import ip_network

from dnsproxy.core.book import Entry
from dnsproxy.core.guard import Limits, LimitTable, Refusal
from dnsproxy.core.screen import Screen
from tests.strategies import learned, snapshot

TABLE = LimitTable({"a.example.": Limits(conflicts=(ip_network("10.9.0.0/16"),))})


def entries(**sets: tuple[str, ...]) -> dict[str, Entry]:
    found = {}
    for label, addresses in sets.items():
        content = learned(f"{label}.example.", addresses)
        found[content.name] = Entry(content, snapshot(content))
    return found


def test_a_set_without_fault_passes_as_it_is() -> None:
    given = entries(a=("10.0.0.1", "10.0.0.2"))
    passed, changed = Screen(TABLE).take(given)
    assert passed["a.example."] is given["a.example."]
    assert changed == []


def test_refused_addresses_are_left_out_and_counted_once() -> None:
    screen = Screen(TABLE)
    given = entries(a=("10.0.0.1", "10.9.0.1", "127.0.0.1"), b=("10.9.0.1",))
    for expected in (["a.example."], []):
        passed, changed = screen.take(given)
        assert passed["a.example."].learned.addresses == ("10.0.0.1",)
        assert passed["b.example."].learned.addresses == ("10.9.0.1",)
        assert changed == expected
    assert screen.refused == {"conflict": 1, "loopback": 1}
    assert [f.reason for f in screen.findings["a.example."]] == [Refusal.CONFLICT, Refusal.LOOPBACK]


def test_only_what_was_not_refused_before_is_counted() -> None:
    screen = Screen(TABLE)
    screen.take(entries(a=("10.9.0.1",)))
    assert screen.take(entries(a=("10.9.0.1", "127.0.0.1")))[1] == ["a.example."]
    assert screen.refused == {"conflict": 1, "loopback": 1}


def test_a_set_of_refused_addresses_only_is_no_set() -> None:
    passed, changed = Screen(TABLE).take(entries(a=("127.0.0.1",), b=("10.0.0.1",)))
    assert list(passed) == ["b.example."]
    assert changed == ["a.example."]


def test_it_tells_when_nothing_is_refused_any_more() -> None:
    screen = Screen(TABLE)
    screen.take(entries(a=("10.9.0.1",)))
    assert screen.take(entries(a=("10.0.0.1",)))[1] == ["a.example."]
    assert screen.findings["a.example."] == ()
    screen.take(entries(a=("10.9.0.1",)))
    assert screen.refused == {"conflict": 2}


def test_names_that_are_gone_are_forgotten() -> None:
    screen = Screen(TABLE)
    screen.take(entries(a=("10.9.0.1",)))
    assert screen.take({}) == ({}, [])
    assert screen.findings == {}


def test_passed_leaves_no_trace() -> None:
    screen = Screen(TABLE)
    assert screen.passed(entries(a=("10.9.0.1",), b=("10.0.0.1",))) == entries(b=("10.0.0.1",))
    assert (screen.findings, screen.refused) == ({}, {})
