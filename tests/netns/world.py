"""Two places that only routes connect: a source region with its registry, and a remote data centre.

    region ──────── transit ──────── idc
    unbound, registry, token     a router      the proxy on port 53, skopeo,
    service, storage, helper                   a resolver that knows no cloud

All three are network namespaces of this test run. The remote side has routes to
the helper, the registry, the token service and one range of storage addresses,
and no default route: packets to any other address go nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from dnsproxy.keys import write_key_pair
from tests.e2e.nameservers import Unbound
from tests.e2e.processes import Process, dnsproxy_argv, run_command, wait_for
from tests.netns.authority import Authority
from tests.netns.images import Image
from tests.netns.network import Network
from tests.netns.region import (
    ADDRESSES,
    AUTH_ADDRESS,
    CLOSED,
    HELPER_ADDRESS,
    MOVED,
    PASSWORD,
    REGISTRY,
    REGISTRY_ADDRESS,
    RESOLVER,
    UNROUTED,
    USER,
    Region,
    Shape,
)
from tests.netns.spaces import Space, Spaces

IDC_ADDRESS, IDC_GATEWAY = "10.200.0.10", "10.200.0.1"
IDC_RESOLVER = "10.200.0.2"
REPOSITORY = "team/app"
INTRANET, INTRANET_ADDRESS = "intranet.example", "10.200.0.80"
ROUTED = [f"{HELPER_ADDRESS}/32", f"{REGISTRY_ADDRESS}/32", f"{AUTH_ADDRESS}/32", "100.118.28.0/24"]


class World(Network):
    """Nothing runs until `start`; a test that broke something leaves it to `heal`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config = folder / "config.yaml"
        self.state_file = folder / "state" / "learned.jws"
        self.authority = Authority(folder / "authority")
        self._images = 0

    def _lay_out(self, spaces: Spaces) -> None:
        self._lay_cables(spaces)
        self._place_parts()

    def _lay_cables(self, spaces: Spaces) -> None:
        region, transit, idc = spaces.add("region"), spaces.add("transit"), spaces.add("idc")
        spaces.join(region, transit)
        spaces.join(transit, idc)
        own = {*ADDRESSES.values(), RESOLVER, HELPER_ADDRESS, MOVED, CLOSED, UNROUTED}
        region.set_address("lo", *(f"{address}/32" for address in sorted(own)))
        region.set_address("transit", "10.255.0.2/30")
        region.set_route("10.255.0.1", "default")
        transit.set_address("region", "10.255.0.1/30")
        transit.set_address("idc", f"{IDC_GATEWAY}/24")
        transit.forward()
        idc.set_address("transit", f"{IDC_ADDRESS}/24")
        idc.set_address("lo", f"{IDC_RESOLVER}/32")
        region.write("resolv.conf", f"nameserver {RESOLVER}")
        self.region_space, self.transit_space, self.idc_space = region, transit, idc

    def _place_parts(self) -> None:
        self.region = Region(self.region_space, self.folder / "region", self.authority)
        self.resolver = Unbound(
            *(self.folder, "idc-dns", 53, ["example", "aliyuncs.com"]),
            records=[f"{INTRANET} 60 IN A {INTRANET_ADDRESS}"],
            host=IDC_RESOLVER,
            within=self.idc_space.within(),
        )
        self.key, self.public_key = write_key_pair(self.folder / "keys")
        self.state_file.parent.mkdir()
        self.processes += [*self.region.processes, self.resolver.process]
        self.helper = self._add_dnsproxy(self.region_space, "helper", "helper")
        self.proxy = self._add_dnsproxy(self.idc_space, "proxy", "serve")

    def _add_dnsproxy(self, space: Space, name: str, command: str) -> Process:
        return self.add_process(space, name, *dnsproxy_argv(command, "--config", self.config))

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Give helper and proxy these keys besides those that are always there, and let them run with it."""
        settings = self._settings()
        for section, keys in sections.items():
            settings[section] |= keys
        # One registry alone; JSON is YAML.
        text = json.dumps(settings | {"registries": [settings["registries"]]}, indent=2)
        if not self.config.exists() or self.config.read_text() != text:
            self.config.write_text(text)
            for part in (self.helper, self.proxy):
                part.kill()
        self.start_helper()
        self.start_proxy()

    def _settings(self) -> dict[str, dict[str, Any]]:
        return {
            "registries": {
                "name": "hangzhou",
                "region": "cn-hangzhou",
                "instance": "corp",
                "auth": "regional",
                "network": {"routed": ROUTED},
            },
            "helper": {
                "id": "helper-region",
                "listen": f"{HELPER_ADDRESS}:8953",
                "resolvers": [RESOLVER],
                "interval": "1s",
                "signing_key_file": str(self.key),
            },
            "learn": {
                "sources": [{"url": f"http://{HELPER_ADDRESS}:8953/v1/snapshot"}],
                "trusted_keys": [str(self.public_key)],
                "state_file": str(self.state_file),
                "refresh": "1s",
                "verify": {"timeout": "1s", "interval": "1s", "ca_file": str(self.authority.file)},
            },
            "serve": {"listen": [f"{IDC_ADDRESS}:53"], "lameduck": 0},
            "forward": {"upstreams": [IDC_RESOLVER]},
            "log": {"format": "json"},
        }

    # -- order -----------------------------------------------------------------

    def heal(self) -> None:
        """Bring everything up and into order, and wait until the proxy answers what is right."""
        self.use_resolvers(IDC_ADDRESS)
        self.use_hosts()
        self.set_routes()
        self.region.take(Shape())
        if not self.resolver.process.alive:
            self.resolver.start()
        self.configure()
        wait_for(lambda: self.answers() == self.right_answers(), "every name has its address")

    def set_routes(self) -> None:
        """Let the data centre reach what it must, through the router."""
        self.idc_space.set_route(IDC_GATEWAY, *ROUTED)
        self.transit_space.set_route("10.255.0.2", "10.94.0.0/16", "100.64.0.0/10", f"{REGISTRY_ADDRESS}/32")

    def start_helper(self) -> None:
        if not self.helper.alive:
            runs = len(self.helper.events("helper.started"))
            self.helper.start(lambda: len(self.helper.events("helper.started")) > runs)

    def start_proxy(self) -> None:
        if not self.proxy.alive:
            runs = len(self.proxy.events("proxy.started"))
            self.proxy.start(lambda: len(self.proxy.events("proxy.started")) > runs)

    def forget(self) -> None:
        """Let the proxy have learned nothing when it starts the next time."""
        self.proxy.kill()
        self.state_file.unlink(missing_ok=True)

    # -- what the remote side sees ---------------------------------------------

    def ask(self, name: str, server: str = IDC_ADDRESS) -> list[str]:
        """Return what dig in the data centre gets for ``name``, sorted."""
        done = self.in_idc("dig", "-r", f"@{server}", "+short", "+time=2", "+tries=1", name)
        return sorted(done.stdout.splitlines())

    def use_resolvers(self, *addresses: str) -> None:
        """Let the programs of the data centre ask these servers from now on."""
        self.idc_space.write("resolv.conf", *(f"nameserver {address}" for address in addresses))

    def use_hosts(self, *lines: str) -> None:
        """Give the data centre a hosts file with these lines besides that of localhost."""
        self.idc_space.write("hosts", "127.0.0.1 localhost", *lines)

    def answers(self) -> dict[str, list[str]]:
        return {name: self.ask(name) for name in ADDRESSES}

    def right_answers(self) -> dict[str, list[str]]:
        return {name: [address] for name, address in ADDRESSES.items()}

    def in_idc(self, *words: str | Path) -> CompletedProcess[str]:
        """Run a command in the data centre; the authority is trusted there."""
        return self._run(self.idc_space, *words)

    def _run(self, space: Space, *words: str | Path) -> CompletedProcess[str]:
        return run_command(*space.within("env", f"SSL_CERT_FILE={self.authority.file}", *words))

    def command(self, *arguments: str | Path) -> CompletedProcess[str]:
        """Run ``dnsproxy`` in the data centre with the world's configuration."""
        return self.in_idc(*dnsproxy_argv(*arguments, "--config", self.config))

    def status(self) -> Any:
        """Return what ``dnsproxy status`` says."""
        return json.loads(self.command("status", "--json").stdout)

    def address_state(self, name: str, address: str) -> Any:
        """Return what it says of one address of that name; None when the proxy does not know it."""
        (entry,) = (entry for entry in self.status()["names"] if entry["name"] == f"{name}.")
        return {detail["address"]: detail for detail in entry["details"]}.get(address)

    def metrics(self) -> list[str]:
        """Return the samples of ``/metrics``."""
        return self.in_idc("curl", "-sS", "http://127.0.0.1:9153/metrics").stdout.splitlines()

    # -- images ------------------------------------------------------------------

    def make_image(self) -> Image:
        self._images += 1
        return Image(self.folder / f"image-{self._images}")

    def push(self, image: Image, tag: str) -> None:
        """Push from the data centre."""
        self._push(self.idc_space, image, tag)

    def push_in_region(self, image: Image, tag: str) -> None:
        """Push where no proxy is needed."""
        self._push(self.region_space, image, tag)

    def _push(self, space: Space, image: Image, tag: str) -> None:
        done = self._copy(space, "--dest-creds", f"oci:{image.layout}", _reference(tag))
        assert done.returncode == 0, done.stderr

    def pull(self, tag: str, layout: Path) -> None:
        """Pull in the data centre."""
        done = self.try_pull(tag, layout)
        assert done.returncode == 0, done.stderr

    def try_pull(self, tag: str, layout: Path) -> CompletedProcess[str]:
        return self._copy(self.idc_space, "--src-creds", _reference(tag), f"oci:{layout}")

    def _copy(self, space: Space, credentials: str, source: str, target: str) -> CompletedProcess[str]:
        # Its cache of blobs seen before goes into the folder too, which it does not for root.
        home = [f"HOME={self.folder}", f"XDG_DATA_HOME={self.folder}", "_CONTAINERS_ROOTLESS_UID=1"]
        return self._run(
            space,
            *(*home, "skopeo", "--insecure-policy", "--command-timeout", "20s"),
            *("copy", "--quiet", credentials, f"{USER}:{PASSWORD}", source, target),
        )


def _reference(tag: str) -> str:
    return f"docker://{REGISTRY}/{REPOSITORY}:{tag}"
