"""Read a configuration file: YAML into `Settings`, or every problem at once.

The YAML is composed into nodes first, so that each key path is known by its
line when pydantic later names the path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dnsproxy.errors import ConfigError, Problem
from dnsproxy.settings import Settings
from dnsproxy.settings.suggestions import keys_at, suggestion
from dnsproxy.settings.values import TYPE_TAG

KeyPath = tuple[str | int, ...]
SECTIONS = frozenset(Settings.model_fields)


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration that can be used. ``warnings`` are what may be a mistake."""

    settings: Settings
    warnings: tuple[Problem, ...]
    place: Callable[[KeyPath, str], Problem]
    """Makes a problem of a key path and a message: it knows the lines."""


def load(path: Path) -> Settings:
    """Read and check the file at ``path``; see `examine`."""
    return examine(path).settings


def examine(path: Path) -> Checked:
    """Read and check the file at ``path``.

    Raises:
        ConfigError: with every problem found, each with its line and key path.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError([Problem(str(path), 0, "", exc.strerror or str(exc))]) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError([Problem(str(path), 0, "", f"not UTF-8 text: {exc.reason}")]) from exc
    return examine_text(text, str(path))


def parse(text: str, file: str = "config.yaml") -> Settings:
    """Check the text of a configuration; see `examine_text`."""
    return examine_text(text, file).settings


def examine_text(text: str, file: str = "config.yaml") -> Checked:
    """Check the text of a configuration; ``file`` is what problems call it.

    Raises:
        ConfigError: as `examine`.
    """
    document = _Document(file)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = None
        if root is not None:
            value = document.read(root, ())
            _free(root)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 0
        raise ConfigError([Problem(file, line, "", f"not YAML: {exc.problem}")]) from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise ConfigError([Problem(file, 0, "", f"not YAML: {str(exc).partition(chr(10))[0]}")]) from exc
    if value is None:
        # A file that is being written, or was cut off, must not pass for one without any registry.
        raise ConfigError([Problem(file, 0, "", "the file is empty; {} means all defaults")])
    if not isinstance(value, dict):
        raise ConfigError([Problem(file, 1, "", "the file must be a mapping of sections")])
    # A section whose keys are all commented out is one that was left out, not a null.
    sections = {key: held for key, held in value.items() if held is not None or key not in SECTIONS}
    try:
        settings = Settings.model_validate(sections)
    except ValidationError as exc:
        errors = exc.errors() + _hidden(sections, exc.errors())
        problems = document.problems + [document.problem(error) for error in errors]
        raise ConfigError(_in_file_order(problems)) from exc
    if document.problems:
        raise ConfigError(_in_file_order(document.problems))
    warnings = tuple(document.at(path, message) for path, message in settings.doubts())
    return Checked(settings, warnings, document.at)


def _hidden(sections: dict[str, Any], errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Return what is wrong between the sections that have no error of their own.

    What must hold between sections is checked where all of them are right; names depend on registries.
    """
    wrong = {error["loc"][0] for error in errors if error["loc"]}
    if not wrong or "registries" in wrong:
        return []
    try:
        Settings.model_validate({key: held for key, held in sections.items() if key not in wrong})
    except ValidationError as exc:
        return exc.errors()
    return []


class _Scalars(yaml.constructor.SafeConstructor):
    """Constructs values, and keeps no node."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        value = super().construct_object(node, deep)
        self.constructed_objects.clear()
        return value


class _Document:
    """Plain values out of YAML nodes, remembering where each came from."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[KeyPath, int] = {(): 1}
        self.problems: list[Problem] = []
        # A whole loader is a reference cycle, which would hold the nodes.
        self._scalars = _Scalars()

    def read(self, node: yaml.Node, path: KeyPath) -> Any:  # noqa: ANN401 - whatever YAML holds
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        try:
            value = self._scalars.construct_object(node)
        except (ValueError, LookupError, AttributeError, ArithmeticError):
            # PyYAML lets these out for `2025-13-01`, `0x_` or `!!bool maybe`.
            message = f"{node.value!r} looks like a date or number but is none; put it in quotes"
            self.problems.append(Problem(self.file, node.start_mark.line + 1, key_path(path), message))
            return str(node.value)
        if isinstance(value, int | float) and (doubt := _other_number(node, value)):
            self.problems.append(Problem(self.file, node.start_mark.line + 1, key_path(path), doubt))
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            below = (*path, key)
            if key in value:
                line = key_node.start_mark.line + 1
                first = self.lines[below]
                self.problems.append(
                    Problem(self.file, line, key_path(below), f"given twice (first in line {first})")
                )
                continue
            self.lines[below] = key_node.start_mark.line + 1
            value[key] = self.read(value_node, below)
        return value

    def problem(self, error: ErrorDetails) -> Problem:
        """Turn one of pydantic's errors into a line of ours."""
        # Unions and validators add steps of their own ("function-wrap[...]", a type's name):
        # the longest part that the file really has is the place; a missing or
        # unknown key keeps its own name.
        path = tuple(
            step for step in error["loc"] if not (isinstance(step, str) and step.startswith(TYPE_TAG))
        )
        known = self._known(path)
        shown = path if error["type"] == "missing" else known
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "unknown key" + suggestion(str(path[-1]), keys_at(Settings, error["loc"][:-1]))
        elif error["type"] == "missing":
            message = "must be given"
        elif "first" in error.get("ctx", {}):
            message += f" ({self._place(tuple(error['ctx']['first']))})"
        return Problem(self.file, self.lines[known], key_path(shown), message)

    def at(self, path: KeyPath, message: str) -> Problem:
        """Return the problem that ``message`` describes at ``path``, or above where the file lacks that."""
        return Problem(self.file, self.lines[self._known(path)], key_path(path), message)

    def _known(self, path: KeyPath) -> KeyPath:
        while path not in self.lines:
            path = path[:-1]
        return path

    def _place(self, path: KeyPath) -> str:
        known = self._known(path)
        return f"{key_path(known)} in line {self.lines[known]}" if known else f"{key_path(path)} by default"


def _other_number(node: yaml.Node, value: float) -> str | None:
    """Return what to write in place of a number that YAML 1.1 reads in base 8 or 60."""
    text = str(node.value)
    if ":" in text:
        return f"YAML reads {text} in base 60, as {value:g}; write {value:g}, or put it in quotes"
    digits = text.lstrip("+-").replace("_", "")
    if isinstance(value, int) and len(digits) > 1 and digits[0] == "0" and digits.isdecimal():
        return (
            f"YAML reads {text} in base 8, as {value}; write {digits.lstrip('0') or '0'} or {value},"
            " or put it in quotes"
        )
    return None


def _free(root: yaml.Node) -> None:
    """Take the tree apart: freed at once, that of 10,000 names stops every thread for 40 ms."""
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.CollectionNode):
            held, node.value = node.value, []
            for item in held:
                nodes.extend(item if isinstance(item, tuple) else (item,))


def key_path(path: KeyPath) -> str:
    """Return ``forward.upstreams[0]`` for ``("forward", "upstreams", 0)``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def _in_file_order(problems: list[Problem]) -> list[Problem]:
    # Each arm of a union reports its own failure; one line per place is enough,
    # and the last arm is the one with the most telling message.
    by_place = {(problem.line, problem.path): problem for problem in problems}
    return sorted(by_place.values(), key=lambda problem: (problem.line, problem.path))
