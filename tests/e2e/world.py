"""The whole picture on loopback: a resolver of the source region, a helper, a proxy, an upstream.

Every part is a real process with a free port, its own log file, and an end with the world.
"""

from __future__ import annotations

import copy
import http.client
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import Any, NamedTuple, Self

from dnsproxy.keys import write_key_pair
from tests.e2e.digging import Server
from tests.e2e.nameservers import Dnsmasq, Unbound
from tests.e2e.processes import Ports, Process, dnsproxy_argv, has_ipv6, run_command, wait_for

REGISTRY = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com"
AUTH = "dockerauth-vpc.cn-hangzhou.aliyuncs.com"
STORAGE = "oss-cn-hangzhou-internal.aliyuncs.com"
BUCKET = f"cri-xxxxxx-registry.{STORAGE}"
ADDRESSES = {REGISTRY: "10.94.205.198", AUTH: "100.103.7.181", STORAGE: "100.118.28.43"}
OTHER, OTHER_ADDRESS = "www.example", "192.0.2.1"


class Page(NamedTuple):
    """An HTTP response; the names of ``headers`` are found in any case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def fetch(port: int, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Page:
    """Send one HTTP request to 127.0.0.1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        return Page(response.status, response.headers, response.read())
    finally:
        connection.close()


class World:
    """Nothing runs until it is started; `configure` before that changes the configuration file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = Ports()
        self._processes: list[Process] = []
        records = [f"{name} 5 IN A {address}" for name, address in ADDRESSES.items()]
        self.source = self.add_unbound("source", ["aliyuncs.com"], records)
        self.upstream = self.add_unbound("upstream", ["example"], [f"{OTHER} 60 IN A {OTHER_ADDRESS}"])
        self.key, self.public_key = write_key_pair(folder / "keys")
        self.helper_port, self.dns_port, self.admin_port = (self._ports.take() for _ in range(3))
        self.config = folder / "config.yaml"
        self.state_file = folder / "state" / "learned.jws"
        self.state_file.parent.mkdir()
        self.helper = self._dnsproxy("helper", "helper")
        self.proxy = self._dnsproxy("proxy", "serve")
        self.server = Server(self.dns_port)
        self._settings = self._first_settings()
        self.configure()

    def _first_settings(self) -> dict[str, Any]:
        listen = [f"127.0.0.1:{self.dns_port}"]
        if has_ipv6():
            listen.append(f"[::1]:{self.dns_port}")
        return {
            "registries": [
                {"name": "hangzhou", "region": "cn-hangzhou", "instance": "xxxxxx", "auth": "regional"}
            ],
            "helper": {
                "id": "helper-e2e",
                "listen": f"127.0.0.1:{self.helper_port}",
                "resolvers": [self.source.endpoint],
                "interval": "1s",
                "signing_key_file": str(self.key),
            },
            "learn": {
                "sources": [{"url": f"http://127.0.0.1:{self.helper_port}/v1/snapshot"}],
                "trusted_keys": [str(self.public_key)],
                "state_file": str(self.state_file),
                "refresh": "1s",
                # Nothing is to leave this host for the source region's addresses.
                "verify": {"ports": []},
            },
            # Nobody takes it for a load balancer's.
            "serve": {"listen": listen, "lameduck": 0},
            "forward": {
                "upstreams": [self.upstream.endpoint],
                "timeout": {"attempt": "300ms", "total": "1200ms"},
            },
            "admin": {"listen": f"127.0.0.1:{self.admin_port}"},
            "log": {"format": "json"},
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        self._ports.release()
        # Captured by pytest, and shown only when a test fails.
        for process in self._processes:
            print(f"--- {process.name}\n{process.text()[-8_000:]}")  # noqa: T201

    # -- parts ------------------------------------------------------------

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Write the configuration, with these keys put into their sections."""
        for section, keys in sections.items():
            self._settings[section] = self._settings.get(section, {}) | dict(keys)
        # JSON is YAML, and says where a value ends without a library.
        self.config.write_text(json.dumps(self._settings, indent=2))

    def take_port(self) -> int:
        """Return one more port for the test's own use."""
        return self._ports.take()

    def configure_registries(self, *registries: Mapping[str, Any]) -> None:
        """Write the configuration with these registries in place of what it had."""
        self._settings["registries"] = [dict(registry) for registry in registries]
        self.configure()

    def configure_registry(self, **keys: Any) -> None:
        """Write the configuration, with these keys put into its registry."""
        self._settings["registries"][0].update(keys)
        self.configure()

    def configuration(self) -> dict[str, Any]:
        """Return a copy of what the file holds."""
        return copy.deepcopy(self._settings)

    def _dnsproxy(self, name: str, command: str) -> Process:
        argv = dnsproxy_argv(command, "--config", self.config)
        self._processes.append(Process(name, argv, self.folder / f"{name}.log"))
        return self._processes[-1]

    def add_unbound(
        self, name: str, zones: Sequence[str], records: Sequence[str], options: Sequence[str] = ()
    ) -> Unbound:
        """Make one more nameserver, which ends with the world."""
        unbound = Unbound(self.folder, name, self._ports.take(), zones, records, options)
        self.add_process(unbound.process)
        return unbound

    def add_dnsmasq(self, name: str, hosts: Mapping[str, str], port_behind: int | None = None) -> Dnsmasq:
        """Make one more nameserver, which ends with the world."""
        dnsmasq = Dnsmasq(self.folder, name, self._ports.take(), hosts, port_behind)
        self.add_process(dnsmasq.process)
        return dnsmasq

    def add_process(self, process: Process) -> None:
        """Let ``process``, which the test starts, end with the world."""
        self._processes.append(process)

    def start(self) -> None:
        """Start all four and wait until every name is learned."""
        self.source.start()
        self.upstream.start()
        self.start_helper()
        self.start_proxy()
        self.wait_ready()

    def start_helper(self) -> None:
        """Start the helper and wait until it listens; its first snapshot follows."""
        self.helper.start(lambda: bool(self.helper.events("helper.started")))

    def start_proxy(self) -> None:
        """Start the proxy and wait until it listens, whatever it knows by then."""
        runs = len(self.proxy.events("proxy.started"))
        self.proxy.start(lambda: len(self.proxy.events("proxy.started")) > runs)

    def wait_ready(self) -> None:
        """Wait until every name has an address."""
        wait_for(lambda: self.admin("/ready").status == 200, "every name has an address")

    # -- questions --------------------------------------------------------

    def admin(self, path: str, method: str = "GET") -> Page:
        return fetch(self.admin_port, path, method=method)

    def snapshot(self, query: str = "", **headers: str) -> Page:
        """Ask the helper for its snapshot; ``If_None_Match`` stands for the header of that name."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return fetch(self.helper_port, f"/v1/snapshot{query}", named)

    def command(self, *arguments: str) -> CompletedProcess[str]:
        """Run ``dnsproxy`` with this world's configuration."""
        return run_command(*dnsproxy_argv(*arguments, "--config", self.config))

    def metric(self, sample: str) -> float:
        """Return the value of one sample, such as ``name{label="x"}``; 0 when it is not there."""
        for line in self.admin("/metrics").body.decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0
