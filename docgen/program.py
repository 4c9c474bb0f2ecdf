"""The commands of the program as plain values, read from the functions that typer makes them of.

Of typer only its registry and its ``Option`` and ``Argument`` are used: what it makes of
them differs from one version to the next.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo


@dataclass(frozen=True)
class Parameter:
    """An option or argument of a command."""

    names: tuple[str, ...]  # of an option, the long one first; empty for an argument
    value: str  # what stands for its value; empty for a flag
    help: str
    required: bool = False
    repeated: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()
    variable: str = ""  # of the environment

    @property
    def usage(self) -> str:
        """How it stands in the line of usage."""
        text = " ".join(part for part in (self.names[0] if self.names else "", self.value) if part)
        text += " ..." if self.repeated else ""
        return text if self.required else f"[{text}]"


@dataclass(frozen=True)
class Command:
    """A command, or one below another."""

    words: tuple[str, ...]  # without the program's name
    help: str  # paragraphs
    parameters: tuple[Parameter, ...]

    @property
    def arguments(self) -> list[Parameter]:
        """Those that are told by their place."""
        return [parameter for parameter in self.parameters if not parameter.names]

    @property
    def options(self) -> list[Parameter]:
        """Those that are told by their name."""
        return [parameter for parameter in self.parameters if parameter.names]

    @property
    def usage(self) -> str:
        """The line of usage."""
        shown = [*self.arguments, *self.options]
        return " ".join(["dnsproxy", *self.words, *(parameter.usage for parameter in shown)])


def commands(app: typer.Typer, above: tuple[str, ...] = ()) -> Iterator[Command]:
    """Yield the commands of ``app`` in the order in which ``--help`` lists them, groups last."""
    for info in app.registered_commands:
        if info.callback is not None and not info.hidden:
            name = info.name or info.callback.__name__.replace("_", "-")
            yield Command((*above, name), _text(info.callback), tuple(_parameters(info.callback)))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from commands(group.typer_instance, (*above, str(group.name)))


def _text(function: Callable[..., object]) -> str:
    return inspect.cleandoc(function.__doc__ or "")


def _parameters(function: Callable[..., object]) -> Iterator[Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if hints[name] is typer.Context:  # typer's own, not the command line's
            continue
        kind, *notes = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        info = next(note for note in notes if isinstance(note, OptionInfo | ArgumentInfo))
        yield _parameter(name, parameter.default, _plain(kind), info)


def _parameter(name: str, default: object, kind: Any, info: OptionInfo | ArgumentInfo) -> Parameter:  # noqa: ANN401 - a type
    repeated = get_origin(kind) is list
    choices = tuple(str(member.value) for member in kind) if _is_enum(kind) else ()
    value = (info.metavar or name.upper()).strip("[]")
    names: tuple[str, ...] = ()
    if isinstance(info, OptionInfo):
        # In Annotated[...] typer takes the first of the names for a default.
        given = (info.default, *(info.param_decls or ()))
        names = tuple(word for word in given if isinstance(word, str)) or (f"--{name.replace('_', '-')}",)
        value = "" if kind is bool else "|".join(choices) or info.metavar or _placeholder(kind)
    return Parameter(
        names,
        value,
        info.help or "",
        required=default is inspect.Parameter.empty,
        repeated=repeated,
        default=_default(default),
        choices=choices,
        variable=str(info.envvar or ""),
    )


def _plain(kind: Any) -> Any:  # noqa: ANN401 - a type
    """Return ``X`` for ``X | None``."""
    if get_origin(kind) in {Union, types.UnionType}:
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def _is_enum(kind: Any) -> bool:  # noqa: ANN401 - a type
    return isinstance(kind, type) and issubclass(kind, Enum)


def _placeholder(kind: Any) -> str:  # noqa: ANN401 - a type
    inner = get_args(kind)[0] if get_origin(kind) is list else kind
    return {Path: "PATH", int: "NUMBER", float: "NUMBER"}.get(inner, "TEXT")


def _default(value: object) -> str:
    if value is inspect.Parameter.empty or value is None or value is False or value in ([], ()):
        return ""
    return str(value.value) if isinstance(value, Enum) else str(value)
