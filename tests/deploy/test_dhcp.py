"""The examples for DHCP servers, each read by its server."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, run

pytestmark = pytest.mark.deploy

DHCP = DEPLOY / "dhcp"
CHECKS = {
    "dnsmasq/dnsproxy.conf": ("dnsmasq", ["--test", "--conf-file={}"]),
    "kea/kea-dhcp4.json": ("kea-dhcp4", ["-t", "{}"]),
    "isc/dhcpd.conf": ("dhcpd", ["-t", "-cf", "{}"]),
}
# How each of them names what a client is told.
RESOLVERS = re.compile(r"(?:dns-server,|domain-name-servers(?:\", \"data\": \"| ))([\d., ]+)")


def test_there_is_a_check_for_every_file() -> None:
    files = {str(path.relative_to(DHCP)) for path in DHCP.rglob("*") if path.is_file()}
    assert files == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_the_server_takes_its_file(name: str, tool: Callable[[str], str]) -> None:
    program, arguments = CHECKS[name]
    done = run(tool(program), *(argument.format(DHCP / name) for argument in arguments))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", CHECKS)
def test_a_mistake_would_be_noticed(name: str, tool: Callable[[str], str], tmp_path: Path) -> None:
    program, arguments = CHECKS[name]
    path = tmp_path / "file.conf"
    text = (DHCP / name).read_text()
    path.write_text(re.sub(r"domain-name-servers|option:dns-server", "no-such-option", text))
    assert path.read_text() != text
    assert run(tool(program), *(argument.format(path) for argument in arguments)).returncode != 0


@pytest.mark.parametrize("name", CHECKS)
def test_clients_are_told_of_two_proxies_and_nobody_else(name: str) -> None:
    (told,) = RESOLVERS.findall((DHCP / name).read_text())
    assert [address.strip() for address in told.split(",")] == ["10.200.0.10", "10.200.0.11"]
