"""One proxy whose forward zones each have bad roads of their own: no test breaks anything for the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests.e2e.processes import wait_for
from tests.e2e.world import World
from tests.faults.asking import Got, ask
from tests.faults.relay import Relay

ADDRESS = "192.0.2.1"


class Zones:
    """A world that has learned, with a zone ``<label>.example`` for each of ``roads``.

    Every name in a zone has `ADDRESS`; ``records`` (zone file lines) are what its apex has besides, and with
    it every name. ``roads`` says how the proxy is to reach each of a zone's upstreams, ``udp``, ``tcp``
    or ``tls``; ``closed`` is a port where nobody listens. Each of the others is a `Relay` in front of the
    one unbound that knows all.
    """

    def __init__(
        self,
        folder: Path,
        roads: Mapping[str, tuple[str, ...]],
        forward: Mapping[str, Any],
        records: Sequence[str] = (),
    ) -> None:
        self._records = list(records)
        self._stack = ExitStack()
        self._roads = dict(roads)
        self._forward = dict(forward)
        self.world = self._stack.enter_context(World(folder))
        self.relays: dict[str, list[Relay]] = {}
        self.upstreams: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._stack)
            self._start()
            undo.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        options = ["minimal-responses: yes"]
        for label in self._roads:
            zone = f"{label}.example"
            options += [f'local-zone: "{zone}" redirect', f'local-data: "{zone} 60 IN A {ADDRESS}"']
        known = self.world.add_unbound("known", [], self._records, options)
        for label, kinds in self._roads.items():
            for kind in kinds:
                self._lay(label, kind, known.port)
        zones = {f"{label}.example": names for label, names in self.upstreams.items()}
        self.world.configure(forward={**self._forward, "zones": zones})
        known.start()
        self.world.start()

    def _lay(self, label: str, kind: str, port: int) -> None:
        relay = Relay(("127.0.0.1", port), self.world.take_port(), seed=len(self.upstreams) + 1)
        if kind != "closed":
            self._stack.enter_context(relay)
        prefix = {"udp": "", "closed": "", "tcp": "tcp://", "tls": "tls://"}[kind]
        suffix = "#dns.example" if kind == "tls" else ""
        self.relays.setdefault(label, []).append(relay)
        self.upstreams.setdefault(label, []).append(f"{prefix}{relay.endpoint}{suffix}")

    def ask(self, name: str) -> Got:
        return ask(self.world.dns_port, f"{name}.example")

    def wait_good(self, name: str) -> Got:
        """Ask until the answer is good."""

        def good() -> Got | None:
            got = self.ask(name)
            return got if got.good else None

        return wait_for(good, f"{name} is answered well")

    def is_up(self, label: str, which: int = 0) -> bool:
        """Tell what the proxy thinks of an upstream of the zone."""
        return self.upstream(label, which)["up"] is True

    def upstream(self, label: str, which: int = 0) -> dict[str, Any]:
        """What the status document says of an upstream of the zone."""
        listed = self.world.admin("/api/v1/status").json()["upstreams"]
        port = self.relays[label][which].address[1]
        (found,) = [entry for entry in listed if f":{port}" in entry["name"]]
        assert isinstance(found, dict)
        return found

    def ignored(self, label: str, reason: str, which: int = 0) -> float:
        """How many datagrams from an upstream of the zone were passed over for ``reason``."""
        name = self.upstream(label, which)["name"]
        return self.world.metric(f'dnsproxy_upstream_ignored_total{{reason="{reason}",upstream="{name}"}}')
