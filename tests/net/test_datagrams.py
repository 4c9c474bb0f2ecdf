"""Both kinds of socket behave alike; the cases run on each."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dnsproxy.errors import StartError
from dnsproxy.net import datagrams
from dnsproxy.net.datagrams import DatagramSocket, PlainMover, PlainSocket, open_mover, open_socket


@pytest.fixture(params=["batch", "plain"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        monkeypatch.setattr(datagrams, "load_batch_calls", lambda: None)
    return str(request.param)


@contextmanager
def exchange(bound: str, asked: str) -> Iterator[tuple[DatagramSocket, socket.socket]]:
    """A socket bound to ``bound`` and a client that sends to ``asked`` and takes answers from there only."""
    listening, fast = open_socket(bound, 0)
    with listening, socket.socket(listening.family, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((asked, listening.getsockname()[1]))
        yield fast, client


def test_the_kind_is_as_asked(kind: str) -> None:
    sock, fast = open_socket("127.0.0.1", 0)
    sock.close()
    assert isinstance(fast, PlainSocket) == (kind == "plain")
    assert isinstance(open_mover(), PlainMover) == (kind == "plain")


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("0.0.0.0", "127.0.0.2"), ("::", "::1")],
)
def test_p25_answers_leave_from_the_address_that_was_asked(bound: str, asked: str) -> None:
    with exchange(bound, asked) as (fast, client):
        for message in (b"one", b"two", b"three"):
            client.send(message)
        messages, sources = fast.receive()
        assert messages == [b"one", b"two", b"three"]
        expected = socket.inet_pton(client.family, client.getsockname()[0])
        assert list(sources) == [expected] * 3
        token = fast.token(1)
        assert fast.answer([b"1", None, b"3"]) == 0
        fast.queue(token, b"2")
        assert fast.flush() == 0
        assert [client.recv(100) for _ in range(3)] == [b"1", b"3", b"2"]
        assert fast.receive()[0] == []


def test_a_burst_larger_than_a_batch_is_taken_whole() -> None:
    with exchange("127.0.0.1", "127.0.0.1") as (fast, client):
        for number in range(200):
            client.send(b"%d" % number)
        taken: list[bytes] = []
        while messages := fast.receive()[0]:
            fast.answer(messages)
            taken += messages
        assert taken == [b"%d" % number for number in range(200)]
        assert [client.recv(100) for _ in range(200)] == taken


def test_p25_only_link_local_addresses_keep_their_interface() -> None:
    def kept(address: str) -> bool:
        data = socket.inet_pton(socket.AF_INET6, address) + struct.pack("I", 3)
        _, _, told = datagrams._without_interface((socket.IPPROTO_IPV6, 50, data))
        assert told[:16] == data[:16]
        return told[16:] == data[16:]

    assert kept("fe80::1")
    assert not any(map(kept, ("::1", "fd00::1", "2001:db8::1")))


@pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="a raw socket needs root")
def test_p09_source_port_zero_costs_a_failed_send_and_nothing_more() -> None:
    with exchange("127.0.0.1", "127.0.0.1") as (fast, client):
        port = client.getpeername()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
            raw.sendto(struct.pack(">HHHH", 0, port, 9, 0) + b"0", ("127.0.0.1", 0))
        client.send(b"good")
        messages, _ = fast.receive()
        assert messages == [b"0", b"good"]
        assert fast.answer([b"lost", b"kept"]) == 1
        assert client.recv(100) == b"kept"


def test_an_icmp_error_about_an_earlier_answer_is_no_end() -> None:
    with exchange("127.0.0.1", "127.0.0.1") as (fast, client):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.sendto(b"bye", client.getpeername())
        fast.receive()
        fast.answer([b"nobody"])
        client.send(b"still here")
        taken = fast.receive()[0] or fast.receive()[0]
        assert taken == [b"still here"]


def test_a_port_in_use_is_one_line() -> None:
    with exchange("127.0.0.1", "127.0.0.1") as (_, client):
        port = client.getpeername()[1]
        with pytest.raises(StartError, match=f"udp 127.0.0.1 port {port}: Address already in use"):
            open_socket("127.0.0.1", port)


def test_a_kernel_without_ipv6_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(StartError, match="udp :: port 53: Address family not supported"):
        open_socket("::", 53)


def test_two_sockets_may_share_a_port_when_asked() -> None:
    first, _ = open_socket("127.0.0.1", 0, reuse_port=True)
    with first:
        second, _ = open_socket("127.0.0.1", first.getsockname()[1], reuse_port=True)
        second.close()


def test_a_mover_raises_when_nobody_listens() -> None:
    mover = open_mover()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        assert mover.send(sock, [b"x"]) == 1
        with pytest.raises(ConnectionRefusedError):
            mover.receive(sock)
        mover.send(sock, [b"x"])
        with pytest.raises(ConnectionRefusedError):
            mover.send(sock, [b"y"])
        assert mover.receive(sock) == []
