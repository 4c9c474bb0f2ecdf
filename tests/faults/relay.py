"""A bad network in user space: a relay for UDP and TCP that loses, delays, doubles, reorders and corrupts.

Every datagram draws its fate from a generator with a seed, and every fate is
counted, so that a test can say what was lost and not only that something was.
It runs in a thread of its own. A `Tap` sees, and may replace, each datagram.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Self

Address = tuple[str, int]
_LONGEST = 65_535
# Octets that a corrupted datagram keeps as they are: the message id, without which it would be a stray.
_SPARED = 2


@dataclass(frozen=True)
class Fault:
    """What happens to datagrams of one direction: shares from 0 to 1, times in seconds.

    One that is ``reordered`` is sent ``hold`` later than the others. ``corrupt`` turns one bit over,
    anywhere after the message id.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.0
    hold: float = 0.02


class Streams(Enum):
    """What happens to TCP connections, also to those that are open."""

    FORWARD = "forward"
    # Accepted and read, and never a word or an end in return: half-open for all that the client can tell.
    HOLD = "hold"
    # Accepted and reset.
    RESET = "reset"


@dataclass(frozen=True)
class Datagram:
    """One datagram on its way; ``client`` is where the query came from, ``up`` tells the direction."""

    data: bytes
    client: Address
    up: bool


Tap = Callable[[Datagram], Iterable[bytes]]
"""Returns what goes on in place of a datagram: nothing, itself, or others."""


@dataclass(eq=False)
class _Flow:
    """A client of the relay, and the socket by which the target sees it."""

    client: Address
    sock: socket.socket


class Relay:
    """Listens on ``port`` of ``host``, UDP and TCP, while its context lasts, and passes all on to ``target``.

    ``up`` and ``down`` are the faults of queries and of replies; they, ``streams``, ``tap`` and
    ``target`` may be changed at any time. ``counts`` holds what became of the datagrams, such as
    ``down.lost``, ``up.passed`` or ``down.corrupted``, and ``tcp.accepted``, ``tcp.held``.
    """

    def __init__(self, target: Address, port: int, *, host: str = "127.0.0.1", seed: int = 1) -> None:
        self.target = target
        self.address = (host, port)
        self.up = Fault()
        self.down = Fault()
        self.streams = Streams.FORWARD
        self.tap: Tap | None = None
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)  # noqa: S311 - the same fates in every run
        self._flows: dict[Address, _Flow] = {}
        self._connections: set[asyncio.Task[None]] = set()
        # Made by `__enter__`: one that is never entered is a port where nobody listens.
        self._loop: asyncio.AbstractEventLoop
        self._udp: socket.socket
        self._server: asyncio.Server
        self._thread: threading.Thread

    @property
    def endpoint(self) -> str:
        """The listening address as configuration files write it."""
        return f"{self.address[0]}:{self.address[1]}"

    @property
    def clients(self) -> list[Address]:
        """The addresses that queries came from, the newest last."""
        return list(self._flows)

    def __enter__(self) -> Self:
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.setblocking(False)
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        self._udp.bind(self.address)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def send(self, data: bytes, client: Address) -> None:
        """Send ``data`` to ``client`` from the relay's own port, as its target would: a perfect forgery."""
        self._udp.sendto(data, client)

    async def _open(self) -> None:
        self._loop.add_reader(self._udp, self._receive_queries)
        self._server = await asyncio.start_server(self._serve, *self.address)

    async def _close(self) -> None:
        self._loop.remove_reader(self._udp)
        self._udp.close()
        self._server.close()
        for flow in self._flows.values():
            self._loop.remove_reader(flow.sock)
            flow.sock.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    # -- UDP -----------------------------------------------------------------------

    def _receive_queries(self) -> None:
        while True:
            try:
                data, client = self._udp.recvfrom(_LONGEST)
            except OSError:  # nothing waits, or an ICMP error about a client that has gone
                return
            flow = self._flows.pop(client, None) or self._flow(client)
            self._flows[client] = flow
            self._pass(Datagram(data, client, up=True), self.up, partial(self._send_up, flow))

    def _flow(self, client: Address) -> _Flow:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((self.address[0], 0))
        flow = _Flow(client, sock)
        self._loop.add_reader(sock, self._receive_replies, flow)
        return flow

    def _receive_replies(self, flow: _Flow) -> None:
        while True:
            try:
                data = flow.sock.recv(_LONGEST)
            except OSError:
                return
            datagram = Datagram(data, flow.client, up=False)
            self._pass(datagram, self.down, partial(self._send_down, flow))

    def _send_up(self, flow: _Flow, data: bytes) -> None:
        with suppress(OSError):
            flow.sock.sendto(data, self.target)

    def _send_down(self, flow: _Flow, data: bytes) -> None:
        with suppress(OSError):
            self._udp.sendto(data, flow.client)

    def _pass(self, datagram: Datagram, fault: Fault, send: Callable[[bytes], None]) -> None:
        way = "up" if datagram.up else "down"
        for data in (datagram.data,) if self.tap is None else self.tap(datagram):
            # One draw for each kind, so that a change of one share leaves the other fates alone.
            lost, doubled, held, damaged = (self._random.random() for _ in range(4))
            if lost < fault.loss:
                self.counts[f"{way}.lost"] += 1
                continue
            out, delay = data, fault.delay
            if damaged < fault.corrupt and len(data) > _SPARED:
                self.counts[f"{way}.corrupted"] += 1
                out = self._corrupted(data)
            if held < fault.reorder:
                self.counts[f"{way}.reordered"] += 1
                delay += fault.hold
            copies = 1
            if doubled < fault.duplicate:
                self.counts[f"{way}.duplicated"] += 1
                copies = 2
            for _ in range(copies):
                self.counts[f"{way}.passed"] += 1
                if delay:
                    self._loop.call_later(delay, send, out)
                else:
                    send(out)

    def _corrupted(self, data: bytes) -> bytes:
        place = self._random.randrange(_SPARED, len(data))
        bit = 1 << self._random.randrange(8)
        return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]

    # -- TCP -----------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.counts["tcp.accepted"] += 1
        try:
            if self.streams is Streams.FORWARD:
                await self._join(reader, writer)
            else:
                await self._hold(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reset the connection, or read from it for ever."""
        if self.streams is Streams.RESET:
            self.counts["tcp.reset"] += 1
            # Closing with no time to linger is what makes the kernel send RST (socket(7)).
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            raise ConnectionResetError
        self.counts["tcp.held"] += 1
        while await reader.read(_LONGEST):
            pass
        await asyncio.Event().wait()  # the client's end is not answered by one of ours

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(*self.target)
        try:
            await asyncio.gather(
                self._pump(reader, back_writer, reader, writer),
                self._pump(back_reader, writer, reader, writer),
            )
        finally:
            back_writer.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        while data := await source.read(_LONGEST):
            if self.streams is not Streams.FORWARD:
                await self._hold(reader, writer)
            sink.write(data)
            await sink.drain()
        sink.write_eof()
