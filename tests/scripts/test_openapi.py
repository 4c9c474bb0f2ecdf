from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from dnsproxy.admin.access import Access
from dnsproxy.admin.app import create_app as create_admin
from dnsproxy.admin.standing import standing_document
from dnsproxy.admin.status import status_document
from dnsproxy.helper.publish import create_app as create_helper
from scripts import openapi
from tests.admin.test_app import Operated
from tests.helper.test_publish import Source


@pytest.mark.parametrize("name", openapi.PAGES)
def test_the_document_is_up_to_date(name: str) -> None:
    held = (openapi.FOLDER / name).read_text(encoding="utf-8")
    assert json.loads(held) == openapi.PAGES[name], "run: python -m scripts.openapi"


async def test_it_has_every_path_of_the_program() -> None:
    await asyncio.sleep(0)  # aiohttp makes an application inside a loop
    assert openapi.described(openapi.ADMIN) == openapi.routes(create_admin(Operated(), Access()))
    assert openapi.described(openapi.HELPER) == openapi.routes(create_helper(Source().helper))


def test_it_has_every_key_of_the_status() -> None:
    facts = Operated().facts()
    document = status_document(facts) | standing_document(facts)
    assert set(openapi.STATUS["required"]) <= set(document)


def test_all_but_the_probes_may_ask_for_a_token() -> None:
    page = openapi.PAGES["openapi-admin.json"]
    guarded = {
        path
        for path, item in page["paths"].items()
        if all("401" in operation["responses"] for operation in item.values())
    }
    assert set(page["paths"]) - guarded == {"/health", "/ready"}


def test_check_tells_of_a_document_that_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(openapi, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["openapi", "--check"])
    assert openapi.main() == 1
    assert list(tmp_path.iterdir()) == []
    assert "openapi-admin.json is not up to date" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["openapi"])
    assert openapi.main() == 0
    monkeypatch.setattr("sys.argv", ["openapi", "--check"])
    assert openapi.main() == 0
