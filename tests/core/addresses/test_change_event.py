from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from dnsproxy.core.addresses.change_event import NameStatus, change_event, name_statuses
from dnsproxy.core.addresses.filter import Limits, LimitTable
from dnsproxy.core.addresses.name_state import AddressPolicy
from dnsproxy.core.registry import Wanted
from tests.strategies import KEY, learned, lifecycle, snapshot


def status(
    *served: str, learned: tuple[str, ...] | None = None, unrouted: tuple[str, ...] = ()
) -> NameStatus:
    return NameStatus("registry", "hangzhou", served, served if learned is None else learned, unrouted)


def event(reported: dict[str, NameStatus], current: dict[str, NameStatus]) -> dict[str, Any] | None:
    return change_event(reported, current, serial=7, frozen=False)


def test_without_a_change_there_is_no_event() -> None:
    state = {"a.example.": status("10.0.0.1", unrouted=("10.0.0.1",))}
    assert event(state, dict(state)) is None
    assert event({}, {}) is None


def test_in_the_first_event_every_name_is_new() -> None:
    state = {"a.example.": status("10.0.0.1", "10.0.0.2", unrouted=("10.0.0.2",))}
    assert event({}, state) == {
        "version": 1,
        "serial": 7,
        "frozen": False,
        "names": [
            {
                "name": "a.example.",
                "role": "registry",
                "registry": "hangzhou",
                "old": [],
                "new": ["10.0.0.1", "10.0.0.2"],
                "learned": ["10.0.0.1", "10.0.0.2"],
                "routes_needed": ["10.0.0.2"],
            }
        ],
        "routes_needed": ["10.0.0.2"],
    }


def test_an_address_that_is_held_back_is_in_the_event_with_its_route() -> None:
    before = {
        "a.example.": status("10.0.0.1"),
        "b.example.": status("10.0.0.8", unrouted=("10.0.0.8",)),
    }
    after = before | {"a.example.": status("10.0.0.1", learned=("10.0.0.2",), unrouted=("10.0.0.2",))}
    document = event(before, after)
    assert document is not None
    (name,) = document["names"]
    assert (name["old"], name["new"], name["learned"]) == (["10.0.0.1"], ["10.0.0.1"], ["10.0.0.2"])
    assert name["routes_needed"] == ["10.0.0.2"]
    # Those of all names, for a program that replaces its routes.
    assert document["routes_needed"] == ["10.0.0.2", "10.0.0.8"]


def test_a_name_that_is_no_longer_managed_has_no_new_address() -> None:
    document = event({"a.example.": status("10.0.0.1")}, {})
    assert document is not None
    (name,) = document["names"]
    assert (name["old"], name["new"], name["registry"]) == (["10.0.0.1"], [], "hangzhou")


def test_the_status_of_each_name_that_has_an_address() -> None:
    limits = Limits(routed=(ip_network("10.0.0.0/24"),), conflicts=(ip_network("10.9.0.0/16"),))
    policy = AddressPolicy(
        managed=(
            Wanted("a.example.", "registry", "hangzhou"),
            Wanted("b.example.", "storage", "hangzhou", addresses=("10.7.7.7",)),
            Wanted("c.example.", "auth", "hangzhou"),
        ),
        keys={KEY: None},
        limits=LimitTable(by_registry={"hangzhou": limits}),
    )
    first = snapshot(learned("a.example.", ("10.0.0.1",)))
    second = snapshot(learned("a.example.", ("10.1.1.1", "10.9.0.1")), serial=2)
    # The second set waits for a probe; its refused address needs no route.
    assert name_statuses(lifecycle(first, second, policy=policy)) == {
        "a.example.": NameStatus("registry", "hangzhou", ("10.0.0.1",), ("10.1.1.1",), ("10.1.1.1",)),
        "b.example.": NameStatus("storage", "hangzhou", ("10.7.7.7",), (), ("10.7.7.7",)),
    }
