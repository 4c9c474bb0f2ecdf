from __future__ import annotations

from typing import Any

from dnsproxy.core.notice import Situation, notice


def situation(
    *served: str, learned: tuple[str, ...] | None = None, unrouted: tuple[str, ...] = ()
) -> Situation:
    return Situation("registry", "hangzhou", served, served if learned is None else learned, unrouted)


def tell(told: dict[str, Situation], current: dict[str, Situation]) -> dict[str, Any] | None:
    return notice(told, current, serial=7, frozen=False)


def test_what_has_not_changed_is_not_told() -> None:
    state = {"a.example.": situation("10.0.0.1", unrouted=("10.0.0.1",))}
    assert tell(state, dict(state)) is None
    assert tell({}, {}) is None


def test_the_first_time_everything_is_new() -> None:
    state = {"a.example.": situation("10.0.0.1", "10.0.0.2", unrouted=("10.0.0.2",))}
    assert tell({}, state) == {
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


def test_an_address_that_is_still_held_back_is_told_with_the_route_it_needs() -> None:
    before = {
        "a.example.": situation("10.0.0.1"),
        "b.example.": situation("10.0.0.8", unrouted=("10.0.0.8",)),
    }
    after = before | {"a.example.": situation("10.0.0.1", learned=("10.0.0.2",), unrouted=("10.0.0.2",))}
    document = tell(before, after)
    assert document is not None
    (name,) = document["names"]
    assert (name["old"], name["new"], name["learned"]) == (["10.0.0.1"], ["10.0.0.1"], ["10.0.0.2"])
    assert name["routes_needed"] == ["10.0.0.2"]
    # The whole need, for a program that sets routes rather than adds them.
    assert document["routes_needed"] == ["10.0.0.2", "10.0.0.8"]


def test_a_name_that_is_gone_has_nothing_new() -> None:
    document = tell({"a.example.": situation("10.0.0.1")}, {})
    assert document is not None
    (name,) = document["names"]
    assert (name["old"], name["new"], name["registry"]) == (["10.0.0.1"], [], "hangzhou")
