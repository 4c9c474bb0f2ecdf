"""The relay does what it says, and counts it: nothing that stands on it would mean anything otherwise."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.processes import Ports, wait_for
from tests.faults.relay import Datagram, Fault, Relay, Streams

pytestmark = pytest.mark.faults

SENT = 400


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        yield sock


@pytest.fixture
def relay(target: socket.socket) -> Iterator[Relay]:
    ports = Ports()
    with Relay(target.getsockname(), ports.take()) as made:
        yield made
    ports.release()


def push(relay: Relay, target: socket.socket, expected: int) -> list[bytes]:
    """Send numbered datagrams through, and return what has arrived once all have met their fate."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for number in range(SENT):
            client.sendto(number.to_bytes(4, "big"), relay.address)
        return [target.recv(100) for _ in range(expected)]


def test_without_a_fault_everything_passes_in_order(relay: Relay, target: socket.socket) -> None:
    got = push(relay, target, SENT)
    assert got == [number.to_bytes(4, "big") for number in range(SENT)]
    assert relay.counts == {"up.passed": SENT}


def test_what_is_lost_is_counted_and_the_same_with_the_same_seed(relay: Relay, target: socket.socket) -> None:
    relay.up = Fault(loss=0.3)
    # 400 draws of random.Random(1), four for each datagram.
    got = push(relay, target, 0)
    wait_for(lambda: relay.counts.total() == SENT, "every datagram has met its fate")
    lost = relay.counts["up.lost"]
    got = [target.recv(100) for _ in range(relay.counts["up.passed"])]
    assert len(got) == SENT - lost
    assert 0.2 * SENT < lost < 0.4 * SENT
    with Relay(target.getsockname(), relay.address[1], host="127.0.0.2") as again:
        again.up = Fault(loss=0.3)
        push(again, target, 0)
        wait_for(lambda: again.counts.total() == SENT, "every datagram has met its fate")
        assert again.counts == relay.counts


def test_copies_damage_and_disorder_are_counted(relay: Relay, target: socket.socket) -> None:
    relay.up = Fault(duplicate=0.1, reorder=0.1, corrupt=0.1)
    push(relay, target, 0)
    wait_for(
        lambda: relay.counts["up.passed"] == SENT + relay.counts["up.duplicated"],
        "every datagram has met its fate",
    )
    got = [target.recv(100) for _ in range(relay.counts["up.passed"])]
    sent = [number.to_bytes(4, "big") for number in range(SENT)]
    assert got != sorted(got)
    for kind in ("duplicated", "reordered", "corrupted"):
        assert 0.04 * SENT < relay.counts[f"up.{kind}"] < 0.2 * SENT
    # A damaged number may be another one's, but most are told by what is missing.
    assert 0 < len(set(sent) - set(got)) <= relay.counts["up.corrupted"]


def test_replies_come_back_to_their_client_and_a_tap_sees_both_ways(
    relay: Relay, target: socket.socket
) -> None:
    seen: list[tuple[bytes, bool]] = []

    def tap(datagram: Datagram) -> list[bytes]:
        seen.append((datagram.data, datagram.up))
        return [datagram.data.upper()]

    relay.tap = tap
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(b"query", relay.address)
        data, behind = target.recvfrom(100)
        assert data == b"QUERY"
        target.sendto(b"reply", behind)
        assert client.recvfrom(100) == (b"REPLY", relay.address)
        assert relay.clients == [("127.0.0.1", client.getsockname()[1])]
    assert seen == [(b"query", True), (b"reply", False)]


def test_streams_pass_hold_and_reset(relay: Relay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay.target = server.getsockname()
        with socket.create_connection(relay.address, timeout=10) as client:
            client.sendall(b"hello")
            behind, _ = server.accept()
            with behind:
                assert behind.recv(100) == b"hello"
                behind.sendall(b"world")
                assert client.recv(100) == b"world"
                relay.streams = Streams.HOLD
                client.sendall(b"hello?")
                wait_for(lambda: relay.counts["tcp.held"] == 1, "the open connection is held")
                client.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    client.recv(100)
        with socket.create_connection(relay.address, timeout=10) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            wait_for(lambda: relay.counts["tcp.held"] == 2, "the connection is held")
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(100)
        relay.streams = Streams.RESET
        # It may come as early as within the call that connects.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(relay.address, timeout=10) as client,
        ):
            client.recv(100)
    assert relay.counts["tcp.accepted"] == 3
