"""A nameserver on loopback with one hook, for tests.

``handle(query)`` gets the decoded query and returns what to send: a message
(dnslib), raw bytes, None for silence, or a list of those. Sent over UDP and
TCP alike; a hook that must know asks ``server.over_tcp``.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

from dnslib import QTYPE, RR, DNSRecord

from dnsproxy.settings.values import Endpoint

Reply: TypeAlias = DNSRecord | bytes | None
Handle: TypeAlias = Callable[[DNSRecord], Reply | Sequence[Reply]]


class Nameserver:
    """Answers on one port of 127.0.0.1 over UDP and TCP while its context lasts.

    ``queries`` counts ``(name, type, transport)``, such as
    ``("a.example.", "A", "udp")``. A hook that raises fails the test: the
    exception comes out of the context manager.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.queries: Counter[tuple[str, str, str]] = Counter()
        self.over_tcp = False
        self.peers: list[tuple[str | Any, int]] = []
        self.endpoint = Endpoint("127.0.0.1", 0)
        self._failures: list[Exception] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def total(self) -> int:
        """Queries of all names, types and transports."""
        return self.queries.total()

    async def __aenter__(self) -> Self:
        udp, tcp = _sockets()
        self.endpoint = Endpoint("127.0.0.1", tcp.getsockname()[1])
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), sock=udp)
        self._server = await asyncio.start_server(self._serve, sock=tcp)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._transport is not None
        assert self._server is not None
        self._transport.close()
        self._server.close()
        for writer in self._connections.values():
            writer.transport.abort()
        # The handlers of the aborted connections end inside the test's loop.
        await asyncio.gather(*self._connections)
        if self._failures and exc is None:
            raise self._failures[0]

    def answer_first(self, reply: DNSRecord) -> None:
        """Send ``reply`` to the peer of the first query over UDP."""
        assert self._transport is not None
        self._transport.sendto(bytes(reply.pack()), self.peers[0])

    def replies_to(self, data: bytes, transport: str) -> list[bytes]:
        """Count the query in ``data`` and return the messages to send."""
        self.over_tcp = transport == "tcp"
        try:
            query = DNSRecord.parse(data)
            self.queries[str(query.q.qname), _type_of(query), transport] += 1
            replies = self.handle(query)
        except Exception as exc:  # noqa: BLE001 - it is raised again where the test sees it
            self._failures.append(exc)
            return []
        listed: Sequence[Reply] = replies if isinstance(replies, list | tuple) else [replies]
        return [
            reply if isinstance(reply, bytes) else bytes(reply.pack())
            for reply in listed
            if reply is not None
        ]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections[task] = writer
        try:
            while True:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                for reply in self.replies_to(await reader.readexactly(length), "tcp"):
                    writer.write(struct.pack(">H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            del self._connections[task]


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: Nameserver) -> None:
        self._server = server
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._server.peers.append(addr)
        for reply in self._server.replies_to(data, "udp"):
            self._transport.sendto(reply, addr)


def _sockets() -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a TCP socket on the same free port of loopback."""
    for _ in range(50):
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            tcp.bind(("127.0.0.1", 0))
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
            continue
        tcp.setblocking(False)
        udp.setblocking(False)
        return udp, tcp
    raise RuntimeError("no port is free for both UDP and TCP")


def _type_of(query: DNSRecord) -> str:
    return str(QTYPE[query.q.qtype])


def zone(text: str) -> Handle:
    """Return a hook that answers from records in zone-file form, chains followed; other names NXDOMAIN."""
    records = RR.fromZone(text)

    def handle(query: DNSRecord) -> DNSRecord:
        reply = query.reply(ra=1, aa=0)
        at = query.q.qname
        known = False
        for _ in range(len(records) + 1):
            here = [rr for rr in records if rr.rname == at]
            known = known or bool(here)
            matching = [rr for rr in here if rr.rtype == query.q.qtype]
            links = [rr for rr in here if rr.rtype == 5]
            for rr in matching or links[:1]:
                reply.add_answer(rr)
            if matching or not links:
                break
            at = links[0].rdata.label
        if not known:
            reply.header.rcode = 3
        return reply

    return handle


def closed_port() -> Endpoint:
    """Return an endpoint of loopback on which nothing listens."""
    udp, tcp = _sockets()
    port = tcp.getsockname()[1]
    udp.close()
    tcp.close()
    return Endpoint("127.0.0.1", port)
