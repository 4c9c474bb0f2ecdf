"""The network around the demo: a resolver of the source region and one for every other name.

Both listen on 127.0.0.1, on a free port unless told otherwise, and know only what stands here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, cast
from zlib import crc32

import asyncio_dgram
from dnslib import EDNS0, QTYPE, RCODE, RR, SOA, A, DNSRecord

from dnsproxy.settings.values import Endpoint

REGISTRY = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com"
AUTH = "dockerauth-vpc.cn-hangzhou.aliyuncs.com"
STORAGE = "oss-cn-hangzhou-internal.aliyuncs.com"
BUCKET = f"cri-xxxxxx-registry.{STORAGE}"
OTHER = "www.example"

# Octets. A query for one name takes at most 300 with every option in use.
_MAX_QUERY = 512
_QR = 0x80

_ANY_PORT = Endpoint("127.0.0.1", 0)

Lookup = Callable[[str], tuple[str, ...] | None]
"""From a lower-case name without its last dot to its IPv4 addresses; None when there is no such name."""


class SourceRegion:
    """What a resolver inside the source region's VPC answers."""

    def __init__(self) -> None:
        self._addresses = {REGISTRY: "10.94.205.198", AUTH: "100.103.7.181", STORAGE: "100.118.28.43"}

    def lookup(self, name: str) -> tuple[str, ...] | None:
        """Return the address of one of the three names, or of anything below the OSS endpoint."""
        known = STORAGE if name.endswith(f".{STORAGE}") else name
        address = self._addresses.get(known)
        return (address,) if address else None

    def change(self, name: str, address: str) -> None:
        """Give ``name`` another address, as a move of the instance does."""
        self._addresses[name] = address


def lookup_example(name: str) -> tuple[str, ...] | None:
    """Return an address of 192.0.2.0/24 (RFC 5737) for each name below ``example`` (RFC 6761 §6.5)."""
    if not name.endswith(".example"):
        return None
    return (f"192.0.2.{crc32(name.encode()) % 254 + 1}",)


class SimulatedResolver:
    """Answers by ``lookup`` over UDP while its context lasts; ``ttl`` is in seconds."""

    def __init__(self, lookup: Lookup, ttl: int, listen: Endpoint = _ANY_PORT) -> None:
        self.endpoint = listen
        self._lookup = lookup
        self._ttl = ttl
        self._stream: asyncio_dgram.aio.DatagramServer | None = None
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        host = self.endpoint.host
        self._stream = stream = await asyncio_dgram.bind((host, self.endpoint.port))
        self.endpoint = Endpoint(host, stream.sockname[1])
        self._serving = asyncio.get_running_loop().create_task(self._serve(stream))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None and self._serving is not None:
            self._serving.cancel()
            self._stream.close()
            await asyncio.gather(self._serving, return_exceptions=True)

    async def _serve(self, stream: asyncio_dgram.aio.DatagramServer) -> None:
        while True:
            # The stream reports here what went wrong with an earlier datagram; this one is served.
            with suppress(OSError):
                data, source = cast("tuple[bytes, tuple[str, int]]", await stream.recv())
                reply = answer(data, self._lookup, self._ttl)
                # A response to port 0 cannot be sent.
                if reply is not None and source[1]:
                    await stream.send(reply, source)


def answer(data: bytes, lookup: Lookup, ttl: int) -> bytes | None:
    """Return the response to the query ``data``, with an SOA when it has no answer (RFC 2308 §2).

    None for what is not a query of one question.
    """
    if len(data) > _MAX_QUERY or len(data) < 12 or data[2] & _QR or data[4:6] != b"\x00\x01":
        return None
    try:
        query = DNSRecord.parse(data)
        name = str(query.q.qname).rstrip(".").lower()
    except Exception:  # noqa: BLE001 - dnslib raises whatever hostile bytes lead to
        return None
    reply = query.reply(ra=1, aa=0)
    # dnslib copies the flag from the query; nothing here was validated (RFC 6840 §5.8).
    reply.header.ad = 0
    addresses = lookup(name)
    if addresses is None:
        reply.header.rcode = RCODE.NXDOMAIN
    for address in addresses or ():
        if query.q.qtype == QTYPE.A:
            reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=ttl, rdata=A(address)))
    if not reply.rr:
        reply.add_auth(_soa(name, ttl))
    if any(record.rtype == QTYPE.OPT for record in query.ar):
        reply.add_ar(EDNS0(udp_len=1232))
    return bytes(reply.pack())


def _soa(name: str, ttl: int) -> RR:
    zone = name.rpartition(".")[2]
    times = (1, 3600, 600, 86_400, ttl)
    return RR(zone, QTYPE.SOA, ttl=ttl, rdata=SOA("ns.example", "hostmaster.example", times))
