"""One page of the browser, and what it asked for and complained of."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from tests.e2e.processes import wait_for

# Milliseconds. A machine that runs other tests as well has little time for a browser.
PATIENCE = 45_000


class Tab:
    """Shows the status page of the proxy whose admin endpoint is on ``port`` of 127.0.0.1.

    With ``complains`` what the browser writes to its console is for the test to judge.
    """

    def __init__(self, page: Page, port: int, *, complains: bool = False) -> None:
        self.page = page
        self.origin = f"http://127.0.0.1:{port}"
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._complains = complains
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def show(self) -> None:
        """Load the page."""
        self.page.goto(f"{self.origin}/")

    def section(self, name: str) -> Locator:
        return self.page.locator(f"#{name}")

    def has(self, selector: str, text: str) -> None:
        """Wait until the part of the page holds ``text``."""
        expect(self.page.locator(selector)).to_contain_text(text, timeout=PATIENCE)

    def is_link(self, state: str) -> None:
        """Wait until the connection is shown as ``state``."""
        expect(self.page.locator("#link")).to_have_attribute("data-link", state, timeout=PATIENCE)

    def value(self, script: str) -> Any:
        return self.page.evaluate(script)

    def until(self, script: str) -> None:
        """Wait until ``script`` is true. The page's policy forbids what Playwright has for this."""
        wait_for(lambda: self.value(script), script, PATIENCE / 1000)

    def await_update(self) -> None:
        """Wait until the page has asked again and taken over the answer."""
        with self.page.expect_response(lambda response: response.url == f"{self.origin}/", timeout=PATIENCE):
            pass
        self.is_link("live")

    def close(self) -> None:
        """Close it, and check what it did."""
        self.page.context.close()
        assert self.requests
        assert [url for url in self.requests if not url.startswith(f"{self.origin}/")] == []
        if not self._complains:
            assert self.complaints == []
