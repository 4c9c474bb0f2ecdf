"""A table where it fits; on a narrow terminal the same as a list, so that no name is broken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# Columns that a list's lines stand in from their head.
_INDENT = 4


@dataclass(frozen=True, slots=True)
class Item:
    """One row as a list has it: a line, and those below it."""

    head: Text
    lines: Sequence[Text]


class Fitting:
    """Shows ``table``, or ``items`` where the columns that must not be folded have no room."""

    def __init__(self, table: Table, items: Iterable[Item]) -> None:
        self._table = table
        self._items = tuple(items)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield what fits; part of rich's protocol."""
        unbounded = options.update(max_width=10_000)
        needed = Measurement.get(console, unbounded, self._table).minimum
        yield self._table if needed <= options.max_width else self._list()

    def _list(self) -> Group:
        parts: list[RenderableType] = [Text()]
        for item in self._items:
            parts += [item.head, *(Padding(line, (0, 0, 0, _INDENT)) for line in item.lines)]
        return Group(*parts, Text())
