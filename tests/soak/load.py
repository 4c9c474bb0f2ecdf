"""Clients of a soak: mixed queries at a steady rate, each answer checked and timed."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from tests.e2e.world import AUTH, BUCKET, REGISTRY

# Seconds a client waits. Owned names are answered from memory: far less would do.
OWNED_PATIENCE = 2.0
PATIENCE = 5.0
HOSTS = 300
ZONE = "soak.example"
FORWARDED_ADDRESS = "192.0.2.7"
_NOERROR = 0
_OWNED = (REGISTRY, AUTH, BUCKET)
# Of a hundred queries.
_SHARES = {"owned": 40, "cached": 40, "miss": 12, "owned-tcp": 4, "cached-tcp": 4}

Allowed = Callable[[str], frozenset[str]]
"""The addresses that an owned name may have now."""


@dataclass
class Window:
    """What the clients saw since the last look: latencies in seconds by kind, and what failed how often."""

    asked: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def fail(self, kind: str, how: str) -> None:
        self.failed[f"{kind}: {how}"] += 1


@dataclass(frozen=True)
class _Asked:
    kind: str
    name: str
    begun: float


class Clients(asyncio.DatagramProtocol):
    """Asks ``rate`` queries per second at 127.0.0.1 ``port`` until cancelled; `take` what was seen."""

    def __init__(self, port: int, rate: int, seed: int, allowed: Allowed) -> None:
        self._port = port
        self._rate = rate
        self._random = random.Random(seed)  # noqa: S311 - the same questions in every run
        self._allowed = allowed
        self._window = Window()
        self._waiting: dict[int, _Asked] = {}
        self._next = 0
        self._transport: asyncio.DatagramTransport | None = None

    def take(self) -> Window:
        """Return what was seen since the last call."""
        taken, self._window = self._window, Window()
        return taken

    async def run(self) -> None:
        """Ask until cancelled."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: self, remote_addr=("127.0.0.1", self._port)
        )
        self._transport = transport
        try:
            async with asyncio.TaskGroup() as tasks:
                due = monotonic()
                while True:
                    while due <= monotonic():
                        self._ask(tasks)
                        due += 1 / self._rate
                    self._expire()
                    await asyncio.sleep(max(0.0, due - monotonic()))
        finally:
            transport.close()

    def _ask(self, tasks: asyncio.TaskGroup) -> None:
        (kind,) = self._random.choices(list(_SHARES), list(_SHARES.values()))
        self._next += 1
        if kind.startswith("owned"):
            name = self._random.choice(_OWNED)
        elif kind.startswith("cached"):
            name = f"h{self._random.randrange(HOSTS)}.{ZONE}"
        else:
            name = f"u{self._next}-{self._random.randrange(1 << 30):x}.{ZONE}"
        self._window.asked[kind] += 1
        asked = _Asked(kind, name, monotonic())
        if kind.endswith("tcp"):
            tasks.create_task(self._ask_tcp(asked))
            return
        ident = self._next & 0xFFFF
        self._waiting[ident] = asked
        assert self._transport is not None
        self._transport.sendto(make_query(ident, name))

    def datagram_received(self, data: bytes, _addr: object) -> None:
        """Judge a response."""
        asked = self._waiting.pop(int.from_bytes(data[:2], "big"), None)
        if asked is not None:
            self._judge(asked, data)

    def error_received(self, exc: Exception) -> None:
        """Nothing: an unanswered query is found by its time."""

    async def _ask_tcp(self, asked: _Asked) -> None:
        message = make_query(self._next & 0xFFFF, asked.name)
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    writer.write(len(message).to_bytes(2, "big") + message)
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(size)
                finally:
                    writer.close()
        except (OSError, EOFError) as exc:
            self._window.fail(asked.kind, type(exc).__name__)
        else:
            self._judge(asked, data)

    def _judge(self, asked: _Asked, data: bytes) -> None:
        wrong = self._fault(asked, data)
        if wrong:
            self._window.fail(asked.kind, wrong)
        else:
            self._window.latencies[asked.kind].append(monotonic() - asked.begun)

    def _fault(self, asked: _Asked, data: bytes) -> str:
        rcode = data[3] & 0x0F
        if rcode != _NOERROR:
            return f"rcode {rcode}"
        owned = asked.kind.startswith("owned")
        allowed = self._allowed(asked.name) if owned else frozenset({FORWARDED_ADDRESS})
        found = ".".join(str(octet) for octet in data[_address_at(data) :][:4])
        return "" if found in allowed else f"wrong address {found}"

    def _expire(self) -> None:
        now = monotonic()
        for ident, asked in list(self._waiting.items()):
            patience = OWNED_PATIENCE if asked.kind == "owned" else PATIENCE
            if now - asked.begun > patience:
                del self._waiting[ident]
                self._window.fail(asked.kind, "no response")


def make_query(ident: int, name: str) -> bytes:
    """Return a query for the A records of ``name`` that asks for recursion, without OPT."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def _address_at(data: bytes) -> int:
    """Return where the data of the first A record is: of sets of one without OPT, the last four octets."""
    return len(data) - 4
