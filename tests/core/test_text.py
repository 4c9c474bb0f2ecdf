from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.text import (
    LIMIT,
    MAX_LINES,
    is_label,
    printable,
    printable_document,
    printable_lines,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ä and 深", "plain text, ä and 深"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(), st.integers(min_value=1, max_value=40))
def test_any_text_is_printable_and_bounded(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit + 3
    shown.encode("utf-8")
    assert all(line.isprintable() for line in printable_lines(text, limit).split("\n"))


def test_a_long_text_is_cut() -> None:
    assert printable("x" * 6_000_000) == "x" * LIMIT + "..."
    assert printable("\x1b" * LIMIT).endswith("\\x1b...")
    assert printable("x" * LIMIT) == "x" * LIMIT


def test_lines_stay_lines_up_to_a_bound() -> None:
    assert printable_lines("a\n\x1bb") == "a\n\\x1bb"
    assert len(printable_lines("x\n" * 10_000).split("\n")) == MAX_LINES + 1


def test_a_document_keeps_what_can_be_shown() -> None:
    document = {"a": ["\x1b", 1, 1.5, None, True, {"\x07": "x\ny"}], "b": "plain"}
    assert printable_document(document) == {
        "a": ["\\x1b", 1, 1.5, None, True, {"\\x07": "x\\ny"}],
        "b": "plain",
    }
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    assert str(printable_document(deep)).count("[") < 40


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a", True),
        ("ä" * 4, True),
        ("ä" * 5, False),
        ("x" * 9, False),
        ("", False),
        ("a\n", False),
        ("\ud800", False),
    ],
)
def test_labels(text: str, *, good: bool) -> None:
    assert is_label(text, 8) is good
