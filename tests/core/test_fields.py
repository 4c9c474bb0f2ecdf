from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from dnsproxy.core.fields import Fields
from dnsproxy.errors import Rejection, SnapshotError
from tests import strategies

READERS: list[Callable[[Fields, str], object]] = [
    Fields.text,
    Fields.whole,
    Fields.sequence,
    Fields.texts,
    Fields.name,
    Fields.names,
    Fields.optional_name,
    Fields.optional_moment,
]


def test_values_are_read() -> None:
    fields = Fields({"t": "x", "n": 2**63 - 1, "l": [1], "ts": [""], "d": "A.Example", "ds": ["B"]}, "it")
    assert (fields.text("t"), fields.whole("n"), fields.sequence("l"), fields.texts("ts")) == (
        "x",
        2**63 - 1,
        [1],
        [""],
    )
    assert (fields.name("d"), fields.names("ds")) == ("a.example.", ("b.",))
    assert (fields.optional_name("d"), fields.optional_name("none")) == ("a.example.", None)
    times = Fields({"a": 1_764_000_000.123, "b": 7}, "it")
    assert [times.optional_moment(key) for key in ("a", "b", "none")] == [1_764_000_000.123, 7.0, None]


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_only_an_object_has_keys(value: object) -> None:
    with pytest.raises(SnapshotError, match="^it: not an object$"):
        Fields(value, "it")


@pytest.mark.parametrize(
    ("read", "value", "complaint"),
    [
        (Fields.text, "", "not a text"),
        (Fields.text, "\ud800", "not a text"),
        (Fields.optional_moment, True, "not a time"),
        (Fields.optional_moment, -0.5, "not a time"),
        (Fields.optional_moment, float("nan"), "not a time"),
        (Fields.optional_moment, float("inf"), "not a time"),
        (Fields.optional_moment, 10**400, "not a time"),
        (Fields.optional_moment, "1", "not a time"),
        (Fields.whole, True, "not a whole number"),
        (Fields.whole, -1, "not a whole number"),
        (Fields.whole, 2**63, "not a whole number"),
        (Fields.whole, 1.0, "not a whole number"),
        (Fields.sequence, "abc", "not a list"),
        (Fields.texts, ["a", 1], "not a list of texts"),
        (Fields.name, "a..b", "label"),
        (Fields.names, ["a", "b b"], "white space"),
        (Fields.optional_name, "", "not a text"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(
    read: Callable[[Fields, str], object], value: object, complaint: str
) -> None:
    with pytest.raises(SnapshotError, match=rf"^it\.key: .*{complaint}") as caught:
        read(Fields({"key": value}, "it"), "key")
    assert caught.value.reason is Rejection.MALFORMED


@given(strategies.json_values)
def test_any_value_is_read_or_refused(value: Any) -> None:
    for read in READERS:
        try:
            read(Fields({"key": value}, "it"), "key")
        except SnapshotError as exc:
            assert exc.reason is Rejection.MALFORMED  # noqa: PT017 - both outcomes are allowed
