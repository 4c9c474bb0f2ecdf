from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dnsproxy.ops.fitting import Fitting, Item

NAME = "n" * 30


def shown(width: int) -> list[str]:
    table = Table()
    table.add_column("name", no_wrap=True)
    table.add_column("text", min_width=8)
    table.add_row(NAME, "some words that may be wrapped")
    fitting = Fitting(table, [Item(Text(NAME), [Text("some words"), Text("that may be wrapped")])])
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(fitting)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_where_the_fixed_columns_fit_it_is_a_table() -> None:
    for width in (100, 45):
        lines = shown(width)
        assert any("name" in line and "text" in line for line in lines)
        assert any(NAME in line and "some" in line for line in lines)


def test_where_they_do_not_it_is_a_list_of_whole_names() -> None:
    assert shown(44) == ["", NAME, "    some words", "    that may be wrapped", ""]
    # What is too long is wrapped below its own beginning.
    assert shown(20)[-4:] == ["    some words", "    that may be", "    wrapped", ""]
