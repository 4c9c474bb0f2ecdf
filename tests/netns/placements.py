"""What the tests of placements share: hosts, containers and Pods made of namespaces, and what pages show.

A place has an ``/etc`` and a ``/var/lib/dnsproxy`` of its own, so that configurations and commands run
as they stand in the pages. Stand-ins are the program under test for an installed one, the authority of
the world for those that a system trusts, and the instance ``corp`` for ``xxxxxx``.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import yaml

from tests.e2e.nameservers import Unbound
from tests.e2e.processes import ROOT, Process, dnsproxy_argv, run_command, wait_for
from tests.netns.region import AUTH, BUCKET, PASSWORD, REGISTRY, USER, Shape
from tests.netns.spaces import Space, Spaces
from tests.netns.world import INTRANET, INTRANET_ADDRESS, REPOSITORY, World

HOWTO, DEPLOY = ROOT / "docs" / "howto", ROOT / "deploy"
# What every VPC has, and the DNS of a cluster. On the remote side neither knows the registry.
VPC_RESOLVERS, CLUSTER_RESOLVER = ("100.100.2.136", "100.100.2.138"), "10.96.0.10"
SERVICE, SERVICE_ADDRESS = "web.builds.svc.cluster.local", "10.97.0.7"
# Of the image (deploy/docker/Dockerfile).
IMAGE_USER = 65532
# What `skopeo` asks a registry for; its name and password are in a file of the test's.
INSPECT = ("skopeo", "inspect", f"docker://{REGISTRY}/{REPOSITORY}:1.0")

# ip-netns(8) has made a mount namespace already: nothing of this is seen outside.
_ENTER = """set -e
mount --bind "$1" /etc
mount -t tmpfs -o mode=0755 tmpfs /var/lib
mkdir /var/lib/dnsproxy
mount --bind "$2" /var/lib/dnsproxy
shift 2
exec "$@"
"""


def blocks(page: str, language: str) -> list[str]:
    """Return the code of that language on a page of docs/howto, in order, as a reader would copy it."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^\1```$", (HOWTO / page).read_text(), re.DOTALL | re.MULTILINE
    )
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def quick_start() -> str:
    """Return the configuration of the quick start, which other pages refer to."""
    text = (ROOT / "docs" / "quick-start.md").read_text()
    (found,) = re.findall(r"^```yaml\n(registries:.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(found)


def of_reader(text: str) -> str:
    """Put the reader's instance in the place of the example's."""
    return text.replace("xxxxxx", "corp")


def manifest(path: str, kind: str) -> Any:
    """Return the object of that kind in a file of deploy/kubernetes."""
    objects = yaml.safe_load_all((DEPLOY / "kubernetes" / path).read_text())
    (found,) = (each for each in objects if each["kind"] == kind)
    return found


class Place:
    """A namespace with an /etc and a /var/lib/dnsproxy of its own."""

    def __init__(self, world: World, space: Space, label: str) -> None:
        self.world, self.space, self.label = world, space, label
        self.root = world.folder / label
        self.etc, self.state = self.root / "etc", self.root / "var" / "lib" / "dnsproxy"
        (self.etc / "dnsproxy").mkdir(parents=True)
        self.state.mkdir(parents=True)
        for file in ("hosts", "nsswitch.conf", "resolv.conf"):
            self.write(file, space.read(file))
        self.write("passwd", "root:x:0:0::/root:/bin/sh\n")
        self.write("group", "root:x:0:\n")
        # Where the interpreter's libraries are.
        shutil.copy("/etc/ld.so.cache", self.etc)

    def write(self, file: str, text: str) -> Path:
        """Give ``/etc/FILE`` this text."""
        path = self.etc / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def within(self, *words: str | Path) -> list[str]:
        enter = ("sh", "-c", _ENTER, "sh", self.etc, self.state)
        return self.space.within(*enter, "env", f"SSL_CERT_FILE={self.world.authority.file}", *words)

    def run(self, *words: str | Path) -> CompletedProcess[str]:
        return run_command(*self.within(*words))

    def dnsproxy(self, *arguments: str | Path) -> CompletedProcess[str]:
        return self.run(*dnsproxy_argv(*arguments))

    def process(self, name: str, *words: str | Path) -> Process:
        """Make a program of this place, which ends with the world."""
        made = Process(name, self.within(*words), self.world.folder / f"{self.label}-{name}.log")
        self.world.processes.append(made)
        return made

    def serve(self, *words: str | Path) -> Process:
        """Start the proxy with these words, and wait until every name has an address."""
        proxy = self.process("proxy", *words)
        proxy.start(lambda: bool(proxy.events("proxy.started")))
        wait_for(lambda: self.dnsproxy("health", "--ready").returncode == 0, "every name has an address")
        return proxy

    # -- what programs in here see -------------------------------------------------

    def look_up(self, name: str) -> set[str]:
        """Return the addresses that a program gets from its C library."""
        said = self.run("getent", "ahostsv4", name).stdout
        return {line.split()[0] for line in said.splitlines()}

    def ask(self, server: str, name: str) -> list[str]:
        done = self.run("dig", "-r", f"@{server}", "+short", "+time=5", "+tries=1", name)
        return sorted(done.stdout.splitlines())

    def check(self) -> None:
        """The names of a pull are learned here, and every other name is as before."""
        right = self.world.right_answers()
        wanted = {name: set(right[name]) for name in (REGISTRY, AUTH, BUCKET)}
        assert {name: self.look_up(name) for name in wanted} == wanted
        assert self.look_up(INTRANET) == {INTRANET_ADDRESS}

    def inspect(self, *command: str) -> CompletedProcess[str]:
        """Run skopeo with the name and password of a build."""
        login = self.world.folder / "login"
        login.mkdir(exist_ok=True)
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (login / "auth.json").write_text(json.dumps({"auths": {REGISTRY: {"auth": basic}}}))
        return self.run("env", f"REGISTRY_AUTH_FILE={login}/auth.json", f"HOME={login}", *command)


def confined(user: int, group: int, capabilities: Sequence[str] = ()) -> list[str]:
    """Return the words that become this user with these capabilities (``net_bind_service``), for good.

    One more lets it read: interpreter and folders of a test run may be where root alone may look.
    """
    held = ",".join(["-all", "+dac_read_search", *(f"+{name}" for name in capabilities)])
    return [
        *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={held}", f"--ambient-caps={held}", f"--bounding-set={held}"),
    ]


def set_sysctls(space: Space, sysctls: Mapping[str, str]) -> None:
    """Set what an engine sets in a network of its own making."""
    for name, value in sysctls.items():
        done = run_command(*space.within("sh", "-c", f"echo {value} >/proc/sys/{name.replace('.', '/')}"))
        assert done.returncode == 0, done.stderr


class Remote:
    """The remote side: places behind the world's router, and resolvers that do not know the registry."""

    def __init__(self, world: World, spaces: Spaces) -> None:
        self.world, self._spaces = world, spaces
        self._count = 0
        world.transit_space.set_address("lo", *(f"{one}/32" for one in (*VPC_RESOLVERS, CLUSTER_RESOLVER)))
        more = [f"interface: {one}" for one in (VPC_RESOLVERS[1], CLUSTER_RESOLVER)]
        resolver = Unbound(
            *(world.folder, "vpc-dns", 53, ["example", "aliyuncs.com", "cluster.local"]),
            records=[f"{INTRANET} 60 IN A {INTRANET_ADDRESS}", f"{SERVICE} 60 IN A {SERVICE_ADDRESS}"],
            options=[*more, "access-control: 0.0.0.0/0 allow"],
            host=VPC_RESOLVERS[0],
            within=world.transit_space.within(),
        )
        world.processes.append(resolver.process)
        resolver.start()

    def add(self, label: str) -> tuple[Place, str]:
        """Make a place; return it with its address. It asks the resolvers of the VPC."""
        self._count += 1
        space, net = self._spaces.add(label), f"10.20{self._count}.0"
        self._spaces.join(self.world.transit_space, space)
        self.world.transit_space.set_address(label, f"{net}.1/24")
        space.set_address("transit", f"{net}.20/24")
        space.set_route(f"{net}.1", "default")
        space.write("resolv.conf", *(f"nameserver {one}" for one in VPC_RESOLVERS))
        return Place(self.world, space, label), f"{net}.20"

    def plug_in(self, switch: Place, label: str) -> Place:
        """Make a place without an address on the bridge ``lan`` of ``switch``."""
        space = self._spaces.add(label)
        self._spaces.join(switch.space, space)
        switch.space.ip("link", "set", label, "master", "lan")
        return Place(self.world, space, label)

    def add_behind(self, place: Place, label: str, net: str) -> Place:
        """Make a place whose gateway is ``place``, in ``net`` (three numbers of an address)."""
        space = self._spaces.add(label)
        self._spaces.join(place.space, space)
        place.space.set_address(label, f"{net}.1/24")
        space.set_address(place.label, f"{net}.20/24")
        space.set_route(f"{net}.1", "default")
        return Place(self.world, space, label)


@contextmanager
def remote_side(world: World) -> Iterator[Remote]:
    """Make a remote side for a world whose helper runs, with the registry as pages have it, and no proxy."""
    world.set_routes()
    world.region.take(Shape())
    world.helper.run_by("env", f"SSL_CERT_FILE={world.authority.file}")
    world.configure(registries={"auth": "discover"})
    world.proxy.kill()
    with Spaces() as spaces:
        yield Remote(world, spaces)
