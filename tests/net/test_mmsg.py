from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dnsproxy.net.datagrams import open_mover, open_socket
from dnsproxy.net.mmsg import BatchMover, BatchSocket
from dnsproxy.net.msghdr import BATCH
from dnsproxy.net.syscalls import LONGEST


@contextmanager
def opened(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, BatchSocket]]:
    sock, datagrams = open_socket(host, 0)
    assert isinstance(datagrams, BatchSocket)
    with sock:
        yield sock, datagrams


@contextmanager
def client(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((host, port))
        yield sock


def test_a_batch_is_bounded_and_nothing_is_lost() -> None:
    with opened() as (sock, datagrams), client(*sock.getsockname()) as asking:
        for number in range(BATCH + 6):
            asking.send(b"%d" % number)
        first, sources = datagrams.receive()
        rest, _ = datagrams.receive()
        assert first + rest == [b"%d" % number for number in range(BATCH + 6)]
        assert (len(first), set(sources)) == (BATCH, {b"\x7f\0\0\1"})
        assert datagrams.receive() == ([], ())


def test_gaps_in_the_answers_are_not_sent() -> None:
    with opened() as (sock, datagrams), client(*sock.getsockname()) as asking:
        for number in range(6):
            asking.send(b"%d" % number)
        datagrams.receive()
        assert datagrams.answer([None, b"one", b"two", object(), b"four", None]) == 0
        assert [asking.recv(100) for _ in range(3)] == [b"one", b"two", b"four"]


def test_a_message_over_the_slot_is_cut() -> None:
    with opened() as (sock, datagrams), client(*sock.getsockname()) as asking:
        asking.send(b"x" * (LONGEST + 100))
        asking.send(b"next")
        assert [len(message) for message in datagrams.receive()[0]] == [LONGEST, 4]


def test_late_answers_beyond_a_batch() -> None:
    with opened() as (sock, datagrams), client(*sock.getsockname()) as asking:
        asking.send(b"q")
        datagrams.receive()
        token = datagrams.token(0)
        for number in range(BATCH + 3):
            datagrams.queue(token, b"%d" % number)
        assert datagrams.flush() == 0
        assert [asking.recv(100) for _ in range(BATCH + 3)] == [b"%d" % number for number in range(BATCH + 3)]


def test_a_mover_takes_a_batch_at_a_time() -> None:
    mover = open_mover()
    assert isinstance(mover, BatchMover)
    with opened() as (sock, datagrams), client(*sock.getsockname()) as sending:
        messages = [b"%d" % number for number in range(BATCH + 2)]
        assert mover.send(sending, messages) == BATCH
        assert datagrams.receive()[0] == messages[:BATCH]
        datagrams.answer([b"a", b"b"])
        assert mover.receive(sending) == [b"a", b"b"]
        assert mover.send(sending, [b"alone"]) == 1
        assert datagrams.receive()[0] == [b"alone"]
        datagrams.answer([b"first"])
        assert mover.send(sending, [b"again"]) == 1
        datagrams.receive()
        datagrams.answer([b"second"])
        assert mover.receive(sending, 1) == [b"first"]
        assert mover.receive(sending, BATCH + 1) == [b"second"]
        sending.setblocking(False)
        assert mover.receive(sending, 1) == []
        assert mover.receive(sending) == []


@pytest.mark.parametrize(("bound", "asked", "at"), [("0.0.0.0", "127.0.0.1", 48), ("::", "::1", 64)])
def test_p25_an_answer_is_tied_to_the_address_asked_and_to_no_interface(
    bound: str, asked: str, at: int
) -> None:
    with opened(bound) as (sock, datagrams), client(asked, sock.getsockname()[1]) as peer:
        peer.send(b"query")
        datagrams.receive()
        token = datagrams.token(0)
        assert token[at : at + 4] == bytes(4)
        assert socket.inet_pton(sock.family, asked) in token[48:]


@pytest.mark.parametrize(
    ("bound", "asked"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), ("::", "::1")]
)
def test_one_message_after_the_other_is_answered_from_the_address_asked(bound: str, asked: str) -> None:
    with opened(bound) as (sock, datagrams), client(asked, sock.getsockname()[1]) as asking:
        for message in (b"one", b"", b"x" * (LONGEST + 1)):
            asking.send(message)
            assert datagrams.receive_one() == message[:LONGEST]
            assert datagrams.source() == socket.inet_pton(asking.family, asking.getsockname()[0])
            assert datagrams.answer_one(b"to " + message[:1000]) == 0
            # The client is connected: from another address it would not come.
            assert asking.recv(2000) == b"to " + message[:1000]
        assert datagrams.receive_one() is None


def test_an_answer_that_the_kernel_refuses_is_told() -> None:
    with opened() as (sock, datagrams), client(*sock.getsockname()) as asking:
        asking.send(b"x")
        assert datagrams.receive_one() == b"x"
        assert datagrams.answer_one(b"y" * 66_000) == 1, "longer than a datagram can be"


def test_single_messages_and_batches_in_turn() -> None:
    with opened() as (sock, datagrams), client(*sock.getsockname()) as asking:
        for _ in range(2):
            for number in range(5):
                asking.send(b"%d" % number)
            assert datagrams.receive_one() == b"0"
            token = datagrams.token(0)
            assert datagrams.answer_one(b"first") == 0
            messages, sources = datagrams.receive()
            assert (messages, len(sources)) == ([b"1", b"2", b"3", b"4"], 4)
            assert datagrams.answer([b"a", None, b"c", b"d"]) == 0
            datagrams.queue(token, b"late")
            assert datagrams.flush() == 0
            assert [asking.recv(100) for _ in range(5)] == [b"first", b"a", b"c", b"d", b"late"]
