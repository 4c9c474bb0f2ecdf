"""Which pages are generated, and whether they are up to date."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dnsproxy import cli
from dnsproxy.settings import schema
from docgen import commands, configuration, man, program, providers
from scripts import reference

ROOT = Path(__file__).parents[1]

# Path below the repository → the text that belongs there.
PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/configuration.md": lambda: configuration.page(schema()),
    "docs/reference/commands.md": lambda: commands.page(list(program.commands(cli.app))),
    "docs/providers.md": providers.page,
    "docs/man/dnsproxy.1": lambda: man.page(list(program.commands(cli.app))),
    **{f"docs/reference/{name}": make for name, make in reference.PAGES.items()},
}


def outdated(root: Path = ROOT) -> list[str]:
    """Return the paths of pages below ``root`` that are missing or hold something else."""
    return [
        path
        for path, make in PAGES.items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != make()
    ]


def write(root: Path = ROOT) -> list[str]:
    """Write the pages that are not up to date, and return their paths."""
    paths = outdated(root)
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(PAGES[path](), encoding="utf-8")
    return paths
