from __future__ import annotations

import pytest

from dnsproxy.core.registry import (
    Found,
    Override,
    Sought,
    Wanted,
    superseded,
    undiscovered,
    with_found,
    with_overrides,
)


@pytest.mark.parametrize(
    ("entry", "ask"),
    [
        (Wanted("a.example.", "other", "r"), "a.example."),
        (Wanted("*.a.example.", "other", "r"), "a.example."),
        (Wanted("a.example.", "other", "r", cname="b.example."), "b.example."),
    ],
)
def test_what_to_ask_for(entry: Wanted, ask: str) -> None:
    assert entry.ask == ask


def test_overrides_replace_their_namesakes_and_add_the_rest() -> None:
    wanted = [Wanted("a.example.", "auth", "r"), Wanted("b.example.", "storage", "r")]
    overrides = [
        Override("A.example", "other", addresses=("10.0.0.1",)),
        Override("c.example", "other", cname="Target.example"),
    ]
    assert with_overrides("r", wanted, overrides) == [
        Wanted("a.example.", "other", "r", addresses=("10.0.0.1",)),
        Wanted("b.example.", "storage", "r"),
        Wanted("c.example.", "other", "r", cname="target.example."),
    ]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("dockerauth.cn-hangzhou.aliyuncs.com.", True),
        ("a.custom.example.", True),
        ("aliyuncs.com.", False),
        ("custom.example.", False),
        ("xaliyuncs.com.", False),
        ("aliyuncs.com.attacker.example.", False),
        ("*.aliyuncs.com.", False),
        ("a.*.aliyuncs.com.", False),
        ("a\\.aliyuncs.com.", False),
        (".", False),
    ],
)
def test_what_a_registry_may_tell(name: str, allowed: bool) -> None:
    assert Sought("hz", "auth", ("aliyuncs.com.", "custom.example.")).allows(name) is allowed


def test_without_suffixes_nothing_may_be_told() -> None:
    assert not Sought("hz", "auth", ()).allows("auth.example.")


def found(role: str, *names: str) -> Found:
    return Found("hz", role, names, 1000)


def test_found_names_come_after_the_configured_ones_and_never_replace_them() -> None:
    pinned = Wanted("a.example.", "other", "one", addresses=("10.0.0.1",))
    assert with_found(
        [pinned], [found("auth", "a.example.", "b.example."), found("storage", "b.example.")]
    ) == [
        pinned,
        Wanted("b.example.", "auth", "hz"),
    ]


def test_a_name_is_superseded_by_others_of_its_role_and_not_by_silence() -> None:
    earlier = [found("auth", "a.example.", "b.example."), found("storage", "c.example.")]
    assert superseded(earlier, []) == frozenset()
    assert superseded(earlier, [found("auth", "b.example.")]) == {"a.example."}
    assert superseded(earlier, [found("auth")]) == {"a.example.", "b.example."}
    assert superseded(earlier, [found("auth", "c.example."), found("storage")]) == {
        "a.example.",
        "b.example.",
    }


def test_what_was_never_found_out_is_told_apart_from_what_needs_no_name() -> None:
    sought = [Sought("hz", "auth", ()), Sought("hz", "storage", ()), Sought("sh", "auth", ())]
    assert undiscovered(sought, [found("auth")]) == sought[1:]
