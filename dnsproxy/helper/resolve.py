"""Ask resolvers for the addresses of a name; `observe` then decides what to publish.

Only the answer section of a response is decoded, and only after header and
question have been matched (RFC 5452 §9.1).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple, cast

import asyncio_dgram
from dnslib import EDNS0, RCODE, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

from dnsproxy.core import names
from dnsproxy.core.learned import canonical_addresses
from dnsproxy.core.records import ADDRESS_LENGTHS, Names, Record, read_records
from dnsproxy.core.registry import Wanted
from dnsproxy.core.response import MAX_CNAMES
from dnsproxy.core.upstreams import Source
from dnsproxy.core.wire import skip_name
from dnsproxy.errors import ResolveError, WireError
from dnsproxy.helper.observe import Answer, Look, combine
from dnsproxy.settings.values import Endpoint
from dnsproxy.transport.source_address import connect_socket

# Seconds for one exchange with a resolver, and how often it is tried.
TIMEOUT = 2.0
ATTEMPTS = 2
# Real chains have two or three links; BIND stops at 16, Unbound at 11.
MAX_CHAIN = 8
# Bytes. 250 A records fit.
MAX_RESPONSE = 4096
# Fits the smallest IPv6 MTU without fragments (RFC 9715 §3.1).
EDNS_SIZE = 1232
# Seconds between two looks for an ICMP error, which does not wake a waiting recv().
_ERROR_POLL = 0.1

_HEADER = 12
_QR_OPCODE, _TC = 0xF800, 0x0200
_QR_QUERY = 0x8000
_IN = 1
_A, _CNAME, _AAAA = 1, 5, 28


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one exchange may take, in seconds, how many are tried, and what they leave from."""

    timeout: float = TIMEOUT
    attempts: int = ATTEMPTS
    source: Source | None = None


async def look(
    wanted: Wanted, resolvers: Sequence[Endpoint], patience: Patience = Patience()
) -> tuple[Look, ...]:
    """Ask every resolver at once for the name of ``wanted``. Never raises for what a resolver does."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_look_at(wanted.ask, resolver, patience)) for resolver in resolvers]
    return tuple(task.result() for task in tasks)


async def _look_at(name: str, resolver: Endpoint, patience: Patience) -> Look:
    async with asyncio.TaskGroup() as group:
        a_task = group.create_task(_attempt(name, _A, resolver, patience))
        aaaa_task = group.create_task(_attempt(name, _AAAA, resolver, patience))
    return combine(str(resolver), a_task.result(), aaaa_task.result())


async def _attempt(name: str, qtype: int, resolver: Endpoint, patience: Patience) -> Answer | ResolveError:
    try:
        return await resolve(name, qtype, resolver, patience)
    except ResolveError as exc:
        return exc


async def resolve(name: str, qtype: int, resolver: Endpoint, patience: Patience = Patience()) -> Answer:
    """Return the addresses of ``name``, following CNAMEs; ``qtype`` is 1 (A) or 28 (AAAA).

    ``name`` is canonical text. A chain that leaves the response is asked for
    again at its end.

    Raises:
        ResolveError: no usable response, an error rcode, a loop, or a chain
            of more than `MAX_CHAIN` links; the message starts with the resolver.
    """
    chain = _Chain(names.to_key(name))
    # Each round either ends or adds a link, and links are bounded.
    while True:
        asked = chain.at
        try:
            addresses = chain.follow(await _ask(asked, qtype, resolver, patience), qtype)
        except ResolveError as exc:
            raise ResolveError(f"{resolver}: {exc}") from exc
        if addresses or chain.at == asked:
            return Answer(canonical_addresses(addresses), chain.ttl, chain.target)


class _Chain:
    """Where a CNAME chain stands; it grows over one response or several."""

    def __init__(self, key: bytes) -> None:
        self.at = key
        self.ttl = 0x7FFFFFFF
        self._seen = [key]

    @property
    def target(self) -> str | None:
        return names.to_text(self.at) if len(self._seen) > 1 else None

    def follow(self, message: _Message, qtype: int) -> list[str]:
        """Walk as far as ``message`` leads; return the addresses at the end, none when it ends without."""
        while True:
            found = [r for r in message.records if r.owner == self.at and r.rtype == qtype]
            if found:
                self.ttl = min(self.ttl, *(record.ttl for record in found))
                return [str(ip_address(record.address)) for record in found]
            link = next((r for r in message.records if r.owner == self.at and r.rtype == _CNAME), None)
            if link is None:
                return []
            self._step(link)

    def _step(self, link: _Answer) -> None:
        if link.target in self._seen:
            raise ResolveError(f"CNAME loop at {names.to_text(link.target)}")
        if len(self._seen) > MAX_CHAIN:
            raise ResolveError(f"CNAME chain of more than {MAX_CHAIN} links")
        self._seen.append(link.target)
        self.at = link.target
        self.ttl = min(self.ttl, link.ttl)


class _Answer(NamedTuple):
    """An A, AAAA or CNAME record: ``address`` is as on the wire, ``target`` a key."""

    owner: bytes
    rtype: int
    ttl: int
    address: bytes = b""
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class _Message:
    """The part of a response that is used here."""

    rcode: int
    truncated: bool
    records: list[_Answer] = field(default_factory=list)


async def _ask(key: bytes, qtype: int, resolver: Endpoint, patience: Patience) -> _Message:
    """Return a matching response with rcode NOERROR; try again after silence or a broken connection."""
    failure = ResolveError("not asked")
    for _ in range(patience.attempts):
        try:
            message = await _exchange(key, qtype, resolver, patience)
        except ResolveError as exc:
            failure = exc
            continue
        if message.rcode:
            raise ResolveError(f"{RCODE.get(message.rcode)} for {names.to_text(key)}")
        return message
    raise ResolveError(f"{failure} ({patience.attempts} attempts)")


async def _exchange(key: bytes, qtype: int, resolver: Endpoint, patience: Patience) -> _Message:
    expected, seconds, source = _Expected(key, qtype), patience.timeout, patience.source
    if resolver.transport == "udp":
        message = await _bounded(_over_udp(expected, resolver, source), expected, seconds)
        if not message.truncated:
            return message
        expected = _Expected(key, qtype)
    return await _bounded(_over_tcp(expected, resolver, source), expected, seconds)


async def _bounded(exchange: Awaitable[_Message], expected: _Expected, seconds: float) -> _Message:
    """Wait for ``exchange``; map all that a socket can raise."""
    try:
        async with asyncio.timeout(seconds):
            return await exchange
    except TimeoutError as exc:
        raise expected.refused or ResolveError(f"no response within {seconds:g} s") from exc
    except (asyncio.IncompleteReadError, asyncio_dgram.TransportClosed) as exc:
        raise expected.refused or ResolveError("the connection was closed before a response") from exc
    except OSError as exc:
        # asyncio puts a text of its own in place of the system's.
        reason = os.strerror(exc.errno).lower() if exc.errno else str(exc)
        raise ResolveError(reason) from exc


async def _over_udp(expected: _Expected, resolver: Endpoint, source: Source | None) -> _Message:
    sock = await connect_socket(socket.SOCK_DGRAM, resolver.host, resolver.port, source)
    stream = cast("asyncio_dgram.aio.DatagramClient", await asyncio_dgram.from_socket(sock))
    try:
        await stream.send(expected.query)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_ERROR_POLL):
                    data, _ = await stream.recv()
                if (message := expected.receive(data)) is not None:
                    return message
    finally:
        stream.close()


async def _over_tcp(expected: _Expected, resolver: Endpoint, source: Source | None) -> _Message:
    sock = await connect_socket(socket.SOCK_STREAM, resolver.host, resolver.port, source)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(struct.pack(">H", len(expected.query)) + expected.query)
        while True:
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            if (message := expected.receive(await reader.readexactly(length))) is not None:
                return message
    finally:
        # Nothing is left to send, and a peer that does not read must not hold us.
        writer.transport.abort()


class _Expected:
    """A query under way: the bytes to send, and which response belongs to it."""

    def __init__(self, key: bytes, qtype: int) -> None:
        self.refused: ResolveError | None = None
        self._id = secrets.randbits(16)
        self._question = key + struct.pack(">HH", qtype, _IN)
        record = DNSRecord(DNSHeader(id=self._id, rd=1), q=DNSQuestion(_label(key), qtype))
        record.add_ar(EDNS0(udp_len=EDNS_SIZE))
        self.query = bytes(record.pack())

    def receive(self, data: bytes) -> _Message | None:
        """Return the response in ``data``; None when it is not one to this query, or cannot be read."""
        end = _HEADER + len(self._question)
        if not end <= len(data):
            return None
        identity, flags, questions, answers = struct.unpack_from(">HHHH", data)
        if identity != self._id or flags & _QR_OPCODE != _QR_QUERY or questions != 1:
            return None
        # Lower case hurts neither type nor class here: A, AAAA and IN have no octet in A-Z.
        if data[_HEADER:end].lower() != self._question:
            return None
        try:
            truncated = bool(flags & _TC)
            records = [] if truncated else _read_answers(data, end, answers)
            return _Message(flags & 0xF, truncated, records)
        except ResolveError as exc:
            # It may be forged, so the wait goes on; when nothing better comes this is the reason.
            self.refused = exc
            return None


def _label(key: bytes) -> DNSLabel:
    labels = []
    while length := key[0]:
        labels.append(key[1 : 1 + length])
        key = key[1 + length :]
    return DNSLabel(labels)


def _read_answers(data: bytes, position: int, count: int) -> list[_Answer]:
    if len(data) > MAX_RESPONSE:
        raise ResolveError(f"a response of {len(data)} octets; the limit is {MAX_RESPONSE}")
    held = Names(data)
    try:
        return [_read_answer(data, held, record) for record in _of_use(read_records(data, position, count))]
    except WireError as exc:
        raise ResolveError(f"a response that cannot be decoded: {exc}") from exc


def _of_use(records: list[Record]) -> list[Record]:
    found = [
        record
        for record in records
        if record.rclass == _IN and (record.rtype == _CNAME or record.rtype in ADDRESS_LENGTHS)
    ]
    if sum(record.rtype == _CNAME for record in found) > MAX_CNAMES:
        raise WireError(f"more than {MAX_CNAMES} CNAMEs")
    return found


def _read_answer(data: bytes, held: Names, record: Record) -> _Answer:
    owner = held.read(record.owner).lower()
    if record.rtype == _CNAME:
        target = held.read(record.start).lower()
        if skip_name(data, record.start) != record.end:
            raise WireError("record data is not as long as it says")
        return _Answer(owner, record.rtype, record.ttl, target=target)
    if record.end - record.start != ADDRESS_LENGTHS[record.rtype]:
        raise WireError("record data is not as long as it says")
    return _Answer(owner, record.rtype, record.ttl, address=data[record.start : record.end])
