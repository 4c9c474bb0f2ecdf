"""Resolvers that are named for whole networks: DHCP as in deploy/dhcp, and a forward rule as of PrivateZone.

DHCP is real on both sides. The rule is a stand-in: unbound, at the address of the VPC's resolver, forwards
the zones of the page. Whether PrivateZone takes such a rule it cannot show.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import yaml

from tests.e2e.processes import Process, dnsproxy_argv, find_program
from tests.netns.placements import (
    DEPLOY,
    HOWTO,
    VPC_RESOLVERS,
    Place,
    Remote,
    blocks,
    quick_start,
    remote_side,
)
from tests.netns.region import AUTH, REGISTRY, REGISTRY_ADDRESS, STORAGE
from tests.netns.world import IDC_ADDRESS, World

pytestmark = [pytest.mark.netns]

# The second one of deploy/dhcp; the first one is the world's IDC_ADDRESS.
SECOND_ADDRESS = "10.200.0.11"


@pytest.fixture(scope="module")
def remote(shared: World) -> Iterator[Remote]:
    with remote_side(shared) as made:
        yield made


def configure(place: Place) -> None:
    """Give a proxy the quick start's configuration, with `serve` and `forward` of the page on DHCP."""
    (snippet,) = blocks("dhcp-options.md", "yaml")
    place.write("dnsproxy/config.yaml", json.dumps(yaml.safe_load(quick_start()) | yaml.safe_load(snippet)))
    place.write("dnsproxy/helper.pub", place.world.public_key.read_text())


SERVE = ("serve", "--config", "/etc/dnsproxy/config.yaml")


class Lan(NamedTuple):
    """Both proxies on one network, with a DHCP server on the first one's host."""

    server: Place
    client: Place
    proxies: tuple[Process, Process]

    def restart(self) -> None:
        """Bring the first proxy back."""
        first = self.proxies[0]
        if not first.alive:
            runs = len(first.events("proxy.started"))
            first.start(lambda: len(first.events("proxy.started")) > runs)


@pytest.fixture(scope="module")
def lan(remote: Remote) -> Lan:
    world = remote.world
    hub = world.idc_space
    # The data centre's host becomes its switch as well: one more host and the client are plugged in.
    hub.ip("address", "flush", "dev", "transit")
    hub.ip("link", "add", "lan", "type", "bridge")
    hub.ip("link", "set", "transit", "master", "lan")
    hub.ip("link", "set", "lan", "up")
    hub.set_address("lan", f"{IDC_ADDRESS}/24")
    hub.set_route("10.200.0.1", "default")
    server = Place(world, hub, hub.label)
    second, client = (remote.plug_in(server, label) for label in ("second", "client"))
    # What Debian's client does with a lease.
    shutil.copytree("/etc/udhcpc", client.etc / "udhcpc")
    second.space.set_address("idc", f"{SECOND_ADDRESS}/24")
    second.space.set_route("10.200.0.1", "default")
    # The client has a copy of the configuration, for `doctor`.
    for place in (server, second, client):
        configure(place)
    return Lan(server, client, (server.serve(*dnsproxy_argv(*SERVE)), second.serve(*dnsproxy_argv(*SERVE))))


class Kind(NamedTuple):
    """A DHCP server, its file below deploy/dhcp, and its words; ``{}`` is a folder with that file."""

    file: str
    words: tuple[str, ...]


KINDS = {
    "dnsmasq": Kind(
        "dnsmasq/dnsproxy.conf",
        (
            *("dnsmasq", "--conf-file={}/file", "--keep-in-foreground", "--interface=lan", "--user=root"),
            *("--pid-file=", "--dhcp-leasefile={}/leases", "--log-facility=-"),
        ),
    ),
    "dhcpd": Kind(
        "isc/dhcpd.conf",
        ("dhcpd", "-4", "-f", "-d", "-cf", "{}/file", "-lf", "{}/leases", "-pf", "{}/pid", "lan"),
    ),
    "kea-dhcp4": Kind(
        "kea/kea-dhcp4.json",
        ("env", "KEA_PIDFILE_DIR={}", "KEA_LOCKFILE_DIR={}", "kea-dhcp4", "-c", "{}/file"),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_dhcp_names_both_proxies(lan: Lan, name: str) -> None:
    kind, client = KINDS[name], lan.client
    for program in (name, "udhcpc"):
        assert find_program(program), f"{program} is missing: run scripts/setup.sh packages"
    folder = lan.server.world.folder / name
    folder.mkdir()
    text = (DEPLOY / "dhcp" / kind.file).read_text()
    # Which interfaces and paths there are is the reader's to say; Kea has no words for it.
    text = text.replace('"interfaces": []', '"interfaces": ["lan"]').replace("/var/lib/kea", str(folder))
    (folder / "file").write_text(text)
    (folder / "leases").touch()
    server = lan.server.process(name, *(word.format(folder) for word in kind.words))
    server.start(lambda: listens_for_dhcp(lan.server))
    try:
        client.write("resolv.conf", "")
        client.space.ip("link", "set", "idc", "up")
        asked = client.run("udhcpc", "-i", "idc", "-n", "-q", "-t", "10", "-T", "1")
        assert asked.returncode == 0, asked.stderr
        named = re.findall(r"^nameserver (\S+)$", (client.etc / "resolv.conf").read_text(), re.MULTILINE)
        assert named == [IDC_ADDRESS, SECOND_ADDRESS]
        client.check()
        told = client.dnsproxy("doctor")
        assert told.returncode == 0, told.stdout + told.stderr
        # One of two is enough, whichever.
        lan.proxies[0].kill()
        assert client.look_up(REGISTRY) == {REGISTRY_ADDRESS}
    finally:
        lan.restart()
        server.kill()
        client.space.ip("address", "flush", "dev", "idc")


def zones_of_page() -> list[str]:
    """Return the zones that step 4 of the page on PrivateZone makes rules for."""
    step = (
        HOWTO.joinpath("privatezone.md")
        .read_text()
        .partition("4. Make a forward rule")[2]
        .partition("5. ")[0]
    )
    return re.findall(r"`([\w.-]+\.aliyuncs\.com)`", step)


def test_a_forward_rule_helps_who_asks_the_resolver_of_the_vpc(remote: Remote) -> None:
    vpc, address = remote.add("vpc")
    configure(vpc)
    (snippet,) = blocks("dhcp-options.md", "yaml")
    document = yaml.safe_load(quick_start()) | yaml.safe_load(snippet)
    # One namespace is all of the VPC: beside the rule's resolver, a wildcard has no room.
    document["serve"]["listen"] = [f"{address}:53"]
    document["forward"]["upstreams"] = VPC_RESOLVERS[1:]
    vpc.write("dnsproxy/config.yaml", json.dumps(document))
    vpc.serve(*dnsproxy_argv(*SERVE))

    zones = zones_of_page()
    assert zones == [REGISTRY, AUTH, STORAGE]
    vpc.space.set_address("lo", f"{VPC_RESOLVERS[0]}/32")
    vpc.write("resolv.conf", f"nameserver {VPC_RESOLVERS[0]}\n")
    assert vpc.look_up(REGISTRY) == set()
    forwards = [(zone, address) for zone in zones] + [(".", VPC_RESOLVERS[1])]
    stand_in = f"""server:
  interface: {VPC_RESOLVERS[0]}
  access-control: 0.0.0.0/0 allow
  username: ""
  chroot: ""
  directory: ""
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
remote-control:
  control-enable: no
"""
    for zone, target in forwards:
        stand_in += f'forward-zone:\n  name: "{zone}"\n  forward-addr: {target}\n'
    file = vpc.write("unbound.conf", stand_in)
    rule = vpc.process("rule", "unbound", "-d", "-c", file)
    rule.start(lambda: vpc.ask(VPC_RESOLVERS[0], REGISTRY) == [REGISTRY_ADDRESS])
    vpc.check()
    # The page's own look at it.
    told = vpc.dnsproxy("doctor", "--resolver", VPC_RESOLVERS[0])
    assert told.returncode == 0, told.stdout + told.stderr


def listens_for_dhcp(place: Place) -> bool:
    # Kea and dhcpd read frames besides; all three have the port of RFC 2131 too.
    return ":67 " in place.run("ss", "-Hlnu").stdout
