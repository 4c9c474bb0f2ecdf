"""Helpers inside the proxy, with a real nameserver on loopback as the source region's resolver."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dnsproxy import embedded, supervise
from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.core.registry import Found
from dnsproxy.embedded import EmbeddedHelpers
from dnsproxy.errors import FetchError, StartError
from dnsproxy.keys import local_key_path
from dnsproxy.net.fetch import Fetched, Request
from dnsproxy.settings import Settings
from dnsproxy.settings.learning import SourceSettings
from dnsproxy.settings.values import Endpoint
from tests.fakes.nameserver import Nameserver, closed_port, zone

ZONE = """
registry.example. 60 A 10.0.0.1
files.corp.internal. 60 A 10.0.0.2
ep-x.privatelink.example. 60 A 10.0.0.3
"""
NAMES = [
    {"name": "registry.example", "role": "registry"},
    # A name of PrivateZone, one behind PrivateLink, a pinned one.
    {"name": "files.corp.internal"},
    {"name": "bucket.example", "role": "storage", "cname": "ep-x.privatelink.example"},
    {"name": "mirror.example", "addresses": ["10.1.2.3"]},
]


def settings_for(folder: Path, *sources: dict[str, str], **sections: Any) -> Settings:
    learn = {"sources": list(sources), "state_file": str(folder / "learned.jws"), "trusted_keys": ["k"]}
    return Settings.model_validate(
        {"registries": [{"name": "r", "provider": "generic", "names": NAMES}], "learn": learn, **sections}
    )


async def following(helpers: EmbeddedHelpers, work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work`` while the helpers run."""
    running = asyncio.create_task(helpers.run())
    try:
        async with asyncio.timeout(20):
            await work()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def verified(helpers: EmbeddedHelpers, fetched: Fetched) -> Snapshot:
    assert fetched.token is not None
    return seal.verify(fetched.token, helpers.keys)


async def test_a_dns_source_is_looked_at_and_signed_here(tmp_path: Path) -> None:
    async with Nameserver(zone(ZONE)) as server:
        settings = settings_for(tmp_path, {"url": f"dns://{server.endpoint}"})
        helpers = EmbeddedHelpers(settings)

        async def work() -> None:
            fetched = await helpers.fetch(settings.learn.sources[0], Request())
            snapshot = verified(helpers, fetched)
            assert snapshot.issuer == f"dns://{server.endpoint}"
            assert {entry.name: (entry.addresses, entry.cname) for entry in snapshot.names} == {
                "registry.example.": (("10.0.0.1",), None),
                "files.corp.internal.": (("10.0.0.2",), None),
                "bucket.example.": (("10.0.0.3",), "ep-x.privatelink.example."),
            }
            same = await helpers.fetch(settings.learn.sources[0], Request(etag=fetched.etag))
            assert same == Fetched(None, fetched.etag)

        await following(helpers, work)
    assert stat.S_IMODE(local_key_path(settings.learn.state_file).stat().st_mode) == 0o600


async def test_a_change_ends_the_wait_of_a_pull(tmp_path: Path) -> None:
    async with Nameserver(zone(ZONE)) as server:
        settings = settings_for(tmp_path, {"url": f"dns://{server.endpoint}"}, helper={"interval": "1h"})
        source = settings.learn.sources[0]
        helpers = EmbeddedHelpers(settings)

        async def work() -> None:
            first = verified(helpers, await helpers.fetch(source, Request()))
            server.handle = zone(ZONE.replace("10.0.0.1", "10.0.0.9"))
            helpers.look_now()
            changed = await helpers.fetch(source, Request(first.serial, None, wait=15))
            assert verified(helpers, changed).names[0].addresses == ("10.0.0.9",)

        await following(helpers, work)


async def test_an_embedded_source_asks_the_resolvers_of_the_helper(tmp_path: Path) -> None:
    async with Nameserver(zone(ZONE)) as server:
        resolvers = {"resolvers": [str(server.endpoint)]}
        settings = settings_for(tmp_path, {"type": "embedded"}, helper=resolvers)
        helpers = EmbeddedHelpers(settings)

        async def work() -> None:
            snapshot = verified(helpers, await helpers.fetch(settings.learn.sources[0], Request()))
            assert (snapshot.issuer, snapshot.names[0].addresses) == ("embedded", ("10.0.0.1",))

        await following(helpers, work)


async def test_sources_from_elsewhere_are_fetched_as_ever(tmp_path: Path) -> None:
    (tmp_path / "published").write_text("a token")
    settings = settings_for(tmp_path, {"url": f"file://{tmp_path}/published"}, {"type": "embedded"})
    helpers = EmbeddedHelpers(settings.model_copy(update={"registries": []}))
    fetched = await helpers.fetch(settings.learn.sources[0], Request())
    assert fetched == Fetched("a token", fetched.etag)
    (tmp_path / "published").write_text("another")
    async with asyncio.timeout(20):
        await helpers.changed(settings.learn.sources[0])


async def test_before_the_first_look_has_ended_a_pull_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "FIRST_WAIT", 0.05)
    settings = settings_for(tmp_path, {"url": "dns://127.0.0.1:9"})
    with pytest.raises(FetchError, match=r"^dns://127\.0\.0\.1:9: no look has ended yet$"):
        await EmbeddedHelpers(settings).fetch(settings.learn.sources[0], Request())


async def test_after_a_restart_serials_and_findings_go_on(tmp_path: Path) -> None:
    closed = closed_port()
    settings = settings_for(tmp_path, {"url": f"dns://{closed}"})
    registry = settings.registries[0].model_copy(update={"auth": "discover"})
    settings = settings.model_copy(update={"registries": [registry]})
    first = EmbeddedHelpers(settings)
    told = (Found("r", "auth", ("auth.example.",), 1000),)
    held = Snapshot(f"dns://{closed}", 2**62, 1000, 2000, (), told)
    again = EmbeddedHelpers(settings)
    assert first.keys.keys() == again.keys.keys()
    again.resume([held])

    async def work() -> None:
        snapshot = verified(again, await again.fetch(settings.learn.sources[0], Request()))
        assert (snapshot.found, snapshot.serial > held.serial) == (told, True)
        assert "auth.example." in {entry.name for entry in snapshot.names}

    await following(again, work)


@pytest.mark.parametrize(
    ("listen", "resolver", "own"),
    [
        ("127.0.0.1:5300", "127.0.0.1:5300", True),
        ("0.0.0.0:5300", "127.0.0.1:5300", True),
        ("[::]:5300", "[::1]:5300", True),
        ("0.0.0.0:5300", "127.0.0.1:5301", False),
        ("0.0.0.0:5300", "10.0.0.5:5300", False),
        ("127.0.0.1:5300", "127.0.0.2:5300", False),
    ],
)
def test_a_proxy_does_not_learn_from_itself(tmp_path: Path, listen: str, resolver: str, *, own: bool) -> None:
    settings = settings_for(tmp_path, {"url": f"dns://{resolver}"}, serve={"listen": [listen]})
    if not own:
        EmbeddedHelpers(settings)
        return
    with pytest.raises(StartError, match="own listening address"):
        EmbeddedHelpers(settings)


def test_a_key_that_cannot_be_used_is_a_start_error(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, {"url": "dns://127.0.0.1:9"})
    local_key_path(settings.learn.state_file).write_text("no key")
    with pytest.raises(StartError, match="learned.jws.key"):
        EmbeddedHelpers(settings)


async def test_a_mistake_of_ours_is_told_and_the_helper_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "FIRST_SECONDS", 0.01)
    settings = settings_for(tmp_path, {"url": "dns://127.0.0.1:9"})
    helpers = EmbeddedHelpers(settings)
    runs = 0
    twice = asyncio.Event()

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            twice.set()
        raise ZeroDivisionError

    async def work() -> None:
        await twice.wait()

    (helper,) = helpers._helpers.values()
    monkeypatch.setattr(helper, "run", run)
    with capture_logs() as logs:
        await following(helpers, work)
    assert {(entry["event"], entry["task"], entry["detail"]) for entry in logs} == {
        ("task.failed", "embedded helper", "dns://127.0.0.1:9")
    }


def test_the_key_stands_beside_the_state(tmp_path: Path) -> None:
    assert local_key_path(tmp_path / "learned.jws") == tmp_path / "learned.jws.key"
    assert SourceSettings(type="embedded").resolver is None
    assert Endpoint("10.0.0.5", 53) == SourceSettings(url="dns://10.0.0.5").resolver
