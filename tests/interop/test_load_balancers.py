"""dnsdist names its clients by PROXY protocol: over UDP, TCP and TLS, and the access list goes by them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.e2e.world import fetch
from tests.interop.authority import PLAIN
from tests.interop.servers import Kind, Site
from tests.interop.world import OWNED, REGISTRY, World

pytestmark = pytest.mark.interop

NAME = "dns.example"
# Clients of dnsdist by the addresses that they ask from. dnsdist itself asks from BALANCER.
ALLOWED, STRANGER, BALANCER = "127.0.0.21", "127.0.0.66", "127.0.0.53"


def configuration(site: Site, options: str) -> str:
    return f"""setLocal("127.0.0.1:{site.port}")
setACL({{"127.0.0.0/8"}})
setSecurityPollSuffix("")
-- The check is sent with a LOCAL header.
newServer({{address="127.0.0.1:{site.target}", source="{BALANCER}", useProxyProtocol=true,
  checkName="www.{PLAIN}.", {options}}})
"""


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, int, Path]]:
    """A proxy that expects headers of dnsdist; its port for TLS, and the file of its authority."""
    folder = tmp_path_factory.mktemp("i")
    with World(folder) as world:
        certificate = make_certificate(folder, NAME)
        files = {"cert_file": str(certificate), "key_file": str(certificate)}
        port = world.take_port()
        world.configure(
            serve={
                "allow": [f"{ALLOWED}/32", "127.0.0.1/32", f"{BALANCER}/32"],
                "proxy_protocol": [f"{BALANCER}/32"],
                "tls": {"listen": [f"127.0.0.1:{port}"], **files},
            }
        )
        world.start()
        yield world, port, certificate


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "https"])
def test_dnsdist_names_its_clients(proxied: tuple[World, int, Path], transport: str) -> None:
    world, port, certificate = proxied
    tls = f'tls="openssl", subjectName="{NAME}", caStore="{certificate}"'
    options = {"udp": "", "tcp": "tcpOnly=true", "tls": tls, "https": f'{tls}, dohPath="/dns-query"'}
    kind = Kind(
        f"dnsdist-{transport}",
        "dnsdist.conf",
        lambda site: configuration(site, options[transport]),
        lambda file: ["dnsdist", "--supervised", "--disable-syslog", "-C", str(file)],
        validates=False,
    )
    neighbour = world.add_neighbour(kind, world.dns_port if transport in {"udp", "tcp"} else port)
    neighbour.start()
    before = refused(world)
    for over in ((), ("+tcp",)):
        assert neighbour.server.dig(REGISTRY, "-b", ALLOWED, *over).data == OWNED[REGISTRY]
        assert neighbour.server.dig(f"www.{PLAIN}", "-b", ALLOWED, *over).data == ["192.0.2.1"]
        assert neighbour.server.dig(REGISTRY, "-b", STRANGER, *over).rcode != "NOERROR"
    assert refused(world) > before
    neighbour.process.kill()


def refused(world: World) -> float:
    """Return how many messages and connections the access list has refused."""
    page = fetch(world.admin_port, "/metrics").body.decode()
    (line,) = re.findall(r'^dnsproxy_drops_total{reason="refused_client"} (.*)$', page, re.MULTILINE)
    return float(line)
