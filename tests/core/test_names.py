from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core import names
from tests import strategies


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (".", b"\x00"),
        ("com", b"\x03com\x00"),
        ("WWW.Example.COM.", b"\x03www\x07example\x03com\x00"),
        ("*.oss.example", b"\x01*\x03oss\x07example\x00"),
        ("_acme-challenge.a_b", b"\x0f_acme-challenge\x03a_b\x00"),
        (r"a\.b.example", b"\x03a.b\x07example\x00"),
        (r"a\.", b"\x02a.\x00"),
        (r"\000\255\032.example", b"\x03\x00\xff \x07example\x00"),
        (r"\\\"\;.example", b'\x03\\";\x07example\x00'),
        (r"\065.example", b"\x01a\x07example\x00"),
    ],
)
def test_to_key(text: str, key: bytes) -> None:
    assert names.to_key(text) == key


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty name"),
        ("..", "empty or longer than 63"),
        (".example", "empty or longer than 63"),
        ("a..b", "empty or longer than 63"),
        ("a" * 64 + ".example", "empty or longer than 63"),
        (".".join(["a" * 63] * 4), "longer than 255"),
        ("münchen.example", "not ASCII"),
        ("a b.example", "white space"),
        ("a\tb", "white space"),
        ("a\x7fb", "control character"),
        ("trailing\n", "white space"),
        ("a\\", "broken escape"),
        (r"a\25", "broken escape"),
        (r"a\256.example", "broken escape"),
    ],
)
def test_to_key_refuses(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        names.to_key(text)


def test_limits_are_inclusive() -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(names.to_key(longest)) == names.MAX_NAME
    with pytest.raises(ValueError, match="longer than 255"):
        names.to_key(longest + "b")


@given(strategies.keys)
def test_text_and_key_are_inverse(key: bytes) -> None:
    assert names.to_key(names.to_text(key)) == key


@given(strategies.canonical_names)
def test_canonical_is_idempotent(name: str) -> None:
    assert names.canonical(name) == name


@given(st.text(max_size=80))
def test_any_text_gives_a_key_within_limits_or_value_error(text: str) -> None:
    try:
        key = names.to_key(text)
    except ValueError:
        return
    assert len(key) <= names.MAX_NAME
    assert key == key.lower()
    assert names.to_key(names.to_text(key)) == key


def test_to_text_keeps_case_and_escapes() -> None:
    assert names.to_text(b"\x04wW.\x00\x03com\x00") == r"wW\.\000.com."
    assert names.to_text(names.ROOT) == "."


def test_parents() -> None:
    assert list(names.parents(names.to_key("a.b.c"))) == [
        names.to_key("b.c"),
        names.to_key("c"),
        names.ROOT,
    ]
    assert list(names.parents(names.ROOT)) == []


@pytest.mark.parametrize(
    ("name", "ancestor", "expected"),
    [
        ("a.example", "example", True),
        ("example", "example", True),
        ("a.b.example", "example", True),
        ("example", ".", True),
        ("example", "a.example", False),
        ("badexample", "example", False),
        # A dot inside a label is no border between labels.
        (r"a\.example", "example", False),
    ],
)
def test_is_below(name: str, ancestor: str, expected: bool) -> None:
    assert names.is_below(names.to_key(name), names.to_key(ancestor)) is expected
