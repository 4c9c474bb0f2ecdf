"""Ask resolvers for the addresses of a name; `observe` then decides what to publish.

What is sent when, and which reply counts, is decided by `core.exchange` as in the proxy: TCP after a
truncated reply, no OPT after an error about it, late replies. Only the answer section of a response is
decoded, and only after header and question have been matched (RFC 5452 §9.1).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple, cast

import asyncio_dgram

from dnsproxy.core import names, wire
from dnsproxy.core.attempt import Attempt, Failure, Limits, Verdict
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.learned import canonical_addresses
from dnsproxy.core.records import ADDRESS_LENGTHS, Names, Record, read_records
from dnsproxy.core.registry import Wanted
from dnsproxy.core.response import MAX_CNAMES, scan_response
from dnsproxy.core.upstreams import Source, Upstream
from dnsproxy.core.wire import skip_name
from dnsproxy.errors import ResolveError, WireError
from dnsproxy.helper.observe import Answer, Look, combine
from dnsproxy.settings.values import Endpoint
from dnsproxy.transport.source_address import connect_socket

# Seconds for one attempt at a resolver, and for how many of them a lookup may take.
TIMEOUT = 2.0
ATTEMPTS = 2
# Real chains have two or three links; BIND stops at 16, Unbound at 11.
MAX_CHAIN = 8
# Bytes. 250 A records fit.
MAX_RESPONSE = 4096
# Messages of one TCP connection that are looked at: it carries one query.
MAX_MESSAGES = 10
# Seconds between two looks for an ICMP error, which does not wake a waiting recv().
_ERROR_POLL = 0.1

_IN = 1
_A, _CNAME, _AAAA = 1, 5, 28


@dataclass(frozen=True, slots=True)
class Patience:
    """The most seconds for one attempt before the next, how many of those in all, and their source."""

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
    records: list[_Answer] = field(default_factory=list)


async def _ask(key: bytes, qtype: int, resolver: Endpoint, patience: Patience) -> _Message:
    """Return a matching response with rcode NOERROR."""
    now = asyncio.get_running_loop().time()
    lookup = _Lookup(key, qtype, _upstream(resolver), patience, now)
    return await _Client(lookup, resolver, patience.source).run()


@lru_cache(maxsize=256)
def _upstream(resolver: Endpoint) -> Upstream:
    """Return what is known of ``resolver``, such as whether it does EDNS, for the life of the process."""
    return Upstream(str(resolver), (resolver.host, resolver.port), tcp=resolver.transport == "tcp")


class _Sent:
    """An attempt with the id that it was sent with."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.ident = secrets.token_bytes(2)
        self.query = self.ident + attempt.payload


class _Lookup:
    """One question to one resolver: decides as the proxy does for its upstreams (`core.exchange`).

    ``message`` is the response that was taken, ``refused`` why one was not, or why an attempt failed.
    """

    def __init__(self, key: bytes, qtype: int, upstream: Upstream, patience: Patience, now: float) -> None:
        self.message: _Message | None = None
        self.refused: ResolveError | None = None
        self.sends = 0
        self._key = key
        self._seconds = patience.timeout
        limits = Limits(patience.timeout, patience.timeout * patience.attempts)
        question = key + struct.pack(">HH", qtype, wire.IN)
        self._end = wire.HEADER + len(question)
        query = wire.scan_query(b"\0\0" + wire.upstream_query(question, wire.RD, edns=False, do=False))
        self.exchange = Exchange(key, query, (upstream,), limits, now)

    def next_query(self, now: float) -> _Sent | None:
        """Return what to send next, if anything."""
        attempt = self.exchange.next_attempt(now)
        if attempt is None:
            return None
        self.sends += 1
        return _Sent(attempt)

    def receive(self, sent: _Sent, data: bytes, now: float) -> Verdict:
        """Judge ``data``, which came where ``sent`` went."""
        if data[:2] != sent.ident:
            return Verdict.IGNORED
        try:
            records = self._read(data)
        except ResolveError as exc:
            # It may be forged, so the wait continues; when nothing better comes this is the reason.
            self.refused = exc
            return Verdict.IGNORED
        verdict = self.exchange.receive_reply(data, now, sent.attempt)
        if records is not None:
            response = self.exchange.response
            if verdict is Verdict.DONE and response is not None:
                self.message = _Message(response.rcode, records)
            elif verdict is Verdict.NEXT or verdict is Verdict.IGNORED:
                self.refused = self._refusal(data)
        return verdict

    def _read(self, data: bytes) -> list[_Answer] | None:
        """Return the answer in ``data``; None when it is truncated, or does not answer the question."""
        if len(data) < self._end or data[2] & wire.TC_OCTET or not self.exchange.matches(data):
            return None
        if len(data) > MAX_RESPONSE:
            raise ResolveError(f"a response of {len(data)} bytes; the limit is {MAX_RESPONSE}")
        return _read_answers(data, self._end, data[6] << 8 | data[7])

    def _refusal(self, data: bytes) -> ResolveError:
        """Return why ``data``, which has the question, is no answer."""
        try:
            rcode = scan_response(data, self._end).rcode
            return self._error(rcode) if rcode else ResolveError("a referral to other servers")
        except WireError as exc:
            return ResolveError(f"a response that cannot be decoded: {exc}")

    def result(self) -> _Message:
        """Return the response.

        Raises:
            ResolveError: there is none, or one with another rcode than NOERROR.
        """
        if self.message is None:
            plural = "attempt" if self.sends == 1 else "attempts"
            reason = self.refused or ResolveError(f"no response within {self._seconds:g} s")
            raise ResolveError(f"{reason} ({self.sends} {plural})")
        if self.message.rcode:
            raise self._error(self.message.rcode)
        return self.message

    def _error(self, rcode: int) -> ResolveError:
        return ResolveError(f"{wire.rcode_name(rcode)} for {names.to_text(self._key)}")


class _Client:
    """Carries out a lookup: a socket or connection for each attempt, open until the lookup ends."""

    def __init__(self, lookup: _Lookup, resolver: Endpoint, source: Source | None) -> None:
        self._lookup = lookup
        self._resolver = resolver
        self._source = source
        self._changed = asyncio.Event()
        self._open: dict[_Sent, asyncio.Task[None]] = {}
        self._clock = asyncio.get_running_loop().time

    async def run(self) -> _Message:
        """Return the response.

        Raises:
            ResolveError: see `_Lookup.result`.
        """
        exchange = self._lookup.exchange
        async with asyncio.TaskGroup() as group:
            while exchange.response is None:
                if not exchange.is_waiting:
                    sent = self._lookup.next_query(self._clock())
                    if sent is not None:
                        self._open[sent] = group.create_task(self._carry_out(sent))
                if not exchange.listening:
                    break
                await self._wait()
            for task in self._open.values():
                task.cancel()
        return self._lookup.result()

    async def _wait(self) -> None:
        """Wait until something has come, or the time of an attempt is over."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(sent.attempt.deadline for sent in self._open)):
                await self._changed.wait()
        now = self._clock()
        for sent, task in list(self._open.items()):
            if sent.attempt.deadline <= now and not self._lookup.exchange.time_out(sent.attempt, now):
                del self._open[sent]
                task.cancel()

    async def _carry_out(self, sent: _Sent) -> None:
        """Send ``sent`` and judge what comes; map all that a socket can raise."""
        try:
            if sent.attempt.tcp:
                while not await self._over_tcp(sent):
                    pass
            else:
                await self._over_udp(sent)
            self._open.pop(sent, None)
        except (asyncio.IncompleteReadError, asyncio_dgram.TransportClosed):
            self._fail(sent, "the connection was closed before a response")
        except OSError as exc:
            # asyncio puts a text of its own in place of the system's.
            self._fail(sent, os.strerror(exc.errno).lower() if exc.errno else str(exc))
        finally:
            self._changed.set()

    def _fail(self, sent: _Sent, reason: str) -> None:
        if self._open.pop(sent, None) is not None:
            self._lookup.refused = self._lookup.refused or ResolveError(reason)
            self._lookup.exchange.fail_attempt(Failure.NETWORK, self._clock(), sent.attempt)

    def _receive(self, sent: _Sent, data: bytes) -> bool:
        """Judge ``data``; return whether nothing more is to come where it came from."""
        verdict = self._lookup.receive(sent, data, self._clock())
        if verdict is not Verdict.IGNORED:
            self._changed.set()
        return verdict not in {Verdict.IGNORED, Verdict.HINT}

    async def _connect(self, kind: socket.SocketKind) -> socket.socket:
        return await connect_socket(kind, self._resolver.host, self._resolver.port, self._source)

    async def _over_udp(self, sent: _Sent) -> None:
        sock = await self._connect(socket.SOCK_DGRAM)
        stream = cast("asyncio_dgram.aio.DatagramClient", await asyncio_dgram.from_socket(sock))
        try:
            await stream.send(sent.query)
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ERROR_POLL):
                        data, _ = await stream.recv()
                    if self._receive(sent, data):
                        return
        finally:
            stream.close()

    async def _over_tcp(self, sent: _Sent) -> bool:
        """Send ``sent`` over TCP; False where the connection was lost, and another one may be tried."""
        reader, writer = await asyncio.open_connection(sock=await self._connect(socket.SOCK_STREAM))
        try:
            writer.write(struct.pack(">H", len(sent.query)) + sent.query)
            for _ in range(MAX_MESSAGES):
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                if self._receive(sent, await reader.readexactly(length)):
                    return True
            raise OSError(f"{MAX_MESSAGES} messages that are no response")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            if not self._lookup.exchange.may_resend(self._clock(), is_answering=False):
                raise
            return False
        finally:
            # Nothing is left to send, and a peer that does not read must not hold us.
            writer.transport.abort()


def _read_answers(data: bytes, position: int, count: int) -> list[_Answer]:
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
