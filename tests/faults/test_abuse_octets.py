"""Octets that no client should send, to real sockets; what each is answered with, and how large that is."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import dns.edns
import pytest

from tests.e2e.processes import wait_for
from tests.e2e.world import ADDRESSES, OTHER, REGISTRY, STORAGE, World
from tests.faults.conftest import FULL
from tests.faults.fuzz import corpus
from tests.messages import addresses, query

pytestmark = pytest.mark.faults

MUTATIONS = 20_000 if FULL else 2000
# Larger than what UDP carries, and just fitting.
LARGE, FITTING = "large.example", "fit.example"
# The most that an allowed client gets back for an octet: 1,232 for the shortest query that has an OPT.
FACTOR = 1232 / 28
# Seconds within which a busy machine answers.
PATIENCE = 10.0


@pytest.fixture(scope="module")
def open_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A running world that allows 127.0.0.1, and not 127.0.0.9."""
    with World(tmp_path_factory.mktemp("w")) as world:
        text = f'"{"x" * 250}" '
        records = [f"{LARGE} 60 IN TXT {12 * text}", f"{FITTING} 60 IN TXT {4 * text}"]
        zone = world.add_unbound("large", ["example"], records)
        world.configure(serve={"allow": ["127.0.0.1/32", "::1/128"]}, forward={"upstreams": [zone.endpoint]})
        zone.start()
        world.source.start()
        world.start_helper()
        world.start_proxy()
        world.wait_ready()
        yield world


def udp(world: World, source: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", world.dns_port))
    sock.settimeout(PATIENCE)
    return sock


def tcp(world: World) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", world.dns_port), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def take(sock: socket.socket) -> bytes:
    """Return the next message of a TCP connection; nothing when it was closed."""
    with sock.makefile("rb", buffering=0) as file:
        head = file.read(2) or b""
        data = b""
        while len(head) == 2 and len(data) < int.from_bytes(head, "big"):
            data += file.read(int.from_bytes(head, "big") - len(data)) or b""
        return data


def malformed() -> Iterator[bytes]:
    """Whatever fuzzing has kept, and good queries with some octets changed, cut out or put in."""
    kept = [data for target in ("query", "scan", "reply") for data in corpus.read(target)]
    yield from kept
    good = [query(f"{REGISTRY}."), query(f"{OTHER}.", use_edns=0), query("x.local.", "TXT", use_edns=0)]
    draw = random.Random(3)  # noqa: S311 - nothing is protected by it
    for _ in range(MUTATIONS):
        data = bytearray(draw.choice([*good, *kept]) or b"\0")
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(data) or 1)
            data[place : place + draw.randint(0, 3)] = draw.randbytes(draw.randint(0, 3))
        yield bytes(data)


def check_unharmed(world: World) -> None:
    for sock in (udp(world), tcp(world)):
        with sock:
            is_tcp = sock.type == socket.SOCK_STREAM
            asked = query(f"{REGISTRY}.")
            sock.sendall(framed(asked) if is_tcp else asked)
            assert addresses(take(sock) if is_tcp else sock.recv(4096)) == [ADDRESSES[REGISTRY]]
    assert "Traceback" not in world.proxy.text()
    assert world.admin("/health").status == 200


def test_malformed_datagrams(open_world: World) -> None:
    sent = {}
    with udp(open_world) as sock:
        for number, data in enumerate(malformed()):
            # An id for each, so that what comes back is known.
            data = number.to_bytes(2, "big") + data[2:] if len(data) >= 2 else data  # noqa: PLW2901 - the same one
            sent[data[:2]] = data
            sock.send(data)
            if number % 50 == 49:
                # So many at a time: the kernel would drop what is more than its buffer.
                _drain(sock, sent)
        _drain(sock, sent)
    check_unharmed(open_world)


def _drain(sock: socket.socket, sent: dict[bytes, bytes]) -> None:
    """Read until a good query, sent last, is answered; everything that comes answers something sent."""
    last = query(f"{REGISTRY}.", ident=0xFFFF)
    sock.send(last)
    while (data := sock.recv(65_535))[:2] != last[:2]:
        asked = sent[data[:2]]
        assert data[2] & 0x80, "a response"
        assert len(data) <= 1232
        assert data[2] & 0x78 == asked[2] & 0x78, "the opcode is echoed"


def test_malformed_messages_over_tcp(open_world: World) -> None:
    sock = tcp(open_world)
    for number, data in enumerate(malformed()):
        sock.sendall(framed(data))
        if len(data) < 12 or number % 20 == 19:
            # Nothing can follow what is no message: the connection ends, with answers it owed.
            sock.shutdown(socket.SHUT_WR)
            while answer := take(sock):
                assert answer[2] & 0x80
            sock.close()
            sock = tcp(open_world)
    sock.close()
    check_unharmed(open_world)


def test_one_octet_at_a_time(open_world: World) -> None:
    asked = framed(query(f"{REGISTRY}.")) + framed(query(f"{STORAGE}.", "AAAA"))
    with tcp(open_world) as sock:
        for octet in asked:
            sock.send(bytes([octet]))
            # Nothing else waits for it, however slow it is.
            with udp(open_world) as other:
                other.send(query(f"{REGISTRY}."))
                assert addresses(other.recv(4096)) == [ADDRESSES[REGISTRY]]
        assert addresses(take(sock)) == [ADDRESSES[REGISTRY]]
        assert take(sock)[3] & 0xF == 0


def test_a_client_that_never_ends_its_message_is_closed(open_world: World) -> None:
    with tcp(open_world) as sock:
        sock.settimeout(60)
        started = time.monotonic()
        sock.sendall(framed(query(f"{REGISTRY}."))[:-1])
        assert take(sock) == b""
        # Not at once, and not for ever: octets that end no message do not count as life.
        assert 5 < time.monotonic() - started < 45


def test_lengths_that_promise_too_much(open_world: World) -> None:
    """A message of 65,535 octets is read, one of none ends the connection; neither costs others anything."""
    with tcp(open_world) as sock:
        sock.sendall(framed(query(f"{REGISTRY}.").ljust(65_535, b"\0")))
        assert take(sock)[3] & 0xF == 1
        sock.sendall(framed(b""))
        assert take(sock) == b""
    check_unharmed(open_world)


# -- amplification -----------------------------------------------------------------------


COOKIE = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
QUERIES = {
    "a name of one octet": query("x."),
    "the shortest": query("."),
    "any": query(f"{OTHER}.", "ANY"),
    "with an OPT": query(f"{LARGE}.", "TXT", use_edns=0, payload=4096),
    "that fits": query(f"{FITTING}.", "TXT", use_edns=0, payload=4096),
    "with DO": query(".", "DNSKEY", use_edns=0, payload=65_535, want_dnssec=True),
    "with a cookie": query(f"{REGISTRY}.", use_edns=0, options=[COOKIE]),
    "an owned name": query(f"{REGISTRY}."),
    "a status": query(f"{OTHER}.")[:2] + b"\x10\0" + query(f"{OTHER}.")[4:],
    "no question": query(".")[:4] + bytes(8),
    "not whole": query(f"{OTHER}.")[:-3],
    "of another version": query(f"{OTHER}.", use_edns=1),
}


@pytest.mark.parametrize("kind", QUERIES)
def test_who_is_refused_gets_no_more_than_was_sent(open_world: World, kind: str) -> None:
    asked = QUERIES[kind]
    with udp(open_world, "127.0.0.9") as sock:
        sock.send(asked)
        # One response, REFUSED or none at all: the next query's comes after it.
        mark = query(".", ident=9)
        sock.send(mark)
        got = []
        while (data := sock.recv(65_535))[:2] != mark[:2]:
            got.append(data)
    assert len(got) <= 1
    assert all(len(data) <= len(asked) and not data[6:8].strip(b"\0") for data in got)
    assert len(data) <= len(mark)


def test_what_an_allowed_client_gets_back_is_bounded(open_world: World) -> None:
    factors = {}
    for kind, asked in QUERIES.items():
        with udp(open_world) as sock:
            sock.send(asked)
            data = sock.recv(65_535)
            assert len(data) <= 1232
            factors[kind] = len(data) / len(asked)
    # What is larger comes over TCP, to who proves its address.
    assert 20 < factors["that fits"] <= FACTOR
    assert max(factors.values()) <= FACTOR, factors
    assert factors["with an OPT"] == 1
    with tcp(open_world) as sock:
        sock.sendall(framed(QUERIES["with an OPT"]))
        assert len(take(sock)) > 3000


def test_drops_are_counted_by_their_reason(open_world: World) -> None:
    reasons = ("short", "not_a_query")

    def counts() -> list[float]:
        return [open_world.metric(f'dnsproxy_drops_total{{reason="{reason}"}}') for reason in reasons]

    before = counts()
    with udp(open_world) as sock:
        sock.send(b"\0" * 11)
        sock.send(query(f"{OTHER}.")[:2] + b"\x81\x80" + query(f"{OTHER}.")[4:])
    wait_for(lambda: counts() == [count + 1 for count in before], "both are counted")
