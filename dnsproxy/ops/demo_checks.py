"""What ``demo --once`` asks its proxy, through real sockets, and what it must see."""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import asyncio_dgram
from dnslib import QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from dnsproxy.ops.demo_world import AUTH, BUCKET, OTHER, REGISTRY, STORAGE, Lookup, lookup_example
from dnsproxy.settings.values import Endpoint

# Seconds for one answer. On loopback it takes a thousandth of this.
TIMEOUT = 3.0
# Seconds for a change at the source to reach the answers: one round of the helper and one pull.
CHANGE_TIMEOUT = 15.0
# Seconds between two looks for the change.
_POLL = 0.05
_HTTPS = 65


@dataclass(frozen=True, slots=True)
class Check:
    """One query and the addresses that must come back; none for NODATA with an SOA (RFC 2308 §2.2)."""

    title: str
    name: str
    expected: tuple[str, ...] = ()
    qtype: int = QTYPE.A
    tcp: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What ``check`` saw, in words."""

    check: Check
    seen: str
    passed: bool


def checks(source: Lookup) -> list[Check]:
    """Return the queries to try; ``source`` says what the source region answers now."""
    return [
        Check("registry, A over UDP", REGISTRY, source(REGISTRY) or ()),
        Check("auth, A over UDP", AUTH, source(AUTH) or ()),
        Check("storage, A over UDP", STORAGE, source(STORAGE) or ()),
        Check("a bucket below the storage endpoint", BUCKET, source(BUCKET) or ()),
        Check("registry, A over TCP", REGISTRY, source(REGISTRY) or (), tcp=True),
        Check("registry, AAAA: no such data", REGISTRY, qtype=QTYPE.AAAA),
        Check("registry, HTTPS: no such data", REGISTRY, qtype=_HTTPS),
        Check("another name, from the upstream", OTHER, lookup_example(OTHER) or ()),
    ]


async def run_checks(server: Endpoint, wanted: Sequence[Check]) -> list[Result]:
    """Ask ``server`` all of ``wanted``, one after the other. Never raises for what comes back."""
    return [await run_check(server, check) for check in wanted]


async def run_check(server: Endpoint, check: Check) -> Result:
    """Ask ``server`` and compare. Never raises for what comes back."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reply = await _ask(server, check)
    except TimeoutError:
        return Result(check, f"no answer within {TIMEOUT:g} s", passed=False)
    except (OSError, EOFError, ValueError, asyncio_dgram.TransportClosed) as exc:
        return Result(check, str(exc) or type(exc).__name__, passed=False)
    return _judge(check, reply)


async def wait_for_change(server: Endpoint, check: Check) -> Result:
    """Ask again and again until ``check`` passes, for `CHANGE_TIMEOUT` at the most."""
    started = monotonic()
    while True:
        result = await run_check(server, check)
        waited = monotonic() - started
        if result.passed or waited > CHANGE_TIMEOUT:
            return Result(check, f"{result.seen}, after {waited:.1f} s", result.passed)
        await asyncio.sleep(_POLL)


async def _ask(server: Endpoint, check: Check) -> DNSRecord:
    query = DNSRecord(
        DNSHeader(id=secrets.randbits(16), rd=1), q=DNSQuestion(f"{check.name}.", check.qtype)
    ).pack()
    exchange = _over_tcp if check.tcp else _over_udp
    data = await exchange(server, bytes(query))
    if data[:2] != query[:2]:
        raise ValueError("a response to another query")
    try:
        return DNSRecord.parse(data)
    except Exception as exc:
        raise ValueError(f"not a DNS message: {exc}") from exc


async def _over_udp(server: Endpoint, query: bytes) -> bytes:
    stream = await asyncio_dgram.connect((server.host, server.port))
    try:
        await stream.send(query)
        data, _ = await stream.recv()
        return bytes(data)
    finally:
        stream.close()


async def _over_tcp(server: Endpoint, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(struct.pack(">H", len(query)) + query)
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.transport.abort()


def _judge(check: Check, reply: DNSRecord) -> Result:
    rcode = RCODE.get(reply.header.rcode)
    found = sorted((record for record in reply.rr if record.rtype == check.qtype), key=str)
    has_soa = any(record.rtype == QTYPE.SOA for record in reply.auth)
    if found:
        seen = f"{', '.join(str(record.rdata) for record in found)} (TTL {found[0].ttl})"
    else:
        seen = f"{rcode}, no answer, {'SOA' if has_soa else 'no SOA'}"
    addresses = tuple(str(record.rdata) for record in found)
    right = addresses == check.expected if check.expected else not reply.rr and has_soa
    return Result(check, seen, passed=rcode == "NOERROR" and right)


def results_table(results: Sequence[Result]) -> Table:
    """Return one row per check: what was asked, what came back, and whether it is right."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("check")
    table.add_column("seen", overflow="fold")
    table.add_column("result")
    for result in results:
        verdict = Text("ok", style="green") if result.passed else Text("FAILED", style="bold red")
        table.add_row(result.check.title, result.seen, verdict)
    return table
