from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.backend import files as backend_files
from bench.names import OWNED
from bench.servers import SERVERS, Server, Site
from dnsproxy import config

SITE = Site(Path("/somewhere"), 5301, 5302, 5303, cache_entries=1234)
_ADDRESS = re.compile(r"(?<![\d.])(\d+\.\d+\.\d+\.\d+)(?![\d./])")


def by_name(name: str) -> Server:
    return next(server for server in SERVERS if server.name == name)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: str(server.name))
def test_every_server_knows_every_owned_name_and_the_ports(server: Server) -> None:
    text = "\n".join(server.files(SITE).values())

    assert [entry for entry in OWNED if entry.name not in text or entry.address not in text] == []
    assert "5301" in text
    assert "5302" in text


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: str(server.name))
def test_every_server_listens_on_and_forwards_to_loopback_only(server: Server) -> None:
    owned = {entry.address for entry in OWNED}
    addresses = {found for text in server.files(SITE).values() for found in _ADDRESS.findall(text)}

    assert addresses - owned == {"127.0.0.1"}


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: str(server.name))
def test_every_command_reads_the_files_of_its_site(server: Server) -> None:
    assert any(str(SITE.directory) in part for part in server.command(SITE))


def test_the_configuration_of_dnsproxy_is_valid_and_complete() -> None:
    settings = config.parse(by_name("dnsproxy").files(SITE)["config.yaml"])

    assert {(entry.name.rstrip("."), *entry.addresses) for entry in settings.wanted()} == set(OWNED)
    assert settings.cache.size == 1234
    assert settings.admin.listen is not None
    assert settings.serve.allow == config.parse("{}").serve.allow


def test_the_backend_answers_any_name() -> None:
    files = backend_files(SITE.directory, 5302)

    assert "listen: 127.0.0.1@5302" in files["knot.conf"]
    assert re.search(r"^\* A \d+", files["root.zone"], re.MULTILINE)
