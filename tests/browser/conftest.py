"""A real Chromium that reaches nothing but this host."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.staged import Staged
from tests.browser.tab import Tab
from tests.e2e.processes import find_program
from tests.needs import give_up

# What Chromium does on its own account is turned off: it would ask its makers' hosts.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-domain-reliability"),
    # Whatever it asks for all the same, no name resolves.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of one module: its driver keeps an event loop, which others must not find."""
    program = find_program("chromium")
    if program is None:
        give_up("NOT TESTED IN A BROWSER, missing: chromium; run scripts/setup.sh packages")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


Open = Callable[..., Page]


@pytest.fixture
def tab(browser: Browser) -> Iterator[Callable[..., Tab]]:
    """Opens tabs; at the end none of them may have complained, or asked anybody but its proxy."""
    tabs: list[Tab] = []

    def open_tab(port: int, *, width: int = 1280, complains: bool = False, **options: object) -> Tab:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)  # type: ignore[arg-type]
        tabs.append(Tab(context.new_page(), port, complains=complains))
        return tabs[-1]

    yield open_tab
    for opened in tabs:
        opened.close()


@pytest.fixture
def staged() -> Iterator[Staged]:
    """An endpoint whose facts the test makes up."""
    with Staged() as made:
        yield made
