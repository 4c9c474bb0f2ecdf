"""The pages of deploy/: they lead somewhere, and leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY

pytestmark = pytest.mark.deploy

PAGES = sorted(DEPLOY.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DEPLOY)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_everything_is_in_the_table() -> None:
    readme = (DEPLOY / "README.md").read_text()
    table = readme.partition("## What is here")[2]
    entries = {path.name for path in DEPLOY.iterdir()} - {"README.md", "compose"}
    assert [name for name in entries if f"]({name}" not in table] == []


def test_every_kustomization_is_named() -> None:
    readme = (DEPLOY / "README.md").read_text()
    folders = {path.parent.name for path in (DEPLOY / "kubernetes").rglob("kustomization.yaml")}
    assert folders == {"base", "helper", "node", "sidecar", "snapshot"}
    assert [name for name in folders - {"helper"} if f"kubernetes/{name}" not in readme] == []
