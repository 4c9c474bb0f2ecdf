"""What docs/threat-model.md and docs/reliability.md say is shown by a test is: the test is there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.e2e.processes import ROOT

pytestmark = pytest.mark.faults

_NAMED = re.compile(r"`(test_\w+)`")
_FILES = re.compile(r"`(tests/[\w/]+\.py)`")


def known() -> set[str]:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("test_*.py"))
    return {
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("name", ["threat-model.md", "reliability.md"])
def test_every_test_that_is_named_is_there(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    named = set(_NAMED.findall(text))
    assert len(named) > 10
    assert named - known() == set()
    assert [file for file in _FILES.findall(text) if not (ROOT / file).is_file()] == []


def test_every_threat_has_a_test_or_says_that_it_is_left() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    tables = text.partition("## Where a name leads")[2]
    rows = [line for line in tables.splitlines() if line.startswith("| ") and "---" not in line]
    threats = [row for row in rows if not row.startswith("| threat ")]
    assert len(threats) > 25
    assert [
        row for row in threats if "`t" not in row and "`make " not in row and "**Left:**" not in row
    ] == []
