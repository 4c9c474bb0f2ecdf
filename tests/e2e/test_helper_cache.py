"""The helper behind a cache: a real nginx between it and its readers, in its plain configuration for that."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dnsproxy.core import seal
from dnsproxy.keys import read_trusted_keys
from tests.e2e.processes import Process, accepts, wait_for
from tests.e2e.world import ADDRESSES, REGISTRY, Page, World, fetch
from tests.needs import need_programs

pytestmark = pytest.mark.e2e

PULLS = 1000


class Cache:
    """nginx as it is set up as a cache, with a log of what it answered from where."""

    def __init__(self, world: World) -> None:
        need_programs("the helper behind a cache is not tried", "nginx")
        folder = world.folder / "cache"
        folder.mkdir()
        self.port = world.take_port()
        self.log = folder / "answers.log"
        (folder / "nginx.conf").write_text(self._settings(folder, world.helper_port))
        argv: list[str | Path] = ["nginx", "-e", "stderr", "-p", f"{folder}/", "-c", folder / "nginx.conf"]
        self.process = Process("nginx", argv, folder / "nginx.log")
        world.add_process(self.process)
        self.process.start(lambda: accepts(self.port))

    def _settings(self, folder: Path, helper: int) -> str:
        return f"""
            # One process, whose end is the end of all of it.
            daemon off; master_process off; user root; pid nginx.pid;
            events {{ }}
            http {{
              log_format answers '$status $upstream_cache_status $request_uri';
              access_log {self.log} answers;
              client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp;
              uwsgi_temp_path temp; scgi_temp_path temp;
              proxy_cache_path {folder}/held keys_zone=snapshots:1m;
              server {{
                listen 127.0.0.1:{self.port};
                location / {{
                  proxy_pass http://127.0.0.1:{helper};
                  proxy_cache snapshots;
                  proxy_cache_lock on;
                  proxy_cache_revalidate on;
                }}
              }}
            }}
        """

    def get(self, path: str = "/v1/snapshot", **headers: str) -> Page:
        return fetch(self.port, path, {key.replace("_", "-"): value for key, value in headers.items()})

    def answers(self, path: str = "/v1/snapshot") -> Counter[str]:
        """How often it answered from where, in nginx's words; what is not HIT or STALE went to the helper."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return Counter(where for _, where, uri in lines if uri == path)


@pytest.fixture
def cached(world: World) -> tuple[World, Cache]:
    world.source.start()
    world.upstream.start()
    world.start_helper()
    wait_for(lambda: world.snapshot().status == 200, "the first snapshot is published")
    return world, Cache(world)


def serial_of(world: World, page: Page) -> int:
    return seal.verify(page.body.decode(), read_trusted_keys([world.public_key])).serial


def source_of(world: World) -> dict[str, Any]:
    (source,) = world.admin("/api/v1/status").json()["sources"]
    found: dict[str, Any] = source
    return found


def test_a_thousand_pulls_are_a_handful_of_requests_at_the_helper(cached: tuple[World, Cache]) -> None:
    world, cache = cached
    tag = cache.get().headers["ETag"]
    # nginx writes a request down after it has answered it.
    wait_for(lambda: cache.answers().total() == 1, "the first pull is written down")
    before = cache.answers()
    with ThreadPoolExecutor(20) as pool:
        # As a fleet pulls: half of it has the document already.
        pages = list(pool.map(lambda n: cache.get(**({"If_None_Match": tag} if n % 2 else {})), range(PULLS)))
    wait_for(lambda: (cache.answers() - before).total() >= PULLS, "every pull is written down")
    answers = cache.answers() - before
    assert {page.status for page in pages} <= {200, 304}
    assert len({serial_of(world, page) for page in pages if page.status == 200}) == 1
    assert sum(answers.values()) == PULLS
    # Every five seconds the cache asks anew; on the busiest machine this takes less than a minute.
    assert PULLS - answers["HIT"] <= 12, answers


def test_a_change_comes_through_when_the_cache_asks_again(cached: tuple[World, Cache]) -> None:
    world, cache = cached
    first = serial_of(world, cache.get())
    world.source.replace(REGISTRY, "A 10.94.205.199")
    wait_for(lambda: serial_of(world, cache.get()) > first, "the cache has the changed snapshot")


def test_questions_that_wait_and_errors_are_never_kept(cached: tuple[World, Cache]) -> None:
    _, cache = cached
    for path in ("/v1/snapshot?wait=0", "/v1/snapshot?wait=x", "/nothing"):
        for _ in range(3):
            assert cache.get(path).headers["Cache-Control"] == "no-store"
        # nginx writes a request down after it has answered it.
        wait_for(lambda asked=path: cache.answers(asked) == {"MISS": 3}, f"{path} went to the helper thrice")  # type: ignore[misc]


def test_with_a_token_a_shared_cache_keeps_nothing(world: World) -> None:
    token = world.folder / "token"
    token.write_text("of-the-proxies\n")
    token.chmod(0o600)
    world.configure(helper={"token_file": str(token)})
    world.source.start()
    world.start_helper()
    cache = Cache(world)
    wait_for(lambda: cache.get(Authorization="Bearer of-the-proxies").status == 200, "a snapshot is there")
    for _ in range(3):
        assert cache.get(Authorization="Bearer of-the-proxies").status == 200
        assert cache.get().status == 401
    assert "HIT" not in cache.answers()


def test_a_dead_helper_is_not_noticed_by_proxies_behind_a_cache(cached: tuple[World, Cache]) -> None:
    world, cache = cached
    url = f"http://127.0.0.1:{cache.port}/v1/snapshot"
    world.configure(learn={"sources": [{"url": url, "long_poll": False}]})
    world.start_proxy()
    world.wait_ready()
    serial = source_of(world)["serial"]
    world.helper.kill()
    wait_for(lambda: cache.answers()["STALE"] >= 3, "the cache answers for the helper")
    page = cache.get()
    assert page.status == 200
    assert serial_of(world, page) == serial
    # The proxy goes on with what it has, finds nothing wrong with its source, and tells how old that is.
    source = source_of(world)
    assert (source["serial"], source["last_error"]) == (serial, None)
    assert not world.proxy.events("learned.source_failed")
    assert world.server.short(REGISTRY) == [ADDRESSES[REGISTRY]]
    age = f'dnsproxy_learned_age_seconds{{name="{REGISTRY}."}}'
    wait_for(lambda: world.metric(age) > 5, "the age of the address grows")
    # A proxy that starts now learns all the same.
    world.proxy.kill()
    world.state_file.unlink()
    world.start_proxy()
    world.wait_ready()
    assert source_of(world)["serial"] == serial
    # And the helper that is back is heard again.
    world.source.replace(REGISTRY, "A 10.94.205.199")
    world.start_helper()
    wait_for(lambda: world.server.short(REGISTRY) == ["10.94.205.199"], "what changed meanwhile is answered")
