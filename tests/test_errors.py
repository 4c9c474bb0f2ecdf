from __future__ import annotations

import inspect

import pytest

from dnsproxy import errors
from dnsproxy.errors import ConfigError, DnsproxyError, DropReason, Problem, WireError


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("c.yaml", 12, "a.b[0]", "wrong"), "c.yaml:12: a.b[0]: wrong"),
        (Problem("c.yaml", 0, "", "No such file"), "c.yaml: No such file"),
        (Problem("c.yaml", 3, "", "not YAML"), "c.yaml:3: not YAML"),
        (Problem("c\x1b[31m", 1, "a\x1b[2J", "b\nc"), "c\\x1b[31m:1: a\\x1b[2J: b\\nc"),
    ],
)
def test_a_problem_names_its_place(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_configuration_error_has_a_line_per_problem() -> None:
    error = ConfigError([Problem("c", 1, "x", "one"), Problem("c", 2, "y", "two")])
    assert str(error).splitlines() == ["c:1: x: one", "c:2: y: two"]


def test_every_error_has_one_root_and_stands_in_the_drawn_tree() -> None:
    drawn = errors.__doc__ or ""
    found = [
        thing
        for thing in vars(errors).values()
        if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__ == errors.__name__
    ]
    assert len(found) > 5
    for thing in found:
        assert issubclass(thing, DnsproxyError)
        assert thing.__name__ in drawn


def test_a_wire_error_says_what_to_count() -> None:
    assert WireError("x").reason is DropReason.SHORT
