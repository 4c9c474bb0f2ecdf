"""The proxy as an object, with a real helper's document in a file as its source."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dnsproxy import config
from dnsproxy.app import Proxy
from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.errors import StartError
from dnsproxy.keys import read_private_key, write_key_pair
from dnsproxy.server import Server
from dnsproxy.settings import Settings
from dnsproxy.settings.learning import SourceSettings
from dnsproxy.settings.values import Endpoint, parse_source
from tests.fakes.nameserver import Nameserver, zone
from tests.strategies import learned

pytestmark = pytest.mark.usefixtures("collector")

NAME = "abc-registry-vpc.cn-hangzhou.cr.aliyuncs.com."


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_key_pair(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return config.parse(
        f"""
registries: [{{name: hz, region: cn-hangzhou, instance: abc, auth: none, storage: none}}]
learn:
  sources: [{{url: "file://{tmp_path}/snapshot"}}]
  trusted_keys: [{tmp_path}/helper.pub]
  state_file: {tmp_path}/state/learned.jws
  refresh: 100ms
  verify: {{ports: []}}
serve: {{listen: ["127.0.0.1:{port}"]}}
forward: {{upstreams: ["127.0.0.1:9"]}}
admin: {{listen: null}}
"""
    )


def publish(folder: Path, address: str, serial: int) -> None:
    now = int(time.time())
    entry = learned(NAME, (address,), observed_at=now)
    document = Snapshot("helper-a", serial, now, now + 86_400, (entry,))
    (folder / "snapshot").write_text(seal.sign(document, read_private_key(folder / "helper.key")))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def served(proxy: Proxy) -> tuple[str, ...]:
    assert isinstance(proxy.plane, Server)
    return next(owned.addresses for owned in proxy.plane.engine.rules.owned())


async def test_it_learns_follows_a_change_and_starts_again_from_disk(
    settings: Settings, tmp_path: Path
) -> None:
    proxy = Proxy(settings)
    await proxy.start()
    stop = asyncio.Event()
    running = asyncio.ensure_future(proxy.run(stop))
    assert proxy.facts().missing() == [NAME]
    for serial, address in ((1, "10.0.0.1"), (2, "10.0.0.2")):
        publish(tmp_path, address, serial)
        await proxy.refresh()
        await until(lambda expected=address: served(proxy) == (expected,))  # type: ignore[misc]
    facts = proxy.facts()
    assert (facts.missing(), facts.table.serial, facts.draining) == ([], 2, False)
    stop.set()
    await running
    await proxy.close()
    (tmp_path / "snapshot").unlink()

    again = Proxy(settings)
    await again.start()
    assert served(again) == ("10.0.0.2",)
    assert await again.flush(None) == 0
    await again.close()
    assert again.facts().draining


async def test_a_source_address_that_is_absent_is_reported_and_keeps_nothing_from_starting(
    settings: Settings,
) -> None:
    def using(source: str | None) -> Settings:
        found = None if source is None else parse_source(source)
        return settings.model_copy(update={"forward": settings.forward.model_copy(update={"source": found})})

    proxy = Proxy(using("192.0.2.99"))
    with capture_logs() as logs:
        await proxy.start()
        await proxy.change(using("absent0"))
        await proxy.change(using("127.0.0.1"))
        await proxy.change(using(None))
    await proxy.close()
    told = [(e["source"], e["reason"]) for e in logs if e["event"] == "upstream.source_unusable"]
    assert told == [("192.0.2.99", "Cannot assign requested address"), ("absent0", "No such device")]


async def test_cancelling_it_leaves_no_task_behind(settings: Settings) -> None:
    proxy = Proxy(settings)
    await proxy.start()
    before = asyncio.all_tasks()
    running = asyncio.ensure_future(proxy.run(asyncio.Event()))
    await until(lambda: any(source.last_attempt for source in proxy.puller.statuses))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == before
    await proxy.close()


async def test_a_change_leaves_nothing_of_what_was_before(settings: Settings) -> None:
    """Else each reload keeps a megabyte until the collector happens to come by, after days."""
    proxy = Proxy(settings)
    await proxy.start()
    stop = asyncio.Event()
    running = asyncio.ensure_future(proxy.run(stop))
    # What is there now is frozen with all that start-up made.
    await proxy.change(settings)
    await until(lambda: proxy.puller.statuses[0].last_attempt is not None)
    before: list[weakref.ref[object]] = [weakref.ref(proxy.puller), weakref.ref(proxy._learning)]
    gc.disable()
    try:
        await proxy.change(settings)
        await until(lambda: not any(held() for held in before))
    finally:
        gc.enable()
        stop.set()
        await running
        await proxy.close()


async def test_it_looks_itself_and_starts_again_from_what_it_saw(settings: Settings, tmp_path: Path) -> None:
    async with Nameserver(zone(f"{NAME} 60 A 10.0.0.7")) as resolver:
        sources = [SourceSettings(url=f"dns://{resolver.endpoint}")]
        learn = settings.learn.model_copy(update={"sources": sources, "trusted_keys": []})
        settings = settings.model_copy(update={"learn": learn})
        proxy = Proxy(settings)
        await proxy.start()
        running = asyncio.ensure_future(proxy.run(asyncio.Event()))
        await until(lambda: served(proxy) == ("10.0.0.7",))
        asked = resolver.total
        resolver.handle = zone(f"{NAME} 60 A 10.0.0.8")
        (result,) = await proxy.refresh()
        assert resolver.total > asked
        assert (result.error, result.serial) == (None, proxy.addresses.lifecycle.serial)
        assert proxy.addresses.lifecycle.owned(NAME).learned.addresses == ("10.0.0.8",)  # type: ignore[union-attr]
        await until(lambda: served(proxy) == ("10.0.0.8",))
        resolver.handle = zone("")
        (result,) = await proxy.refresh()
        assert result.error == f"not resolved: {NAME}"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await proxy.close()
    # The resolver is gone.
    again = Proxy(settings)
    await again.start()
    assert served(again) == ("10.0.0.8",)
    assert not list((tmp_path / "state").glob("*.bad-*"))
    await again.close()


async def test_a_state_folder_that_cannot_be_is_said_before_anything_opens(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StartError, match="learn.state_file"):
        Proxy(settings)


async def test_an_admin_port_in_use_leaves_nothing_open(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = settings.serve.listen[0]._replace(port=taken.getsockname()[1])
        admin = settings.admin.model_copy(update={"listen": listen})
        proxy = Proxy(settings.model_copy(update={"admin": admin}))
        with pytest.raises(StartError, match="admin.listen"):
            await proxy.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", settings.serve.listen[0].port))


async def test_the_last_hour_is_told_where_there_is_an_admin_endpoint(
    settings: Settings, tmp_path: Path
) -> None:
    publish(tmp_path, "10.0.0.1", 1)
    admin = settings.admin.model_copy(update={"listen": Endpoint("127.0.0.1", 0)})
    proxy = Proxy(settings.model_copy(update={"admin": admin}))
    stop = asyncio.Event()
    await proxy.start()
    assert proxy.facts().recent.minutes == ()
    running = asyncio.ensure_future(proxy.run(stop))
    await until(lambda: proxy.facts().recent.minutes != ())
    facts = proxy.facts()
    assert facts.recent.total().queries == 0
    assert (facts.ttl, facts.cache_size, facts.host) == (30, 100_000, os.uname().nodename)
    assert facts.listen == [str(listen) for listen in settings.serve.listen]
    stop.set()
    await running
    await proxy.close()
