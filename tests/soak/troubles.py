"""Carries out the troubles of a plan on a world of real processes, and takes them back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.nameservers import Unbound
from tests.e2e.world import ADDRESSES, AUTH, BUCKET, REGISTRY, STORAGE, World
from tests.faults.relay import Datagram, Fault, Relay, Streams
from tests.soak.load import FORWARDED_ADDRESS, ZONE, make_query
from tests.soak.plan import Kind, Trouble

_SOUND = Fault()
# Queries and replies of one upstream.
_IMPAIRED = {
    Kind.LOSS: (Fault(loss=0.3), Fault(loss=0.3)),
    Kind.SLOW: (_SOUND, Fault(delay=2.0)),
    Kind.DISORDER: (_SOUND, Fault(duplicate=0.3, reorder=0.3)),
}
_BATCH = 100


class SoakWorld:
    """A source region, a helper and a proxy that forwards to two upstreams, each behind a relay."""

    def __init__(self, folder: Path, seed: int, cache_size: int) -> None:
        self._stack = ExitStack()
        self.world = world = self._stack.enter_context(World(folder))
        options = [f'local-zone: "{ZONE}." redirect', f'local-data: "{ZONE}. 60 IN A {FORWARDED_ADDRESS}"']
        self.upstreams: list[Unbound] = [
            world.add_unbound(f"up{number}", [], [], options) for number in (1, 2)
        ]
        self.relays = [
            self._stack.enter_context(Relay(("127.0.0.1", upstream.port), world.take_port(), seed=seed))
            for upstream in self.upstreams
        ]
        world.configure(
            forward={
                "upstreams": [relay.endpoint for relay in self.relays],
                "probe": {"interval": "2s", "rise": 1, "fall": 3},
            },
            # Smaller than what is asked for, so that it is full early on and its size says nothing any more.
            cache={"size": cache_size},
        )
        self._random = random.Random(seed)  # noqa: S311 - the same troubles in every run
        self._addresses = {name: {address} for name, address in ADDRESSES.items()}
        self._idle: list[socket.socket] = []
        self._moves = 0
        self._reloads = 0
        self._calls = {
            Kind.JUNK: self._send_junk,
            Kind.HALF_OPEN: self._half_open,
            Kind.ALL_DEAD: self._all_dead,
            Kind.UPSTREAM_DEAD: self._upstream_dead,
            Kind.HELPER_DEAD: self._helper_dead,
            Kind.SOURCE_DEAD: self._source_dead,
            Kind.MOVE: self._move,
            Kind.IDLE_CLIENTS: self._idle_clients,
            Kind.MALFORMED: self._malformed,
            Kind.FLOOD: self._flood,
            Kind.RELOAD: self._reload,
        }

    def __enter__(self) -> Self:
        for upstream in self.upstreams:
            upstream.start()
        self.world.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in self._idle:
            sock.close()
        self._stack.close()

    def allowed(self, name: str) -> frozenset[str]:
        """Return the addresses that an owned name may be answered with: those it has had."""
        return frozenset(self._addresses[STORAGE if name == BUCKET else name])

    async def begin(self, trouble: Trouble) -> None:
        """Make it so."""
        relay = self.relays[trouble.which]
        if trouble.kind in _IMPAIRED:
            relay.up, relay.down = _IMPAIRED[trouble.kind]
        else:
            await self._calls[trouble.kind](trouble.which)

    async def end(self) -> None:
        """Take back whatever was begun."""
        for relay in self.relays:
            relay.up = relay.down = _SOUND
            relay.streams = Streams.FORWARD
            relay.tap = None
        for sock in self._idle:
            sock.close()
        self._idle.clear()
        for upstream in self.upstreams:
            if not upstream.process.alive:
                await asyncio.to_thread(upstream.start)
        if not self.world.source.process.alive:
            await asyncio.to_thread(self.world.source.start)
        if not self.world.helper.alive:
            await asyncio.to_thread(self.world.helper.start, lambda: True)

    # -- one function each --------------------------------------------------------

    async def _send_junk(self, which: int) -> None:
        self.relays[which].tap = self._junk

    async def _half_open(self, which: int) -> None:
        self.relays[which].streams = Streams.HOLD

    def _junk(self, datagram: Datagram) -> list[bytes]:
        """Put octets by chance behind the id of one reply in five, then send it as it is."""
        if datagram.up or self._random.random() > 0.2:
            return [datagram.data]
        return [datagram.data[:2] + self._random.randbytes(len(datagram.data) - 2), datagram.data]

    async def _all_dead(self, _which: int) -> None:
        for relay in self.relays:
            relay.up = Fault(loss=1.0)
            relay.streams = Streams.RESET

    async def _upstream_dead(self, which: int) -> None:
        await asyncio.to_thread(self.upstreams[which].process.kill)

    async def _helper_dead(self, _which: int) -> None:
        await asyncio.to_thread(self.world.helper.kill)

    async def _source_dead(self, _which: int) -> None:
        await asyncio.to_thread(self.world.source.process.kill)

    async def _move(self, which: int) -> None:
        name = (REGISTRY, AUTH)[which]
        self._moves += 1
        address = f"10.94.{self._moves // 250}.{self._moves % 250 + 1}"
        # Known before it is served: an answer with it is right from now on.
        self._addresses[name].add(address)
        await asyncio.to_thread(self.world.source.replace, name, f"A {address}")

    async def _idle_clients(self, _which: int) -> None:
        # From several addresses: one client may not take all the places that are meant for one.
        at = ("127.0.0.1", self.world.dns_port)
        for number in range(200):
            source = (f"127.0.1.{number % 4 + 1}", 0)
            self._idle.append(socket.create_connection(at, timeout=5, source_address=source))

    async def _malformed(self, _which: int) -> None:
        await self._send(lambda _: self._random.randbytes(self._random.randrange(1, 200)))

    async def _flood(self, _which: int) -> None:
        salt = self._random.randrange(1 << 30)
        await self._send(lambda number: make_query(number & 0xFFFF, f"f{number}-{salt:x}.{ZONE}"))

    async def _send(self, make: Callable[[int], bytes]) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", self.world.dns_port))
            sock.setblocking(False)
            for number in range(5_000):
                with contextlib.suppress(OSError):
                    sock.send(make(number))
                if number % _BATCH == _BATCH - 1:
                    await asyncio.sleep(0.02)

    async def _reload(self, _which: int) -> None:
        # Another value each time: a reload of equal settings does nothing.
        self._reloads += 1
        self.world.configure(learn={"ttl": 30 + self._reloads % 2})
        self.world.proxy.signal(signal.SIGHUP)

    @property
    def pid(self) -> int:
        """The process id of the proxy."""
        return self.world.proxy.pid
