from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import sys
from time import monotonic

import pytest

from dnsproxy.net import syscalls
from dnsproxy.net.msghdr import PEER, Slots
from dnsproxy.net.syscalls import LONGEST, SystemCalls, load_system_calls, load_waiting


@pytest.fixture(params=["as loaded", "ctypes"])
def calls(request: pytest.FixtureRequest) -> SystemCalls:
    """The calls of this build, and those of one that is not compiled."""
    found = load_system_calls() if request.param == "as loaded" else syscalls._through_ctypes()
    assert found is not None
    return found


def test_one_message_and_its_response(calls: SystemCalls) -> None:
    slots = Slots()
    receiving, answering = slots.headers(16, 0), slots.headers(16, 0)
    with (
        socket.socket(type=socket.SOCK_DGRAM) as server,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        client.settimeout(5)
        client.connect(server.getsockname())
        octets = slots.addresses(PEER)[0]
        for message in (b"a\0b" * 400, b"", b"x"):
            client.send(message)
            assert calls.receive_one(server.fileno(), receiving.addresses[0], octets) == message
            response = b"\0" + message
            assert calls.send_one(server.fileno(), answering.addresses[0], response) == len(response)
            assert client.recv(2000) == response
        assert calls.receive_one(server.fileno(), receiving.addresses[0], octets) is None
        assert calls.last_error() == errno.EAGAIN


def test_a_failure_has_its_number(calls: SystemCalls) -> None:
    slots = Slots()
    headers = slots.headers(0, 0)
    closed = socket.socket(type=socket.SOCK_DGRAM)
    number = closed.detach()
    os.close(number)
    assert calls.send_one(number, headers.addresses[0], b"x") == -1
    assert calls.last_error() == errno.EBADF
    assert calls.receive_one(number, headers.addresses[0], slots.addresses(PEER)[0]) is None
    assert calls.last_error() == errno.EBADF


def test_several_messages_at_once(calls: SystemCalls) -> None:
    slots = Slots()
    receiving, sending = slots.headers(0, 0), slots.headers(0, 0)
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        other.setblocking(False)
        # An address is that of an array of what follows, and at each there may be one message only.
        for most, first, messages in (
            (64, 0, [b"", b"a\0b" * 400, b"x" * LONGEST, b"y"]),
            (3, 2, [b"1", b"22", b"333"]),
            (2, 63, [b"alone"]),
            (1, 62, [b"alone"]),
        ):
            assert calls.sendmmsg(one.fileno(), sending.addresses[first], messages) == len(messages)
            assert calls.recvmmsg(other.fileno(), receiving.addresses[64 - most], most) == messages
        calls.sendmmsg(one.fileno(), sending.addresses[0], [b"1", b"2", b"3"])
        assert calls.recvmmsg(other.fileno(), receiving.addresses[0], 1) == [b"1"]
        assert calls.recvmmsg(other.fileno(), receiving.addresses[0], 2) == [b"2", b"3"]
        for most in (1, 2):
            assert calls.recvmmsg(other.fileno(), receiving.addresses[0], most) is None
            assert calls.last_error() == errno.EAGAIN
        other.close()
        assert calls.sendmmsg(one.fileno(), sending.addresses[0], [b"1"]) == -1
        assert calls.last_error() == errno.ECONNREFUSED


def test_octets_are_copied(calls: SystemCalls) -> None:
    place = Slots().addresses(0)[3]
    for octets in (b"", b"a\0b", bytes(range(256)) * 7):
        calls.write(place, octets)
        assert calls.read(place, len(octets)) == octets


def test_nothing_is_written_beyond_a_place(calls: SystemCalls) -> None:
    slots = Slots()
    calls.write(slots.addresses(PEER)[0], b"x" * LONGEST)
    before = bytes(slots.memory)
    with pytest.raises(ValueError, match="longer than a message may be"):
        calls.write(slots.addresses(0)[0], b"y" * (LONGEST + 1))
    assert bytes(slots.memory) == before


def test_a_compiled_build_tells_what_is_ready() -> None:
    waiting = load_waiting()
    if waiting is None:
        # Through ctypes other threads would have to wait with it.
        assert not hasattr(syscalls._through_ctypes(), "ready")
        return
    one, other = socket.socketpair()
    with select.epoll() as polling, one, other:
        assert waiting.ready(polling.fileno(), False) == []
        polling.register(one.fileno(), select.EPOLLOUT)
        polling.register(other.fileno(), select.EPOLLOUT)
        for may_wait in (False, True):
            assert set(waiting.ready(polling.fileno(), may_wait)) == {one.fileno(), other.fileno()}
    with pytest.raises(OSError, match="Bad file descriptor"):
        waiting.ready(polling.fileno() if not polling.closed else -1, False)


def test_a_compiled_build_has_timers_that_are_never_early() -> None:
    waiting = load_waiting()
    if waiting is None:
        assert not hasattr(syscalls._through_ctypes(), "open_timer")
        return
    timer = waiting.open_timer()
    with select.epoll() as polling:
        polling.register(timer, select.EPOLLIN | select.EPOLLET)
        for seconds in (0.0, 0.0001, 0.01):
            at = monotonic() + seconds
            waiting.set_timer(timer, at)
            assert waiting.ready(polling.fileno(), True) == [timer]
            assert monotonic() >= at
            assert waiting.ready(polling.fileno(), False) == [], "told once"
    os.close(timer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        waiting.set_timer(timer, 1.0)


def test_other_systems_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert load_system_calls() is None


def test_another_word_size_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "sizeof", lambda _kind: 4)
    assert load_system_calls() is None


def test_a_library_without_the_calls_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "PyDLL", lambda *_, **__: object())
    assert syscalls._through_ctypes() is None
