from __future__ import annotations

from pathlib import Path

import pytest

from docgen import pages


@pytest.mark.parametrize("path", pages.PAGES)
def test_a_page_is_up_to_date(path: str) -> None:
    held = (pages.ROOT / path).read_text(encoding="utf-8")
    assert held == pages.PAGES[path](), "run: make pages"


def test_only_what_is_behind_is_written(tmp_path: Path) -> None:
    assert pages.write(tmp_path) == list(pages.PAGES)
    assert pages.outdated(tmp_path) == []
    behind = "docs/reference/commands.md"
    (tmp_path / behind).write_text("old", encoding="utf-8")
    assert pages.outdated(tmp_path) == [behind]
    assert pages.write(tmp_path) == [behind]
    assert pages.write(tmp_path) == []
