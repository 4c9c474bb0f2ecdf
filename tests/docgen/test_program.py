from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dnsproxy import cli
from docgen.program import Command, Parameter, commands

app = typer.Typer()
below = typer.Typer()
app.add_typer(below, name="group")


class Colour(StrEnum):
    """Two of them."""

    RED = "red"
    BLUE = "blue"


@app.command()
def paint_it(
    places: Annotated[list[str], typer.Argument(metavar="PLACE", help="Where.")],
    *,
    colour: Annotated[Colour, typer.Option(help="Which.")] = Colour.RED,
    brush: Annotated[Path | None, typer.Option("--brush", "-b", envvar="BRUSH", help="With what.")] = None,
    times: Annotated[int, typer.Option(help="How often.")] = 2,
    wet: Annotated[bool, typer.Option("--wet", help="Do not dry.")] = False,
) -> None:
    """Paint.

    Takes a while.
    """


@app.command(hidden=True)
def secret() -> None:
    """Not shown."""


@below.command("show")
def show_(name: Annotated[str, typer.Argument(help="Of what.")] = "all") -> None:
    """Show."""


def test_a_command_is_read_with_all_its_parameters() -> None:
    first, second = commands(app)
    assert first == Command(
        ("paint-it",),
        "Paint.\n\nTakes a while.",
        (
            Parameter((), "PLACE", "Where.", required=True, repeated=True),
            Parameter(("--colour",), "red|blue", "Which.", default="red", choices=("red", "blue")),
            Parameter(("--brush", "-b"), "PATH", "With what.", variable="BRUSH"),
            Parameter(("--times",), "NUMBER", "How often.", default="2"),
            Parameter(("--wet",), "", "Do not dry."),
        ),
    )
    assert second == Command(("group", "show"), "Show.", (Parameter((), "NAME", "Of what.", default="all"),))


def test_the_line_of_usage() -> None:
    first, second = commands(app)
    assert first.usage == (
        "dnsproxy paint-it PLACE ... [--colour red|blue] [--brush PATH] [--times NUMBER] [--wet]"
    )
    assert second.usage == "dnsproxy group show [NAME]"


def test_every_command_of_the_program_is_found() -> None:
    command = typer.main.get_command(cli.app)
    names = set(getattr(command, "commands"))  # noqa: B009 - typer's groups are not typed as such
    assert {found.words[0] for found in commands(cli.app)} == names
    assert all(found.help and all(p.help for p in found.parameters) for found in commands(cli.app))
