"""One client of a running proxy takes all that it can; another one gets each answer that there is."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest

from dnsproxy.core.fairness import MAX_PER_CLIENT
from dnsproxy.net.msghdr import BATCH
from tests.certificates import make_certificate
from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, REGISTRY, World
from tests.faults.conftest import FULL
from tests.messages import addresses, query, read, reply_to

pytestmark = pytest.mark.faults

# Addresses of loopback count as clients of their own.
FLOOD, OTHER, OUTSIDE = "127.0.0.2", "127.0.0.3", "127.0.1.1"
ANSWER = "192.0.2.1"
# Of names per second that nobody answers: 2 Mbit/s.
RATE = 6000
SECONDS = 20.0 if FULL else 5.0
SLOW = 0.6
PLACES = 512


class Slow:
    """An upstream: names below ``slow.`` after `SLOW` seconds, others when the test says, if at all."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(0.01)
        self.endpoint = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.held: list[tuple[bytes, tuple[str, int]]] = []
        self.answered: list[bytes] = []
        self._due: list[tuple[float, bytes, tuple[str, int]]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()
        self.sock.close()

    def _run(self) -> None:
        while not self._end.is_set():
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, asked, peer = self._due.pop(0)
                self.answer(asked, peer)
            try:
                asked, peer = self.sock.recvfrom(4096)
            except TimeoutError:
                continue
            if b"\4slow" in asked:
                self._due.append((now + SLOW, asked, peer))
            elif b"\4held" in asked:
                self.held.append((asked, peer))

    def answer(self, asked: bytes, peer: tuple[str, int]) -> None:
        name = read(asked).question[0].name
        self.sock.sendto(reply_to(asked, [f"{name} 60 IN A {ANSWER}"]), peer)
        self.answered.append(asked)

    def release(self) -> None:
        held, self.held = self.held, []
        for asked, peer in held:
            self.answer(asked, peer)


@pytest.fixture
def upstream() -> Iterator[Slow]:
    with Slow() as made:
        yield made


@pytest.fixture
def flooded(world: World, upstream: Slow, tmp_path: Path) -> World:
    """A running world with that upstream, which allows 127.0.0.0/24, and listens for TLS as well."""
    certificate = make_certificate(tmp_path, "dns.example")
    port = world.take_port()
    world.configure(
        serve={
            "allow": ["127.0.0.0/24"],
            "max_tcp_clients": PLACES,
            "tls": {
                "listen": [f"127.0.0.1:{port}"],
                "cert_file": str(certificate),
                "key_file": str(certificate),
            },
        },
        forward={
            "upstreams": [upstream.endpoint],
            "timeout": {"attempt": "1s", "total": "1800ms"},
        },
    )
    world.source.start()
    world.start_helper()
    world.start_proxy()
    world.wait_ready()
    return world


@contextmanager
def client(world: World, source: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", world.dns_port))
        sock.settimeout(10)
        yield sock


class Sender:
    """Sends what ``make`` returns for each number, `RATE` times per second, while its context lasts."""

    def __init__(self, world: World, make: Callable[[int], bytes]) -> None:
        self._world = world
        self._make = make
        self.sent = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with client(self._world, FLOOD) as sock:
            begun = time.monotonic()
            while not self._end.wait(0.002):
                while self.sent < (time.monotonic() - begun) * RATE:
                    sock.send(self._make(self.sent))
                    self.sent += 1


def drops(world: World, reason: str) -> float:
    return world.metric(f'dnsproxy_drops_total{{reason="{reason}"}}')


def raw(number: int, name: bytes) -> bytes:
    """A query that costs its sender little to make."""
    label = b"n%d" % number
    header = struct.pack(">6H", number & 0xFFFF, 0x100, 1, 0, 0, 0)
    return header + bytes((len(label),)) + label + name + b"\0\0\1\0\1"


@pytest.mark.timeout(300)
def test_names_that_are_never_answered_cost_another_client_nothing(
    flooded: World, note: Callable[[str], None]
) -> None:
    asked, took = 0, []
    with (
        Sender(flooded, lambda number: raw(number, b"\5never\7example")) as sender,
        client(flooded, OTHER) as sock,
    ):
        wait_for(lambda: drops(flooded, "overloaded") > 0, "all places are taken")
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for ident in range(10):
                sock.send(query(f"s{asked}-{ident}.slow.example.", ident=ident))
            begun = time.monotonic()
            found = [sock.recv(4096) for _ in range(10)]
            took.append(time.monotonic() - begun)
            assert {read(data).id for data in found} == set(range(10))
            assert all(addresses(data) == [ANSWER] for data in found)
            asked += 1
    note(
        f"{sender.sent} names never answered, {10 * asked} slow ones of another client all answered, "
        f"the slowest ten within {max(took):.2f} s; dropped {drops(flooded, 'overloaded'):g}, "
        f"given up for it {drops(flooded, 'over_share'):g}"
    )
    assert drops(flooded, "over_share") >= 10


def test_a_thousand_copies_of_a_query_keep_no_client_from_its_answer(
    flooded: World, upstream: Slow, note: Callable[[str], None]
) -> None:
    with client(flooded, FLOOD) as flood, client(flooded, OTHER) as other:
        for number in range(1000):
            flood.send(query("www.held.example.", ident=1))
            flood.send(query("www.held.example.", ident=number + 2))
            if number % 50 == 0:
                # What is asked behind it was read behind it.
                flood.send(query(f"{REGISTRY}.", ident=9))
                assert addresses(flood.recv(4096)) == [ADDRESSES[REGISTRY]]
        other.send(query("www.held.example.", ident=1))
        other.send(query(f"{REGISTRY}.", ident=2))
        assert addresses(other.recv(4096)) == [ADDRESSES[REGISTRY]]
        assert len(upstream.held) == 1
        upstream.release()
        assert (read(data := other.recv(4096)).id, addresses(data)) == (1, [ANSWER])
    copies, others = drops(flooded, "duplicate"), drops(flooded, "too_many_waiters")
    # Once its client has all that it may have waiting beside the first, a copy counts as one more.
    # One that is read in the same batch as the last of these does.
    assert copies >= MAX_PER_CLIENT - 1 - BATCH
    assert copies + others == 2000 - 1 - MAX_PER_CLIENT
    note(f"{copies:g} copies ignored, {others:g} further ones beyond the limit, the other client answered")


@pytest.mark.timeout(300)
def test_connections_from_outside_the_access_list_keep_no_client_out(
    flooded: World, note: Callable[[str], None]
) -> None:
    tls = int(flooded.configuration()["serve"]["tls"]["listen"][0].rpartition(":")[2])
    with ExitStack() as stack:
        for number in range(PLACES):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(10)
            sock.bind((OUTSIDE, 0))
            sock.connect(("127.0.0.1", (flooded.dns_port, tls)[number % 2]))
        for options in (("+tcp",), ("+tls", "-p", str(tls))):
            assert flooded.server.dig(*options, REGISTRY).data == [ADDRESSES[REGISTRY]]
        wait_for(lambda: drops(flooded, "refused_client") >= PLACES, "each is counted")
    note(f"{PLACES} idle connections refused, another client answered over TCP and TLS")
