"""Hosts as docs/howto has them: units of systemd, containers of compose, and a hosts file that goes away.

systemd itself and a container engine are not here: the test reads what the files say to them, and does that.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator

import pytest
import yaml

from tests.e2e.processes import DEADLINE, Process, dnsproxy_argv, find_program, wait_for
from tests.netns.placements import (
    DEPLOY,
    HOWTO,
    IMAGE_USER,
    Place,
    Remote,
    blocks,
    confined,
    of_reader,
    quick_start,
    remote_side,
    set_sysctls,
)
from tests.netns.region import AUTH, AUTH_ADDRESS, BUCKET, REGISTRY, STORAGE_ADDRESS
from tests.netns.world import IDC_ADDRESS, World

pytestmark = [pytest.mark.netns]

UNITS = DEPLOY / "systemd"
# Opens the sockets of a unit, and becomes the program that is given them (sd_listen_fds(3)).
ACTIVATE = """
import os, socket, sys
kinds = {"ListenDatagram": socket.SOCK_DGRAM, "ListenStream": socket.SOCK_STREAM}
for number, word in enumerate(sys.argv[1].split(",")):
    key, _, address = word.partition("=")
    host, _, port = address.rpartition(":")
    sock = socket.socket(socket.AF_INET, kinds[key])
    sock.bind((host, int(port)))
    if key == "ListenStream":
        sock.listen(1024)
    assert sock.fileno() == 3 + number
    os.set_inheritable(sock.detach(), True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(number + 1))
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def remote(shared: World) -> Iterator[Remote]:
    """No helper runs either: each test has that of its page."""
    with remote_side(shared) as made:
        shared.helper.kill()
        shared.resolver.start()
        yield made


@pytest.fixture
def two_hosts(remote: Remote, request: pytest.FixtureRequest) -> Iterator[tuple[Place, Place]]:
    """The helper's host in the region and the proxy's in the data centre, with nothing on them yet."""
    world, test = remote.world, request.node.name.rpartition("_")[2]
    before = len(world.processes)
    yield Place(world, world.region_space, f"{test}-region"), Place(world, world.idc_space, f"{test}-idc")
    for process in world.processes[before:]:
        process.kill()


def bring_key(helper: Place, proxy: Place, path: str) -> None:
    """Copy the public key from host to host, as the pages say."""
    proxy.write(path, (helper.etc / path).read_text())


# -- systemd -------------------------------------------------------------------


class Unit:
    """A service as systemd would run it: its words, account, capabilities and environment."""

    def __init__(self, name: str) -> None:
        lines = (UNITS / name).read_text().splitlines()
        self.keys = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))

    def command(self, place: Place) -> list[str]:
        # Written by systemd-sysusers.
        accounts = dict(line.split(":", 1) for line in (place.etc / "passwd").read_text().splitlines())
        _, uid, gid, *_ = accounts[self.keys["User"]].split(":")
        assert self.keys["Group"] == self.keys["User"]
        shutil.chown(place.state, int(uid), int(gid))
        held = [
            name.removeprefix("CAP_").lower() for name in self.keys.get("AmbientCapabilities", "").split()
        ]
        program, *words = self.keys["ExecStart"].split()
        assert program == "/opt/dnsproxy/bin/dnsproxy"
        return [
            *("env", *self.keys["Environment"].split()),
            *confined(int(uid), int(gid), held),
            *dnsproxy_argv(*words),
        ]


def prepare(place: Place, configuration: str) -> None:
    """Do steps 2 and 3 of the page: user, configuration, and whom the files belong to."""
    for tool in ("systemd-sysusers", "systemd-tmpfiles"):
        assert find_program(tool), f"{tool} is missing: run scripts/setup.sh packages"
    root = f"--root={place.root}"
    for folder in ("sysusers.d", "tmpfiles.d"):
        place.write(f"{folder}/dnsproxy.conf", (UNITS / folder / "dnsproxy.conf").read_text())
    place.write("dnsproxy/config.yaml", configuration)
    done = place.run("systemd-sysusers", root)
    assert done.returncode == 0, done.stderr


def give_files(place: Place) -> None:
    done = place.run("systemd-tmpfiles", f"--root={place.root}", "--create", "dnsproxy.conf")
    assert done.returncode == 0, done.stderr
    checked = place.dnsproxy("check", "/etc/dnsproxy/config.yaml")
    assert checked.returncode == 0, checked.stderr


def start_unit(place: Place, name: str, *command: str) -> Process:
    """Start it, and wait until it has told the service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        # Abstract names are of a network namespace, and this one is not of theirs.
        path = place.root / "notify"
        notices.bind(str(path))
        path.chmod(0o666)
        notices.settimeout(DEADLINE)
        unit = place.process(name, "env", f"NOTIFY_SOCKET={path}", *command)
        unit.start(lambda: True)
        heard: list[str] = []
        while "READY=1" not in heard:
            heard += notices.recv(4096).decode().split("\n")
    path.unlink()
    return unit


def test_the_units_on_two_hosts(two_hosts: tuple[Place, Place]) -> None:
    region, idc = two_hosts
    (snippet,) = blocks("systemd.md", "yaml")
    configuration = quick_start()
    # What the page says of addresses is what the quick start has already.
    assert yaml.safe_load(configuration)["serve"] == yaml.safe_load(snippet)["serve"]
    for place in two_hosts:
        prepare(place, configuration)
    assert region.dnsproxy("keygen", "/etc/dnsproxy").returncode == 0
    bring_key(region, idc, "dnsproxy/helper.pub")
    for place in two_hosts:
        give_files(place)
    start_unit(region, "dnsproxy-helper", *Unit("dnsproxy-helper.service").command(region))

    # The socket, with the addresses of the page's drop-in; an empty value takes back those of the unit.
    (drop_in,) = blocks("systemd.md", "ini")
    listens = [line for line in drop_in.splitlines() if re.fullmatch(r"Listen\w+=.+", line)]
    sockets = ["python3", "-c", ACTIVATE, ",".join(listens)]
    start_unit(idc, "dnsproxy", *sockets, *Unit("dnsproxy.service").command(idc))

    wait_for(lambda: idc.dnsproxy("status").returncode == 0, "every name has an address")
    (look,) = re.findall(r"^sudo dnsproxy (doctor .*)$", "".join(blocks("systemd.md", "sh")), re.MULTILINE)
    told = idc.dnsproxy(*look.split())
    assert told.returncode == 0, told.stdout
    idc.write("resolv.conf", f"nameserver {IDC_ADDRESS}\n")
    idc.check()


def test_sockets_of_other_addresses_are_told(remote: Remote) -> None:
    """The unit's own sockets beside the quick start's address: the page's step 4 is needed."""
    host, _ = remote.add("sockets")
    prepare(host, quick_start())
    host.write("dnsproxy/helper.pub", host.world.public_key.read_text())
    give_files(host)
    unit = (UNITS / "dnsproxy.socket").read_text()
    listens = re.findall(r"^Listen\w+=0\.0\.0\.0:53$", unit, re.MULTILINE)
    done = host.run("python3", "-c", ACTIVATE, ",".join(listens), *Unit("dnsproxy.service").command(host))
    assert done.returncode == 1
    (said,) = re.findall(r"\*(which [^*]+)\*", HOWTO.joinpath("systemd.md").read_text())
    assert said in done.stderr


def test_the_unit_may_bind_the_port_itself(two_hosts: tuple[Place, Place]) -> None:
    """Without dnsproxy.socket, by the one capability that the unit leaves."""
    _, idc = two_hosts
    prepare(idc, quick_start())
    idc.write("dnsproxy/helper.pub", idc.world.public_key.read_text())
    give_files(idc)
    start_unit(idc, "dnsproxy", *Unit("dnsproxy.service").command(idc))
    assert idc.space.listens(IDC_ADDRESS, 53)


# -- compose -------------------------------------------------------------------


class Container:
    """A service of compose.yaml: its words, its mounts, its health check."""

    def __init__(self, name: str, place: Place) -> None:
        service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][name]
        self.service, self.place = service, place
        assert service["cap_drop"] == ["ALL"]
        set_sysctls(place.space, service.get("sysctls", {}))
        place.write("dnsproxy/config.yaml", of_reader((DEPLOY / "compose/config.yaml").read_text()))

    def words(self) -> list[str]:
        return [*confined(IMAGE_USER, IMAGE_USER), *dnsproxy_argv(*self.service["command"])]

    def is_healthy(self) -> bool:
        kind, program, *words = self.service["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "dnsproxy")
        return self.place.run(*confined(IMAGE_USER, IMAGE_USER), *dnsproxy_argv(*words)).returncode == 0


def test_the_containers_of_compose(remote: Remote, two_hosts: tuple[Place, Place]) -> None:
    """Each container's network is that of its host: the engine publishes ports, which is not shown here."""
    region, _ = two_hosts
    proxy_place, address = remote.add("compose")
    for place in (region, proxy_place):
        (place.etc / "dnsproxy" / "keys").mkdir()
        for folder in (place.etc / "dnsproxy" / "keys", place.state):
            shutil.chown(folder, IMAGE_USER, IMAGE_USER)
    keygen, helper = Container("keygen", region), Container("helper", region)
    done = region.run(*keygen.words())
    assert done.returncode == 0, done.stderr
    proxy = Container("proxy", proxy_place)
    bring_key(region, proxy_place, "dnsproxy/keys/helper.pub")

    process = region.process("helper", *helper.words())
    process.start(lambda: bool(process.events("helper.started")))
    wait_for(helper.is_healthy, "the helper is healthy")
    assert not proxy.is_healthy()
    proxy_place.serve(*proxy.words())
    assert proxy.is_healthy()
    assert proxy_place.dnsproxy("status").returncode == 0

    # A host that asks the published address.
    client, _ = remote.add("client")
    client.write("resolv.conf", f"nameserver {address}\n")
    client.check()


# -- hosts files ---------------------------------------------------------------


def test_from_a_hosts_file(two_hosts: tuple[Place, Place]) -> None:
    region, idc = two_hosts
    rotten = "100.118.28.99"
    kept = "10.200.0.99 printer.example"
    lines = [f"{AUTH_ADDRESS} {AUTH}", f"10.94.205.198 {REGISTRY}", f"{rotten} {BUCKET}"]
    idc.write("hosts", "\n".join(["127.0.0.1 localhost", kept, *lines, ""]))
    assert idc.look_up(BUCKET) == {rotten}

    # 1. and 2.: its registries, with the rest of the quick start. With --pin it is what the file said.
    rest = yaml.safe_load(quick_start())
    pinned = idc.dnsproxy("hosts", "import", "/etc/hosts", "--pin")
    names = yaml.safe_load(pinned.stdout)["registries"][0]["names"]
    assert {f"{address} {each['name']}" for each in names for address in each["addresses"]} == set(lines)
    imported = idc.dnsproxy("hosts", "import", "/etc/hosts")
    assert "printer.example" in imported.stdout + imported.stderr
    configuration = yaml.safe_dump(rest | yaml.safe_load(imported.stdout))
    for place in two_hosts:
        place.write("dnsproxy/config.yaml", configuration)
    assert idc.dnsproxy("check", "/etc/dnsproxy/config.yaml").returncode == 0

    # 3.: both run, and the audit tells the lines.
    assert region.dnsproxy("keygen", "/etc/dnsproxy").returncode == 0
    bring_key(region, idc, "dnsproxy/helper.pub")
    config = ("--config", "/etc/dnsproxy/config.yaml")
    helper = region.process("helper", *dnsproxy_argv("helper", *config))
    helper.start(lambda: bool(helper.events("helper.started")))
    idc.serve(*dnsproxy_argv("serve", *config))
    audit = idc.dnsproxy("hosts", "audit", "/etc/hosts")
    assert audit.returncode == 1
    assert [line for line in lines if line not in audit.stdout] == []
    assert STORAGE_ADDRESS in audit.stdout
    assert "printer" not in audit.stdout

    # 4.: nothing changes for a host that asks the proxy, as the file comes first.
    idc.write("resolv.conf", f"nameserver {IDC_ADDRESS}\n")
    assert idc.look_up(BUCKET) == {rotten}
    assert idc.dnsproxy("doctor").returncode == 1

    # 5. and 6.: the lines go.
    idc.write("hosts", f"127.0.0.1 localhost\n{kept}\n")
    idc.check()
    assert idc.look_up("printer.example") == {"10.200.0.99"}
    told = idc.dnsproxy("doctor")
    assert told.returncode == 0, told.stdout
    assert idc.dnsproxy("hosts", "audit").returncode == 0

    # Back, if you must.
    exported = idc.dnsproxy("hosts", "export").stdout
    idc.write("resolv.conf", "nameserver 127.0.0.1\n")
    assert idc.look_up(BUCKET) == set()
    idc.write("hosts", f"127.0.0.1 localhost\n{exported}")
    assert idc.look_up(BUCKET) == {STORAGE_ADDRESS}
