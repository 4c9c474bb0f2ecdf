"""The status page of a real proxy in a real browser: what it shows, and that it keeps up."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.tab import PATIENCE, Tab
from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, AUTH, OTHER, REGISTRY, World

pytestmark = pytest.mark.browser

OpenTab = Callable[..., Tab]
MOVED = "10.94.205.199"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which every name is learned; each test leaves it so, with whatever addresses."""
    with World(tmp_path_factory.mktemp("w")) as made:
        made.start()
        yield made


def test_the_facts_are_there_without_a_script(world: World, tab: OpenTab) -> None:
    assert world.server.dig(OTHER).rcode == "NOERROR"
    opened = tab(world.admin_port, java_script_enabled=False)
    opened.show()
    opened.has("#link", "Reload for newer.")
    opened.has("h1", "Ready")
    for name in ADDRESSES:
        opened.has("#names", name)
        (address,) = world.server.dig(name).data
        opened.has("#names", address)
    opened.has("#sources", f"http://127.0.0.1:{world.helper_port}/v1/snapshot")
    opened.has("#sources", "helper-e2e")
    opened.has("#upstreams", f"127.0.0.1:{world.upstream.endpoint.rpartition(':')[2]}")
    opened.has("#changes", "first learned")
    opened.has("#cache", "of 100,000")
    opened.has("footer", f"answers on 127.0.0.1:{world.dns_port}")


def test_a_changed_address_appears_without_a_reload(world: World, tab: OpenTab) -> None:
    opened = tab(world.admin_port)
    opened.show()
    (before,) = world.server.dig(REGISTRY).data
    opened.has("#names", before)
    opened.value("window.kept = true")
    world.source.replace(REGISTRY, f"A {MOVED}")
    opened.has("#names", MOVED)
    opened.has("#news", f"{REGISTRY} is {MOVED}.")
    opened.has("#changes tbody tr:first-child", MOVED)
    opened.has("#changes tbody tr:first-child del", before)
    assert before not in opened.section("names").inner_text()
    assert opened.value("window.kept") is True


def test_a_lost_connection_is_shown_and_so_is_its_return(world: World, tab: OpenTab) -> None:
    # A browser writes to its console what it cannot reach.
    opened = tab(world.admin_port, complains=True)
    opened.show()
    opened.is_link("live")
    world.proxy.kill()
    opened.is_link("lost")
    opened.has("#link", "Connection lost: the proxy does not answer. Shown as of ")
    opened.has("#news", "Connection lost")
    assert opened.page.locator("#link").is_visible()
    assert Axe().run(opened.page).response["violations"] == []
    # What was known stays, and the tries come ever later.
    opened.has("#names", REGISTRY)
    waits = {int(opened.page.locator("#link").inner_text().partition("Next try in ")[2].split()[0])}

    def waits_longer() -> bool:
        text = opened.page.locator("#link").inner_text()
        waits.add(int(text.partition("Next try in ")[2].split()[0]))
        return max(waits) > 3

    wait_for(waits_longer, "the tries come later")
    world.start_proxy()
    opened.is_link("live")
    opened.has("#news", "Connected again.")
    assert all("ERR_CONNECTION_REFUSED" in text for text in opened.complaints), opened.complaints


def test_queries_are_counted_and_rated(world: World, tab: OpenTab) -> None:
    opened = tab(world.admin_port)
    opened.show()
    for _ in range(3):
        assert world.server.dig(REGISTRY).rcode == "NOERROR"
    opened.until(
        "[...document.querySelectorAll('#answers svg')].some((chart) => "
        "/^[1-9][0-9]* answers from learned in the last hour/.test(chart.getAttribute('aria-label')))"
    )
    opened.until("/^[0-9]/.test(document.querySelector('.figures dd').textContent)")


def test_pins_and_a_freeze(world: World, tab: OpenTab) -> None:
    opened = tab(world.admin_port)
    opened.show()
    assert world.command("pin", AUTH, "10.7.7.7").returncode == 0
    assert world.command("freeze").returncode == 0
    opened.has("#orders", f"{AUTH} to 10.7.7.7 since")
    opened.has("#orders", "names keep what they have since")
    opened.has("#names", "pinned by an order")
    opened.has("#attention", "what is learned anew is not taken")
    assert world.command("unfreeze").returncode == 0
    assert world.command("unpin", AUTH).returncode == 0
    expect(opened.section("orders")).to_have_count(0, timeout=PATIENCE)
