from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.book import Book, Entry
from dnsproxy.core.orders import (
    NEVER,
    Freeze,
    Orders,
    Pin,
    Record,
    held_entry,
    pinned_entry,
    same_set,
)
from dnsproxy.errors import Rejection, SnapshotError
from tests.strategies import canonical_names, json_values, learned, snapshot


def entry(*addresses: str, name: str = "a.example.", **facts: Any) -> Entry:
    content = learned(name, addresses or ("10.0.0.1",), resolvers=(), **facts)
    return Entry(content, snapshot(serial=7))


def book_of(*sets: tuple[str, ...], serial: int = 1) -> Book:
    contents = [learned(f"{label}.example.", found) for label, found in zip("abc", sets, strict=False)]
    return Book().merged(snapshot(*contents, serial=serial))


FULL = Orders(
    pins={"p.example.": Pin(("10.1.2.3", "fd00::1"), 900)},
    freeze=Freeze(1000, {"a.example.": entry()}, serial=7),
    history=(Record(7, "helper-a", 950, {"a.example.": entry("10.0.0.1", "10.0.0.2", cname="c.example.")}),),
    in_service={"b.example.": entry(name="b.example.", status="stale")},
    held_back={"a.example.": ("10.0.0.2",)},
)


@pytest.mark.parametrize("orders", [Orders(), FULL, Orders(freeze=Freeze(1, {}))])
def test_orders_are_read_back_as_they_were(orders: Orders) -> None:
    assert Orders.from_payload(json.loads(json.dumps(orders.to_payload()))) == orders


def wrong(path: list[str | int], value: object) -> object:
    payload: Any = json.loads(json.dumps(FULL.to_payload()))
    inner = payload
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return payload


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["version"], 2, "orders.version: not 1"),
        (["pins", 0, "name"], "a..b", "orders.pins[0].name"),
        (["pins", 0, "addresses"], [], "orders.pins[0].addresses: none"),
        (["pins", 0, "addresses"], ["10.0.0.300"], "orders.pins[0].addresses"),
        (["freeze", "since"], -1, "orders.freeze.since"),
        (["freeze"], 3, "orders.freeze: not an object"),
        (["freeze", "names", 0, "expires_at"], "soon", "orders.freeze.names[0].expires_at"),
        (["history", 0, "names", 0, "cname"], "a b", "orders.history[0].names[0].cname"),
        (["history"], {}, "orders.history: not a list"),
        (["in_service", 0, "issuer"], "", "orders.in_service[0].issuer"),
        (["held_back", 0, "addresses"], ["x"], "orders.held_back[0].addresses"),
    ],
)
def test_what_is_wrong_is_named(path: list[str | int], value: object, complaint: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        Orders.from_payload(wrong(path, value))
    assert str(caught.value).startswith(complaint)
    assert caught.value.reason is Rejection.MALFORMED


def accepts_or_rejects(payload: object) -> None:
    try:
        orders = Orders.from_payload(payload)
    except SnapshotError:
        return
    assert Orders.from_payload(orders.to_payload()) == orders


@given(json_values)
def test_any_json_is_orders_or_malformed(payload: object) -> None:
    accepts_or_rejects(payload)


@given(st.sampled_from(["version", "pins", "freeze", "history", "in_service", "held_back"]), json_values)
def test_any_json_in_any_part_is_orders_or_malformed(part: str, value: object) -> None:
    accepts_or_rejects(wrong([part], value))


@given(canonical_names, st.ip_addresses().map(str))
def test_any_name_can_be_pinned_and_kept(name: str, address: str) -> None:
    orders = Orders(pins={name: Pin((address,), 1)})
    assert Orders.from_payload(json.loads(json.dumps(orders.to_payload()))) == orders


# -- history -------------------------------------------------------------------------------------


def test_changed_sets_become_history() -> None:
    orders = Orders().recorded(book_of(("10.0.0.1",)), 10, 1000.9)
    (record,) = orders.history
    assert (record.serial, record.issuer, record.taken_at) == (1, "helper-a", 1000)
    assert record.entries["a.example."].learned.addresses == ("10.0.0.1",)
    orders = orders.recorded(book_of(("10.0.0.2",), serial=2), 10, 1001)
    assert [record.serial for record in orders.history] == [1, 2]
    assert orders.find(2) is orders.history[1]
    assert orders.find(3) is None


def test_a_mere_confirmation_is_none() -> None:
    orders = Orders().recorded(book_of(("10.0.0.1",)), 10, 1000)
    assert orders.recorded(book_of(("10.0.0.1",), serial=2), 10, 1001) is orders
    assert Orders().recorded(Book(), 10, 1000) == Orders()


def test_a_name_that_was_given_up_is_a_change() -> None:
    orders = Orders().recorded(book_of(("10.0.0.1",), ("10.0.0.2",)), 10, 1000)
    after = orders.recorded(book_of(("10.0.0.1",), serial=2), 10, 1001)
    assert [sorted(record.entries) for record in after.history] == [
        ["a.example.", "b.example."],
        ["a.example."],
    ]


def test_the_last_few_are_kept() -> None:
    orders = Orders()
    for serial in range(1, 6):
        orders = orders.recorded(book_of((f"10.0.0.{serial}",), serial=serial), 3, 1000)
    assert [record.serial for record in orders.history] == [3, 4, 5]
    assert orders.recorded(book_of(("10.0.0.9",), serial=9), 0, 1000).history == ()
    untouched = Orders()
    assert untouched.recorded(book_of(("10.0.0.9",)), 0, 1000) is untouched


def test_of_two_records_of_one_serial_the_later_is_found() -> None:
    records = tuple(Record(1, issuer, 1, {}) for issuer in ("helper-a", "helper-b"))
    assert Orders(history=records).find(1) is records[1]


# -- entries -------------------------------------------------------------------------------------


def test_sets_are_the_same_by_addresses_and_cname() -> None:
    assert same_set(entry(observed_at=1), entry(observed_at=2))
    assert not same_set(entry("10.0.0.1"), entry("10.0.0.2"))
    assert not same_set(entry(), entry(cname="c.example."))
    assert not same_set(entry(), None)


def test_what_the_operator_holds_does_not_go_stale() -> None:
    held = held_entry(entry())
    assert held.snapshot.expires_at == NEVER
    assert held.learned == entry().learned
    pinned = pinned_entry("a.example.", Pin(("10.1.2.3",), 1000))
    assert (pinned.snapshot.expires_at, pinned.learned.addresses) == (NEVER, ("10.1.2.3",))
    # The serial of the SOA that goes with it: seconds, as for what is learned.
    assert pinned.snapshot.serial // 1000 == 1000
