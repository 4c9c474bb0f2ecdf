"""Many blocking queries at the real helper at one time: who is answered when, and what it costs.

There is no proxy behind them, so that what is seen is the helper's.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.world import fetch
from tests.fleet.world import FleetWorld

# Connections that are made at one time; the helper's queue of those it has not accepted yet is not endless.
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Crowd:
    """``answered`` are seconds after the first answer; ``early`` were answered before anything had changed.

    ``memory`` is octets that each of those that waited took of the helper's.
    """

    count: int
    early: int
    answered: tuple[float, ...]
    memory: float


class _Waiter(asyncio.Protocol):
    """One blocking query; ``at`` is when its answer came, monotonic."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.at = 0.0
        self.status = b""
        self.done = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.at:
            self.at, self.status = time.monotonic(), data[:12]
            self.done.set()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.done.set()


async def gather(world: FleetWorld, count: int) -> Crowd:
    """Have ``count`` queries wait at the helper of ``world``, change an address, and see all answered."""
    serial = json.loads(fetch(world.port, "/health").body)["serial"]
    path = f"/v1/snapshot?wait={serial}&timeout=120"
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{world.port}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    before = world.helper_rss
    pairs: list[tuple[asyncio.BaseTransport, _Waiter]] = []
    while len(pairs) < count:
        wave = min(_AT_ONCE, count - len(pairs))
        pairs += await asyncio.gather(
            *(loop.create_connection(lambda: _Waiter(request), "127.0.0.1", world.port) for _ in range(wave))
        )
    waiters = [waiter for _, waiter in pairs]
    # The helper has read them all once it answers what was sent after them.
    await asyncio.to_thread(fetch, world.port, "/health")
    memory = (world.helper_rss - before) / count
    early = sum(bool(waiter.at) for waiter in waiters)
    await asyncio.to_thread(world.change, "10.94.77.77")
    async with asyncio.timeout(120):
        for waiter in waiters:
            await waiter.done.wait()
    for transport, _ in pairs:
        transport.abort()  # type: ignore[attr-defined]  # of a connection
    assert {waiter.status for waiter in waiters} == {b"HTTP/1.1 200"}
    times = sorted(waiter.at for waiter in waiters)[early:]
    return Crowd(count, early, tuple(at - times[0] for at in times), memory)


def measure(count: int) -> Crowd:
    """Make a world without engines and have ``count`` queries wait in it."""
    with (
        tempfile.TemporaryDirectory(prefix="crowd-") as folder,
        FleetWorld(Path(folder), "http", 0, 0) as world,
    ):
        world.start_region()
        return asyncio.run(gather(world, count))
