"""The queries that `doctor` sends, as stub resolvers write them. Nothing here raises for what a server does.

What a client's library does is rebuilt here: which EDNS it sends, and which queries share a socket.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import struct
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

import asyncio_dgram
from dnslib import EDNS0, RCODE, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

from dnsproxy.core import wire
from dnsproxy.core.names import to_text
from dnsproxy.core.records import ADDRESS_LENGTHS, Names, Record, read_records, skip_question
from dnsproxy.core.response import errors_told
from dnsproxy.errors import WireError
from dnsproxy.ops.doctor_findings import DnsReply
from dnsproxy.settings.values import Endpoint

A, TXT, AAAA = 1, 16, 28
# Octets. The EDNS sizes of Go's resolver and of this program; RFC 9715 §3.1.
EDNS_SIZE = 1232
# Bytes of a message that is read.
_MAX_READ = 4096
# Seconds between two looks for an ICMP error, which does not wake a waiting recv().
_POLL = 0.1


class _Lookup:
    """One query and the reply to it, once it is there."""

    def __init__(self, name: str, qtype: int, edns: int | None) -> None:
        self._id = secrets.randbits(16)
        self.qtype = qtype
        self.reply: DnsReply | None = None
        record = DNSRecord(DNSHeader(id=self._id, rd=1), q=DNSQuestion(DNSLabel(name), qtype))
        if edns is not None:
            record.add_ar(EDNS0(udp_len=edns))
        self.query = bytes(record.pack())

    def receive(self, data: bytes) -> bool:
        """Take ``data`` if it is the reply; return whether it is."""
        if self.reply is not None or len(data) < 12 or data[:2] != self.query[:2] or not data[2] & 0x80:
            return False
        try:
            self.reply = _read(data, self.qtype)
        except WireError as exc:
            self.reply = DnsReply(error=f"a reply that cannot be decoded: {exc}")
        return True


def _read(data: bytes, qtype: int) -> DnsReply:
    if len(data) > _MAX_READ:
        return DnsReply(error=f"a reply of {len(data)} octets")
    flags, questions, *counts = wire.COUNTS.unpack_from(data, 2)
    held = Names(data)
    start = wire.HEADER
    if questions:
        held.read(start)
        start = skip_question(data)
    records = read_records(data, start, sum(counts))
    answers, authorities = counts[0], counts[0] + counts[1]
    soa = next((record for record in records[answers:authorities] if record.rtype == wire.SOA), None)
    opt = next((record for record in records[authorities:] if record.rtype == wire.OPT), None)
    found = [
        _address(data, record)
        for record in records[:answers]
        if record.rtype == qtype and qtype in ADDRESS_LENGTHS
    ]
    return DnsReply(
        addresses=tuple(sorted(found)),
        rcode=str(RCODE.get(flags & 0xF)),
        truncated=bool(flags & wire.TC),
        authoritative=bool(flags & wire.AA),
        recursive=bool(flags & wire.RA),
        additional=bool(counts[2]),
        mname=to_text(held.read(soa.start)) if soa else None,
        extended_errors=tuple(errors_told(data, opt.owner)) if opt else (),
    )


def _address(data: bytes, record: Record) -> str:
    if record.end - record.start != ADDRESS_LENGTHS[record.rtype]:
        raise WireError("record data is not as long as it says")
    return str(ip_address(data[record.start : record.end]))


async def ask(
    server: Endpoint,
    name: str,
    qtypes: Sequence[int],
    seconds: float,
    *,
    edns: int | None = None,
    tcp: bool = False,
) -> list[DnsReply]:
    """Ask ``server`` for each of ``qtypes``, all from one socket at once; ``seconds`` for all together.

    A truncated reply over UDP is asked for again over TCP, as every client does. A reply that
    does not come is one with ``error``.
    """
    lookups = [_Lookup(name, qtype, edns) for qtype in qtypes]
    reason = await _exchange(server, lookups, seconds, tcp=tcp)
    replies = [lookup.reply or DnsReply(error=reason) for lookup in lookups]
    if tcp:
        return replies
    again = [qtype for qtype, reply in zip(qtypes, replies, strict=True) if reply.truncated]
    repeated = await ask(server, name, again, seconds, edns=edns, tcp=True) if again else []
    over_tcp = dict(zip(again, repeated, strict=True))
    return [over_tcp.get(qtype, reply) for qtype, reply in zip(qtypes, replies, strict=True)]


async def ask_apart(
    server: Endpoint, name: str, qtypes: Sequence[int], seconds: float, *, edns: int | None = None
) -> list[DnsReply]:
    """As `ask`, with a socket for each type."""
    return [reply for qtype in qtypes for reply in await ask(server, name, [qtype], seconds, edns=edns)]


async def _exchange(server: Endpoint, lookups: Sequence[_Lookup], seconds: float, *, tcp: bool) -> str:
    """Wait until every lookup has its reply; return why those without have none."""
    try:
        async with asyncio.timeout(seconds):
            await (_over_tcp if tcp else _over_udp)(server, lookups)
    except TimeoutError:
        return f"no reply within {seconds:g} s"
    except (EOFError, asyncio_dgram.TransportClosed):
        return "the connection was closed before a reply"
    except OSError as exc:
        # asyncio puts a text of its own in place of the system's.
        return os.strerror(exc.errno).lower() if exc.errno else str(exc)
    return ""


async def _over_udp(server: Endpoint, lookups: Sequence[_Lookup]) -> None:
    stream = await asyncio_dgram.connect((server.host, server.port))
    try:
        for lookup in lookups:
            await stream.send(lookup.query)
        while any(lookup.reply is None for lookup in lookups):
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL):
                    data, _ = await stream.recv()
                any(lookup.receive(data) for lookup in lookups)
    finally:
        stream.close()


async def _over_tcp(server: Endpoint, lookups: Sequence[_Lookup]) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        for lookup in lookups:
            writer.write(struct.pack(">H", len(lookup.query)) + lookup.query)
        while any(lookup.reply is None for lookup in lookups):
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            data = await reader.readexactly(length)
            any(lookup.receive(data) for lookup in lookups)
    finally:
        writer.transport.abort()


async def views(server: Endpoint, name: str, seconds: float) -> dict[str, tuple[DnsReply, DnsReply]]:
    """Look ``name`` up as the clients of this world do: A and AAAA by the name of the client."""
    pair = (A, AAAA)
    made = {
        "glibc": await ask(server, name, pair, seconds),
        # The same on the wire; what it makes of an NXDOMAIN for one of the two is for the judge.
        "musl": await ask(server, name, pair, seconds),
        "Go": await ask_apart(server, name, pair, seconds, edns=EDNS_SIZE),
        "without EDNS": await ask_apart(server, name, pair, seconds),
        "over TCP": await ask(server, name, pair, seconds, tcp=True),
    }
    return {view: (a, aaaa) for view, (a, aaaa) in made.items()}
