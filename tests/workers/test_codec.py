from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import pytest
import setuptools  # type: ignore[import-untyped]
from hypothesis import given

from dnsproxy.core import stats
from dnsproxy.errors import MessageError
from dnsproxy.workers import codec, messages
from tests.strategies import json_values


class Colour(StrEnum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: str = ""


CASES: list[tuple[Any, object, str]] = [
    (int, 2**80, "1208925819614629174706176"),
    (bool, True, "true"),
    (float, 1.5, "1.5"),
    (float, 2, "2.0"),
    (float, float("inf"), "Infinity"),
    (str, "\udcffü", '"\\udcff\\u00fc"'),
    (bytes, b"\0\xff", '"AP8="'),
    (type(None), None, "null"),
    (Colour, Colour.RED, '"red"'),
    (Pair, Pair(1, "a"), '[1,"a"]'),
    (tuple[int, ...], (1, 2), "[1,2]"),
    (tuple[str, int], ("a", 2), '["a",2]'),
    (list[int], [1], "[1]"),
    (Mapping[str, int], {"a": 1}, '[["a",1]]'),
    (Counter[tuple[str, str]], Counter({("a", "b"): 3}), '[[["a","b"],3]]'),
    (str | None, None, "null"),
    (Pair | None, Pair(1), '[1,""]'),
    (int | str, "1", '["str","1"]'),
]


@pytest.mark.parametrize(("kind", "value", "text"), CASES, ids=repr)
def test_there_and_back(kind: Any, value: object, text: str) -> None:
    assert codec.to_json(kind, value) == text
    found = codec.from_json(kind, text)
    assert (found, type(found)) == (value, kind if kind is float else type(value))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int, "true"),
        (int, "1.0"),
        (int, '"1"'),
        (bool, "1"),
        (float, "1"),
        (str, "null"),
        (bytes, '"AP8"'),
        (bytes, "[0]"),
        (Colour, '"blue"'),
        (Colour, '["red"]'),
        (Pair, '{"left":1}'),
        (Pair, "[1]"),
        (Pair, '[1,"a",2]'),
        (tuple[int, ...], '"12"'),
        (Mapping[str, int], '{"a":1}'),
        (Mapping[str, int], "[[[],1]]"),
        (int | str, '["list",[]]'),
        (int | str, "[[],1]"),
        (int, ""),
        (int, "[" * 100_000),
        (int, "9" * 5000),
        (str, b"\x80\x04N."),
        (str, b'"\xff"'),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_anything_else_is_an_error(kind: Any, text: str | bytes) -> None:
    with pytest.raises(MessageError):
        codec.from_json(kind, text)


@given(json_values)
def test_the_error_never_quotes_the_value(value: object) -> None:
    with pytest.raises(MessageError) as caught:
        codec.codec_of(Pair).decode(["secret", value])
    assert "secret" not in str(caught.value)


def test_a_type_that_is_not_plain_is_a_bug_of_the_caller() -> None:
    with pytest.raises(TypeError, match="no codec"):
        codec.codec_of(object)


def test_compiled_classes_are_listed_with_the_types_of_their_source() -> None:
    """Mypyc keeps the names of fields and forgets what is in their containers."""
    for kind, listed in codec.COMPILED.items():
        assert list(listed) == [field.name for field in fields(kind)]
        if not stats.__file__.endswith(".so"):
            assert listed == get_type_hints(kind)


def test_every_class_of_a_compiled_module_that_is_sent_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    paths = runpy.run_path(str(Path(__file__).parents[2] / "setup.py"))["QUERY_PATH"]
    compiled = {path.removesuffix(".py").replace("/", ".") for path in paths}
    seen = _kinds(messages.ToWorker | messages.ToControl, set())
    assert {kind for kind in seen if kind.__module__ in compiled} == set(codec.COMPILED)


def _kinds(kind: Any, seen: set[Any]) -> set[Any]:
    arguments = getattr(kind, "__args__", None)
    if arguments is None and isinstance(kind, type) and kind not in seen:
        seen.add(kind)
        arguments = get_type_hints(kind).values() if hasattr(kind, "__annotations__") else ()
    for argument in arguments or ():
        if argument is not ...:
            _kinds(argument, seen)
    return seen
