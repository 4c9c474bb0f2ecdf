"""Fill one structure as a remote party would, well beyond its limit, and write how much memory that takes.

Run in a process of its own (``python -m tests.fills NAME``), so that resident memory is what is measured.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import struct
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

from dnsproxy.core import memory
from dnsproxy.core.cache import Cache
from dnsproxy.core.clients import Clients
from dnsproxy.core.cuts import Cuts
from dnsproxy.core.exchange import Forward
from dnsproxy.core.failures import Failures
from dnsproxy.core.limiter import RateLimiter
from dnsproxy.core.policy import Owned
from dnsproxy.core.response import Response, scan_response
from dnsproxy.net import heap
from tests.certificates import make_certificate
from tests.fakes.encrypted import NAME, tls_world
from tests.fakes.tcp import tcp_world
from tests.messages import CLIENT, REGISTRY, engine, query, resolve

# An idle connection takes no more than that.
IDLE_TLS_CLIENT = 64 * memory.KIB
# Less than the real one, so that few clients are needed.
BUFFERS = 4 * memory.MIB
CACHE_BYTES = 20 * memory.MIB
_PAGE = 4096
# TYPE65280, whose data may have any length.
_QUESTION = b"\x03www\x07example\x00\xff\x00\x00\x01"


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def response(records: int, size: int) -> Response:
    """Return a scanned response with ``records`` of ``size`` bytes of data each."""
    header = b"\0\0\x81\x80\0\1" + struct.pack(">H", records) + bytes(4)
    record = b"\xc0\x0c\xff\0\0\1" + struct.pack(">IH", 3600, size) + bytes(size)
    return scan_response(header + _QUESTION + record * records, 12 + len(_QUESTION))


def long_key(number: int, labels: int = 4) -> bytes:
    """Return the key of a question with a long name."""
    return b"".join(b"\x3c%060x" % (number * labels + label) for label in range(labels)) + b"\0\0\1\0\1"


def fill_cache(*shapes: tuple[int, int], short: bool = False) -> int:
    """Fill a cache with answers of these shapes (records, bytes of each), round and round."""
    cache = Cache(10_000_000, max_bytes=CACHE_BYTES)
    before = resident()
    put = number = 0
    while put < 3 * CACHE_BYTES:
        records, size = shapes[number % len(shapes)]
        key = b"\x08%08x\0\0\1\0\1" % number if short else long_key(number)
        cache.keep(key, response(records, size), 0.0)
        put += records * (size + 40) + len(key) + 400
        number += 1
    return resident() - before


def fill_prepared(addresses: int, *, padding: int = 0, cached: bool = False) -> int:
    """Ask for an owned name, or a ``cached`` one in every order, in packets that all differ."""
    given = tuple(f"10.0.{number // 250}.{number % 250}" for number in range(addresses))
    made = engine([] if cached else [Owned(REGISTRY, addresses=given)])
    asked = query(REGISTRY, use_edns=0, payload=1232)
    if cached:
        resolve(made, asked, [f"{REGISTRY} 60 IN A {address}" for address in given])
    made.receive(asked, CLIENT, 1.0)
    before = resident()
    for number in range(60_000 if addresses < 10 else 4_000):
        packet = bytearray(asked)
        packet[-2:] = (8 + padding).to_bytes(2, "big")
        sent = bytes(packet) + struct.pack(">HHI", 65001, 4 + padding, number) + bytes(padding)
        for _ in range(addresses if cached else 1):
            made.receive(sent, CLIENT, 1.0)
    assert len(made.prepared) > 100
    return resident() - before


def fill_failures() -> int:
    failures = Failures()
    before = resident()
    for number in range(60_000):
        failures.remember(long_key(number), 23, float(number))
    return resident() - before


def fill_cuts() -> int:
    cuts = Cuts()
    name = b"\x3f" + bytes(63)
    soa = name * 3 + b"\0" + name * 3 + b"\0" + struct.pack(">5I", 1, 2, 3, 4, 5)
    record = name * 3 + b"\0" + struct.pack(">HHIH", 6, 1, 60, len(soa)) + soa
    reply = b"\0\0\x81\x83\0\1\0\0\0\1\0\0" + _QUESTION + record
    before = resident()
    for number in range(60_000):
        cuts.keep(b"\0", long_key(number)[:-4], reply, 60.0, 0.0)
    assert len(cuts) > 1000
    return resident() - before


def fill_client_rates() -> int:
    limiter = RateLimiter(5.0, clients=Clients(ipv6_prefix=128))
    before = resident()
    for number in range(300_000):
        limiter.verdict(number.to_bytes(16, "big"), number / 7)
    return resident() - before


def fill_waiters() -> int:
    """Ask few questions in many long queries over TCP, which all wait."""
    made = engine(max_in_flight=1000)
    asked = [
        query(f"n{number}.example.", use_edns=0)[:-2] + struct.pack(">HHH", 3004, 12, 3000) + bytes(3000)
        for number in range(40)
    ]
    before = resident()
    joined = 0
    for number in range(20_000):
        step = made.receive(bytes(bytearray(asked[number % 40])), CLIENT, 1.0, tcp=True)
        if isinstance(step, Forward):
            step.exchange.waiters.append((step.query, None, None, 1.0 + number))
            joined += 1
    assert joined > 1000
    return resident() - before


def _filled(kind: str, count: int, each: int, *, tls: bool = True) -> tuple[int, Callable[[], int]]:
    return count * each + BUFFERS, lambda: fill_clients(kind, count, tls=tls)


def fill_clients(kind: str, count: int, *, tls: bool = True) -> int:
    """Have ``count`` connections send what `tests.fill_clients` does; return the most that was seen."""
    return asyncio.run(_fill_clients(kind, count, tls=tls))


async def _fill_clients(kind: str, count: int, *, tls: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder), NAME)
        world = (
            tls_world(certificate, max_clients=2 * count, max_per_client=2 * count)
            if tls
            else tcp_world(max_clients=2 * count, max_per_client=2 * count)
        )
        async with world as made:
            made.listener._places.buffers.limit = BUFFERS
            port = str(made.listener.address[1])

            async def fill(number: int) -> int:
                arguments = [kind, port, str(number), *([str(certificate)] if tls else [])]
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "tests.fill_clients", *arguments, stdin=PIPE, stdout=PIPE
                )
                assert process.stdout is not None
                sent = asyncio.create_task(process.stdout.readline())
                seen = 0
                try:
                    while not sent.done():
                        await asyncio.wait([sent], timeout=0.05)
                        seen = max(seen, resident())
                    assert sent.result() == b"sent\n"
                    # What is on its way is taken in a few rounds of the loop.
                    await asyncio.wait([asyncio.create_task(process.wait())], timeout=0.2)
                    return max(seen, resident())
                finally:
                    process.kill()
                    await process.wait()

            await fill(2)
            await made.all_gone()
            before = resident()
            seen = await fill(count)
            await made.all_gone()
            heap._trimmed_at = 0.0
            made.listener._close_idle()
            if seen - before > heap.ENOUGH:
                assert resident() - before < (seen - before) / 2, "memory comes back after the connections"
            return seen - before


# What is filled, its limit, and how.
FILLS: dict[str, tuple[int, Callable[[], int]]] = {
    "cache, small answers": (CACHE_BYTES, lambda: fill_cache((1, 4), short=True)),
    "cache, answers of 4,000 records": (CACHE_BYTES, lambda: fill_cache((4000, 4))),
    "cache, answers of 60 kB": (CACHE_BYTES, lambda: fill_cache((1, 60_000))),
    "cache, all kinds": (
        CACHE_BYTES,
        lambda: fill_cache((1, 4), (4000, 4), (1, 500), (30, 16), (2, 200), (1, 9000)),
    ),
    "prepared, one address": (memory.PREPARED, lambda: fill_prepared(1)),
    "prepared, 70 addresses": (memory.PREPARED, lambda: fill_prepared(70)),
    "prepared, cached sets that rotate": (memory.PREPARED, lambda: fill_prepared(4, cached=True)),
    "prepared, padded queries": (memory.PREPARED, lambda: fill_prepared(1, padding=1000)),
    "failures": (memory.FAILURES, fill_failures),
    "NXDOMAIN cuts": (memory.CUTS, fill_cuts),
    "client rates": (memory.CLIENT_RATES, fill_client_rates),
    "waiting queries": (memory.WAITERS, fill_waiters),
    "TCP clients, idle": (200 * memory.TCP_CLIENT, lambda: fill_clients("idle", 200, tls=False)),
    # Most of these are closed to make room for the next ones.
    "TCP clients, unfinished": _filled("unfinished", 300, memory.TCP_CLIENT, tls=False),
    "TCP clients, unread": _filled("unread", 4, memory.TCP_CLIENT, tls=False),
    "DoT clients, idle": (60 * IDLE_TLS_CLIENT, lambda: fill_clients("idle", 60)),
    "DoT clients, unfinished records": _filled("record", 60, memory.TLS_CLIENT),
    "DoT clients, unfinished": _filled("unfinished", 100, memory.TLS_CLIENT),
    "DoT clients, unread": _filled("unread", 4, memory.TLS_CLIENT),
    "DoH clients, idle": (60 * IDLE_TLS_CLIENT, lambda: fill_clients("idle-http2", 60)),
    "DoH clients, unfinished": _filled("unfinished-http2", 8, memory.TLS_CLIENT),
    "DoH clients, HTTP/1.1": _filled("unfinished-http1", 100, memory.TLS_CLIENT),
}


def main() -> None:
    """Write the growth for the structure that is named."""
    signal.alarm(280)
    sys.stdout.write(f"{FILLS[sys.argv[1]][1]()}\n")


if __name__ == "__main__":
    main()
