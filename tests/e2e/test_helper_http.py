"""The helper's HTTP endpoint as any client sees it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from dnsproxy.core import seal
from dnsproxy.keys import read_trusted_keys
from tests.e2e.processes import run_command, wait_for
from tests.e2e.world import ADDRESSES, AUTH, REGISTRY, STORAGE, Page, World, fetch

pytestmark = pytest.mark.e2e


@pytest.fixture
def helped(world: World) -> World:
    """Only the source region: its resolver and the helper, with a first snapshot."""
    world.source.start()
    world.start_helper()
    wait_for(lambda: world.snapshot().status == 200, "the first snapshot is published")
    return world


def addresses(world: World, document: bytes) -> dict[str, tuple[str, ...]]:
    snapshot = seal.verify(document.decode(), read_trusted_keys([world.public_key]))
    return {entry.name.removesuffix("."): entry.addresses for entry in snapshot.names}


def test_snapshot_is_signed_and_holds_what_the_resolver_says(helped: World) -> None:
    page = helped.snapshot()
    assert page.headers["Content-Type"] == "application/jose"
    assert addresses(helped, page.body) == {
        REGISTRY: (ADDRESSES[REGISTRY],),
        AUTH: (ADDRESSES[AUTH],),
        STORAGE: (ADDRESSES[STORAGE],),
        f"*.{STORAGE}": (ADDRESSES[STORAGE],),
    }


def test_etag_of_the_current_snapshot_gives_304_without_a_body(helped: World) -> None:
    def current() -> Page | None:
        page = helped.snapshot()
        # The tag changes with each round, so one may come in between.
        again = helped.snapshot(If_None_Match=page.headers["ETag"])
        return again if again.status == 304 else None

    again = wait_for(current, "the same snapshot was asked for twice")
    assert again.body == b""


def test_old_etag_gives_the_snapshot(helped: World) -> None:
    assert helped.snapshot(If_None_Match='"1-1"').status == 200


def test_wait_holds_the_request_until_an_address_changes(helped: World) -> None:
    serial = current_serial(helped)
    # Without a change it ends at its timeout, with the same serial.
    page = helped.snapshot(f"?wait={serial}&timeout=0.2")
    assert addresses(helped, page.body)[REGISTRY] == (ADDRESSES[REGISTRY],)
    # `fetch` gives up long before this one would end by itself.
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(helped.snapshot, f"?wait={serial}&timeout=100")
        helped.source.replace(REGISTRY, "A 10.94.205.199")
        assert waiting.result().status == 200
    assert current_serial(helped) > serial
    # The helper may have looked, and published, while the name had no record at all.
    wait_for(
        lambda: addresses(helped, helped.snapshot().body)[REGISTRY] == ("10.94.205.199",),
        "the new address is published",
    )


def current_serial(world: World) -> int:
    return int(fetch(world.helper_port, "/health").json()["serial"])


def test_curl_reads_the_snapshot_and_its_tag(helped: World) -> None:
    url = f"http://127.0.0.1:{helped.helper_port}/v1/snapshot"
    done = run_command("curl", "--silent", "--show-error", "--fail", "--include", url)
    assert done.returncode == 0, done.stderr
    head, _, body = (
        done.stdout.partition("\n\n") if "\r" not in done.stdout else done.stdout.partition("\r\n\r\n")
    )
    assert "etag:" in head.lower()
    assert body.count(".") == 2


def test_health_tells_when_the_resolver_is_gone(helped: World) -> None:
    assert fetch(helped.helper_port, "/health").json()["status"] == "ok"
    helped.source.process.kill()
    wait_for(
        lambda: fetch(helped.helper_port, "/health").json()["status"] == "degraded", "the helper is degraded"
    )
    # Never fewer addresses because of a failure.
    assert addresses(helped, helped.snapshot().body)[REGISTRY] == (ADDRESSES[REGISTRY],)


def test_publish_file_holds_the_same_kind_of_snapshot(world: World) -> None:
    published = world.folder / "published.jws"
    world.configure(helper={"publish_file": str(published)})
    world.source.start()
    world.start_helper()
    wait_for(published.exists, "the file is written")
    assert addresses(world, published.read_bytes())[AUTH] == (ADDRESSES[AUTH],)


def test_token_is_asked_for(world: World) -> None:
    token = world.folder / "token"
    token.write_text("s3cret-token\n")
    world.configure(helper={"token_file": str(token)})
    world.configure(
        learn={"sources": [{**world.configuration()["learn"]["sources"][0], "token_file": str(token)}]}
    )
    world.source.start()
    world.start_helper()
    assert world.snapshot().status == 401
    assert world.snapshot(Authorization="Bearer wrong").status == 401
    wait_for(lambda: world.snapshot(Authorization="Bearer s3cret-token").status == 200, "the token opens")
    world.start_proxy()
    world.wait_ready()
    assert world.server.short(REGISTRY) == [ADDRESSES[REGISTRY]]
    assert "s3cret" not in json.dumps([world.proxy.text(), world.helper.text()])
