"""A proxy with owned names of every kind, in front of the authority."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.world import World as LoopbackWorld
from tests.interop.authority import Authority
from tests.interop.servers import Kind, Neighbour, Site

REGISTRY, STORAGE, AUTH, DUAL = (
    f"{label}.owned.example" for label in ("registry", "storage", "auth", "dual")
)
BUCKET = f"any-bucket.{STORAGE}"
OWNED = {
    REGISTRY: ["10.94.205.198"],
    AUTH: ["100.103.7.181", "100.103.7.182", "100.103.7.183"],
    STORAGE: ["100.118.28.43"],
    BUCKET: ["100.118.28.43"],
}
DUAL_ADDRESSES = ["10.94.205.200", "fd00:94::200"]


def settings() -> list[dict[str, Any]]:
    """Return ``registries`` that owns the names above, pinned."""
    names: list[dict[str, Any]] = [
        {"name": name, "addresses": addresses} for name, addresses in OWNED.items() if name != BUCKET
    ]
    names += [
        {"name": f"*.{STORAGE}", "addresses": OWNED[STORAGE]},
        {"name": DUAL, "addresses": DUAL_ADDRESSES},
    ]
    return [{"name": "interop", "provider": "generic", "names": names}]


class World(LoopbackWorld):
    """Authority and proxy; the proxy's only upstream is the authority, until the test says otherwise."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.authority = Authority(folder, self.take_port())
        self.add_process(self.authority.process)
        self.configure_registries(*settings())
        self.configure(learn={"sources": []})
        self.forward_to(self.authority.endpoint)

    def forward_to(self, endpoint: str) -> None:
        """Write the configuration with this upstream, and more patience than a busy machine needs."""
        self.configure(
            forward={"upstreams": [endpoint], "timeout": {"attempt": "3s", "total": "9s"}},
        )

    def start(self) -> None:
        """Start both."""
        self.authority.start()
        self.start_proxy()

    def add_neighbour(self, kind: Kind, target: int) -> Neighbour:
        """Make one more resolver, which asks the server at ``target`` and ends with the world."""
        site = Site(self.folder / kind.name, self.take_port(), target, self.authority.anchors)
        neighbour = Neighbour(kind, site)
        self.add_process(neighbour.process)
        return neighbour
