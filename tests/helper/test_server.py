"""Other settings for a helper that runs, over real sockets; tests/helper/test_publish.py has the endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from dnsproxy.core import seal
from dnsproxy.core.learned import Snapshot
from dnsproxy.errors import StartError
from dnsproxy.helper.server import Generation, HelperServer
from dnsproxy.keys import read_trusted_keys, write_key_pair
from dnsproxy.settings import Settings
from dnsproxy.settings.learning import TlsSettings
from dnsproxy.settings.registries import NameSettings, RegistrySettings
from tests.fakes.nameserver import Nameserver, closed_port, zone
from tests.helper.test_publish import settings_for, write_certificate

ZONE = "auth.example. 60 A 192.0.2.1\nother.example. 60 A 192.0.2.2"


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[HelperServer, str]]:
    """Serve while the context lasts; gives the server and its URL."""
    server, stop = HelperServer(settings), asyncio.Event()
    port = (await server.start()).port
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(server.run(stop))
        try:
            yield server, f"http://127.0.0.1:{port}/v1/snapshot"
        finally:
            stop.set()


def with_names(settings: Settings, *names: str) -> Settings:
    listed = [NameSettings(name=name) for name in names]
    return settings.model_copy(
        update={"registries": [RegistrySettings(name="r", provider="generic", names=listed)]}
    )


def with_helper(settings: Settings, **options: object) -> Settings:
    return settings.model_copy(update={"helper": settings.helper.model_copy(update=options)})


async def get(url: str, folder: Path, token: str | None = None) -> Snapshot:
    """The snapshot at ``url``, which must be there."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        return seal.verify(await response.text(), read_trusted_keys([folder / "helper.pub"]))


async def test_other_names_and_another_token_are_in_force_without_a_gap(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token\n")
    token.chmod(0o600)
    async with Nameserver(zone(ZONE)) as resolver:
        settings = with_names(settings_for(tmp_path, resolver.endpoint), "auth.example")
        async with running(settings) as (server, url):
            first = await get(url, tmp_path)
            waiting = asyncio.create_task(get(f"{url}?wait={first.serial}&timeout=60", tmp_path))
            while server._api is None or not server._api._waiters:
                await asyncio.sleep(0.01)
            other = with_helper(with_names(settings, "auth.example", "other.example"), token_file=token)
            await server.change(other)
            # What was published last is given until the first round of the new settings has ended.
            assert (await get(url, tmp_path, "a-token")).serial >= first.serial
            later = await get(f"{url}?wait={first.serial}&timeout=60", tmp_path, "a-token")
            assert later.serial > first.serial
            assert [entry.name for entry in later.names] == ["auth.example.", "other.example."]
            # One that waited when the settings changed was answered.
            assert (await waiting).serial >= first.serial
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert response.status == 401
            assert server.settings is other


async def test_the_same_settings_again_make_no_new_serial(tmp_path: Path) -> None:
    async with Nameserver(zone(ZONE)) as resolver:
        settings = with_names(settings_for(tmp_path, resolver.endpoint), "auth.example")
        async with running(settings) as (server, url):
            first = await get(url, tmp_path)
            asked = resolver.total
            await server.change(settings)
            while resolver.total == asked:
                await asyncio.sleep(0.01)
            assert (await get(url, tmp_path)).serial == first.serial


async def test_a_certificate_is_taken_for_the_next_connection(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path / "server")
    async with Nameserver(zone(ZONE)) as resolver:
        settings = settings_for(tmp_path, resolver.endpoint)
        async with running(settings) as (server, url):
            await get(url, tmp_path)
            await server.change(with_helper(settings, tls=TlsSettings(cert_file=cert, key_file=key)))
            with pytest.raises(aiohttp.ClientError):
                await get(url, tmp_path)


async def test_every_mistake_is_reported_and_nothing_changes(tmp_path: Path) -> None:
    async with Nameserver(zone(ZONE)) as resolver:
        settings = with_names(settings_for(tmp_path, resolver.endpoint), "auth.example")
        async with running(settings) as (server, url):
            first = await get(url, tmp_path)
            none = tmp_path / "none"
            wrong = with_helper(settings, token_file=none, signing_key_file=none)
            with pytest.raises(StartError) as caught:
                await server.change(wrong)
            assert len(caught.value.reasons) == 2
            assert (await get(url, tmp_path)).serial == first.serial
            assert server.settings is settings


def test_what_a_configuration_makes_opens_nothing(tmp_path: Path) -> None:
    write_key_pair(tmp_path)
    settings = settings_for(tmp_path, closed_port())
    with capture_logs() as logs:
        made = Generation.make(settings)
    assert logs == []
    assert (made.token, made.guarded) == (None, False)
