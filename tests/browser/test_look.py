"""How the status page looks and behaves, whatever state the proxy is in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error

from dnsproxy.settings.serving import AdminSettings
from tests.browser.staged import Staged
from tests.browser.tab import PATIENCE, Tab
from tests.fakes.facts import REGISTRY, bad_facts, good_facts

pytestmark = pytest.mark.browser

OpenTab = Callable[..., Tab]

DESKTOP, PHONE = 1280, 360
HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'&amp;{{7*7}}"
# Everything that takes part in the tab order, as far as it is drawn.
FOCUSABLE = """[...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')]
    .filter((node) => node.checkVisibility())"""


STATES = pytest.mark.parametrize(
    "facts", [good_facts(), bad_facts(HOSTILE + "x" * 80)], ids=["well", "unwell"]
)


@STATES
def test_axe_finds_nothing(staged: Staged, tab: OpenTab, facts: Any) -> None:
    staged.show(facts)
    opened = tab(staged.port)
    opened.show()
    opened.is_link("live")
    schemes: list[Literal["light", "dark"]] = ["light", "dark"]
    for scheme, width in product(schemes, (DESKTOP, PHONE)):
        opened.page.emulate_media(color_scheme=scheme)
        opened.page.set_viewport_size({"width": width, "height": 900})
        result = Axe().run(opened.page).response
        assert len(result["passes"]) > 20
        found = [
            (violation["id"], node["target"], node["failureSummary"])
            for violation in result["violations"]
            for node in violation["nodes"]
        ]
        assert found == [], (scheme, width)


def test_axe_finds_what_is_wrong(staged: Staged, tab: OpenTab) -> None:
    opened = tab(staged.port)
    opened.show()
    opened.value("document.querySelector('h1').style.color = '#ddd'")
    assert [v["id"] for v in Axe().run(opened.page).response["violations"]] == ["color-contrast"]


@STATES
def test_nothing_is_wider_than_the_screen(staged: Staged, tab: OpenTab, facts: Any) -> None:
    staged.show(facts)
    opened = tab(staged.port)
    opened.show()
    for width in (320, PHONE, 700, 720, 960, DESKTOP):
        opened.page.set_viewport_size({"width": width, "height": 900})
        assert opened.value("document.documentElement.scrollWidth") <= width
        # Nor is anything cut off at the side.
        beyond = f"""[...document.querySelectorAll('main *')].filter((node) =>
            node.checkVisibility() && !node.closest('.unseen, thead')
            && node.getBoundingClientRect().right > {width} + 0.5).map((node) => node.outerHTML)"""
        assert opened.value(beyond) == [], width


def test_what_others_say_is_shown_as_text(staged: Staged, tab: OpenTab) -> None:
    staged.show(bad_facts(HOSTILE))
    opened = tab(staged.port)
    opened.show()
    opened.is_link("live")
    shown = opened.page.locator("body").inner_text()
    # Registry, role, helper, two names, host, upstream, failure, drop, source and its error, probe, refusal.
    assert shown.count("<script>window.hacked") > 12
    assert "49" not in opened.page.locator(".host").inner_text()
    # The same again when the script takes over what has changed.
    staged.show(replace(bad_facts(f"again{HOSTILE}"), draining=False))
    opened.has("#upstreams", f"again{HOSTILE}")
    assert opened.value("window.hacked") is None
    assert opened.value("document.querySelectorAll('main script, main img').length") == 0


def test_the_policy_keeps_out_what_escaping_missed(staged: Staged, tab: OpenTab) -> None:
    opened = tab(staged.port, complains=True)
    opened.show()
    opened.value("""() => {
        const made = document.createElement('div');
        made.innerHTML = '<img src="data:," onerror="window.hacked=1"><b style="color:red">b</b>';
        const script = document.createElement('script');
        script.textContent = 'window.hacked = 2';
        document.body.append(made, script);
    }""")
    opened.value("fetch('http://127.0.0.1:1/').catch(() => 0)")
    blocked = [text for text in opened.complaints if "Content Security Policy" in text]
    for directive in ("script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"):
        assert any(directive in text for text in blocked), directive
    assert opened.value("window.hacked") is None


def test_the_keyboard_reaches_everything_in_order(staged: Staged, tab: OpenTab) -> None:
    staged.show(bad_facts())
    opened = tab(staged.port)
    opened.show()
    expected = opened.value(f"{FOCUSABLE}.map((node) => node.outerHTML)")
    assert len(expected) > 12
    reached = []
    for _ in expected:
        opened.page.keyboard.press("Tab")
        reached.append(opened.value("document.activeElement.outerHTML"))
        outline = opened.value("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", reached[-1]
    assert reached == expected


def test_the_way_round_the_navigation(staged: Staged, tab: OpenTab) -> None:
    opened = tab(staged.port)
    opened.show()
    opened.page.keyboard.press("Tab")
    assert opened.value("document.activeElement.textContent") == "Skip to the facts"
    opened.page.keyboard.press("Enter")
    opened.until("document.activeElement.id === 'facts'")


def test_focus_and_selection_outlive_an_update(staged: Staged, tab: OpenTab) -> None:
    staged.show(bad_facts())
    opened = tab(staged.port)
    opened.show()
    opened.page.locator(".concerns a").nth(1).focus()
    opened.value("window.focused = document.activeElement")
    opened.value("getSelection().selectAllChildren(document.querySelector('.names .name'))")
    selected = opened.value("getSelection().toString()")
    staged.show(replace(bad_facts(), draining=False))
    opened.has("#news", "The proxy is not ready")
    assert opened.value("document.activeElement === window.focused && focused.isConnected") is True
    assert opened.value("getSelection().toString()") == selected != ""


def test_only_changes_are_announced(staged: Staged, tab: OpenTab) -> None:
    opened = tab(staged.port)
    opened.show()
    assert opened.value("document.getElementById('news').getAttribute('role')") == "status"
    staged.show(replace(staged.facts_now, wall_now=staged.facts_now.wall_now + 7))
    opened.await_update()
    opened.has("#names", "12 s ago")
    assert opened.page.locator("#news").inner_text() == ""
    staged.show(good_facts("10.94.205.199"))
    opened.has("#news", f"{REGISTRY.removesuffix('.')} is 10.94.205.199.")


@pytest.mark.parametrize(("motion", "expected"), [("reduce", "none"), ("no-preference", "changed")])
def test_motion_is_as_wanted(staged: Staged, tab: OpenTab, motion: str, expected: str) -> None:
    opened = tab(staged.port, reduced_motion=motion)
    opened.show()
    staged.show(good_facts("10.94.205.199"))
    opened.page.wait_for_selector(".changed")
    assert opened.value("getComputedStyle(document.querySelector('.changed')).animationName") == expected


def test_charts_have_words(staged: Staged, tab: OpenTab) -> None:
    opened = tab(staged.port)
    opened.show()
    charts = opened.page.get_by_role("img")
    assert charts.count() == 7
    text = "1,770 queries in the last hour, 59 in the busiest minute, 59 in this one"
    assert charts.first.get_attribute("aria-label") == text
    assert opened.page.get_by_role("img", name="no answers from stale in the last hour").count() == 1


def test_tables_stay_tables_on_a_phone(staged: Staged, tab: OpenTab) -> None:
    opened = tab(staged.port, width=PHONE)
    opened.show()
    table = opened.page.get_by_role("table", name="Names that this proxy answers itself")
    heads = table.get_by_role("columnheader").all_inner_texts()
    assert heads == ["Name", "Learned", "Address", "Route", "Probe"]
    assert table.get_by_role("rowheader").count() == 1
    assert table.get_by_role("cell").count() == 4


def test_a_browser_gives_the_token_as_its_password(tab: OpenTab, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token\n")
    with Staged(AdminSettings(token_file=token)) as guarded:
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
            tab(guarded.port, complains=True).show()
        opened = tab(guarded.port, http_credentials={"username": "anybody", "password": "a-token"})
        opened.show()
        opened.is_link("live")
        # The script's own questions carry it too.
        guarded.show(good_facts("10.94.205.199"))
        opened.has("#names", "10.94.205.199")


def test_another_version_is_loaded_whole(staged: Staged, tab: OpenTab) -> None:
    opened = tab(staged.port)
    opened.show()
    # As if the page in the browser were of the version before.
    source = opened.page.request.get(f"{opened.origin}/static/status.js").text()
    assert source.count("dataset.build !== build") == 1
    older = source.replace("document.documentElement.dataset.build;", '"older";')
    opened.page.route("**/status.js", lambda route: route.fulfill(body=older, content_type="text/javascript"))
    opened.page.reload()
    opened.page.unroute("**/status.js")
    with opened.page.expect_event("load", timeout=PATIENCE):
        pass
    opened.is_link("live")
