from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from dnsproxy.config import parse
from dnsproxy.ops import demo_screen
from dnsproxy.ops.demo_screen import NEW_ADDRESS, DemoScreen, introduction, suggestions
from dnsproxy.ops.demo_world import REGISTRY, SourceRegion
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint

Document = dict[str, Any]


def settings_for(listen: str) -> Settings:
    return parse(
        f'serve: {{listen: ["{listen}"]}}\n'
        "forward: {upstreams: [127.0.0.1:1001]}\n"
        "helper: {listen: 127.0.0.1:1002}\n"
        "admin: {listen: 127.0.0.1:1003}\n"
    )


def status(*addresses: str) -> Document:
    entry = {
        "name": f"{REGISTRY}.",
        "role": "registry",
        "addresses": list(addresses),
        "cname": None,
        "age": 1.0 if addresses else None,
        "source": "demo-helper" if addresses else None,
        "status": "ok" if addresses else "missing",
    }
    return {"names": [entry], "ready": bool(addresses)}


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that shows the given documents in turn and returns what was printed."""
    monkeypatch.setattr(demo_screen, "_REFRESH", 0.001)
    monkeypatch.setattr("dnsproxy.logs.configure", lambda _level: None)

    def show(
        documents: list[Document],
        *,
        terminal: bool,
        change_after: float | None = None,
        region: SourceRegion | None = None,
    ) -> str:
        async def run() -> int:
            stop = asyncio.Event()
            waiting = list(documents)

            def next_document(_facts: object) -> Document:
                document = waiting.pop(0)
                if not waiting:
                    stop.set()
                return document

            monkeypatch.setattr(demo_screen, "status_document", next_document)
            proxy: Any = SimpleNamespace(settings=settings_for("127.0.0.1:5353"), facts=lambda: None)
            screen = DemoScreen(proxy, region or SourceRegion(), console, change_after)
            return await screen.watch(stop)

        output = io.StringIO()
        console = Console(file=output, width=120, force_terminal=terminal, color_system=None)
        assert asyncio.run(run()) == 0
        return output.getvalue()

    return show


def test_a_log_has_one_line_per_change(watch: Callable[..., str]) -> None:
    shown = watch([status(), status("10.0.0.1"), status("10.0.0.1"), status("10.0.0.2")], terminal=False)
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in shown.splitlines()]
    assert lines == [
        f"proxy: {REGISTRY} is 10.0.0.1",
        f"proxy: {REGISTRY} is 10.0.0.2 (was 10.0.0.1)",
    ]


def test_a_name_that_loses_its_addresses_for_a_moment_says_nothing(watch: Callable[..., str]) -> None:
    shown = watch([status("10.0.0.1"), status(), status("10.0.0.1")], terminal=False)
    assert len(shown.splitlines()) == 1


def test_a_terminal_has_the_table_and_changes_above_it(watch: Callable[..., str]) -> None:
    shown = watch([status(), status("10.0.0.1"), status("10.0.0.2")], terminal=True)
    assert "proxy: " + REGISTRY + " is 10.0.0.2 (was 10.0.0.1)" in shown
    assert f"{REGISTRY} is 10.0.0.1\n" not in shown
    assert re.search(rf"{re.escape(REGISTRY)} +registry +10\.0\.0\.2 +1s +demo-helper +ok", shown)
    assert "Ctrl-C stops the demo." in shown


def test_the_change_is_counted_down_then_made_and_said_once(watch: Callable[..., str]) -> None:
    region = SourceRegion()
    shown = watch([status("10.0.0.1")], terminal=True, change_after=90, region=region)
    assert re.search(r"An address changes in (89|90) s", shown)
    assert region.lookup(REGISTRY) == ("10.94.205.198",)

    shown = watch([status("10.0.0.1")] * 3, terminal=False, change_after=0, region=region)
    assert shown.count(f"source region: {REGISTRY} is now {NEW_ADDRESS}") == 1
    assert region.lookup(REGISTRY) == (NEW_ADDRESS,)


def test_the_introduction_names_every_part_and_fits_80_columns() -> None:
    text = introduction(settings_for("127.0.0.1:5353"), Endpoint("127.0.0.1", 1000)).plain
    for endpoint in (
        "127.0.0.1:1000",
        "127.0.0.1:1001",
        "127.0.0.1:1002",
        "127.0.0.1:1003",
        "127.0.0.1:5353",
    ):
        assert f"  {endpoint} " in text
    assert max(len(line) for line in text.splitlines()) < 80


@pytest.mark.parametrize(
    ("listen", "server"),
    [
        ("127.0.0.1:5353", "dig @127.0.0.1 -p 5353 "),
        ("0.0.0.0:5354", "dig @127.0.0.1 -p 5354 "),
        ("[::]:5355", "dig @::1 -p 5355 "),
        ("[::1]:5356", "dig @::1 -p 5356 "),
    ],
)
def test_the_suggestions_ask_the_proxy_where_it_can_be_reached(listen: str, server: str) -> None:
    lines = suggestions(settings_for(listen)).plain.splitlines()
    digs = [line for line in lines if "dig" in line]
    assert len(digs) == 6
    assert all(line.startswith(f"  {server}") for line in digs)
    assert any("Ctrl-C" in line for line in lines)
