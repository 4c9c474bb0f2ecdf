"""A host of its own: a network namespace whose resolver is the proxy, on port 53, and nothing else.

A second one hangs on it by a cable, so that the host has addresses of both families besides its loopback:
stub resolvers leave families out that a host has no address of. Clients may also ask from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.e2e.processes import dnsproxy_argv, run_command
from tests.interop.authority import Authority
from tests.interop.world import settings
from tests.netns.network import Network
from tests.netns.spaces import Spaces

PROXY, AUTHORITY = "127.0.0.1", "127.0.0.2"
ADDRESS, ADDRESS6 = "10.77.0.2", "fd77::2"
# Responses would leave from the addresses above, unless the proxy takes care.
SECOND, SECOND6 = "10.78.0.2", "fd78::2"
LISTEN = (f"{PROXY}:53", "[::1]:53", f"{ADDRESS}:53")


class Island(Network):
    """Authority and proxy on one host; `start` runs both.

    The proxy asks ``upstream``, or else the authority, which has port ``authority_port``; ``serve`` is put
    into that section of its configuration.
    """

    def __init__(
        self,
        folder: Path,
        upstream: str | None = None,
        authority_port: int = 53,
        serve: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(folder)
        self._port = authority_port
        self._upstream = upstream or f"{AUTHORITY}:{authority_port}"
        self._serve = {"listen": LISTEN} | dict(serve or {})

    def _lay_out(self, spaces: Spaces) -> None:
        self.space, self.sea = spaces.add("island"), spaces.add("sea")
        spaces.join(self.space, self.sea)
        self.space.set_address("sea", f"{ADDRESS}/24", f"{SECOND}/32")
        self.sea.set_address("island", "10.77.0.1/24")
        self.sea.set_route(ADDRESS, f"{SECOND}/32")
        # An IPv6 address is of use at once only without looking for a double.
        for address in (f"{SECOND6}/128", f"{ADDRESS6}/64"):
            self.space.ip("address", "add", address, "dev", "sea", "nodad")
        self.sea.ip("address", "add", "fd77::1/64", "dev", "island", "nodad")
        self.sea.set_route(ADDRESS6, f"{SECOND6}/128")
        # BIND listens on addresses that an interface has, and on no others.
        self.space.set_address("lo", f"{AUTHORITY}/32")
        self.authority = Authority(self.folder, self._port, AUTHORITY, tuple(self.space.within()))
        self.proxy = self.add_process(
            self.space, "proxy", *dnsproxy_argv("serve", "--config", self._configure())
        )
        self.processes.append(self.authority.process)

    def _configure(self) -> Path:
        file = self.folder / "config.yaml"
        document: dict[str, Any] = {
            "registries": settings(),
            "learn": {"sources": [], "state_file": str(self.folder / "learned.jws"), "verify": {"ports": []}},
            "serve": self._serve,
            "forward": {
                "upstreams": [self._upstream],
                "timeout": {"attempt": "3s", "total": "9s"},
            },
            "log": {"format": "json"},
        }
        # JSON is YAML.
        file.write_text(json.dumps(document, indent=2))
        return file

    def start(self) -> None:
        self.authority.start()
        self.start_proxy()

    def start_proxy(self) -> None:
        self.proxy.start(lambda: bool(self.proxy.events("proxy.started")))

    def resolver(self, *lines: str) -> None:
        """Let the programs of this host read these lines in resolv.conf."""
        self.space.write("resolv.conf", *lines)

    def run(self, *words: str | Path) -> CompletedProcess[str]:
        """Run a command on this host."""
        return run_command(*self.space.within(*words))

    def run_at_sea(self, *words: str | Path) -> CompletedProcess[str]:
        """Run a command on the other one."""
        return run_command(*self.sea.within(*words))
