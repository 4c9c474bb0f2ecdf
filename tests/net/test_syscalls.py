from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import sys

import pytest

from dnsproxy.net import syscalls
from dnsproxy.net.msghdr import PEER, Slots
from dnsproxy.net.syscalls import SystemCalls, load_ready, load_system_calls


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
        octets = slots.address() + PEER
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
    assert calls.receive_one(number, headers.addresses[0], slots.address() + PEER) is None
    assert calls.last_error() == errno.EBADF


def test_a_compiled_build_tells_what_is_ready() -> None:
    ready = load_ready()
    if ready is None:
        # Through ctypes other threads would have to wait with it.
        assert not hasattr(syscalls._through_ctypes(), "ready")
        return
    one, other = socket.socketpair()
    with select.epoll() as polling, one, other:
        assert ready(polling.fileno(), 0) == []
        polling.register(one.fileno(), select.EPOLLOUT)
        polling.register(other.fileno(), select.EPOLLOUT)
        for milliseconds in (0, 1000, -1):
            assert set(ready(polling.fileno(), milliseconds)) == {one.fileno(), other.fileno()}
    with pytest.raises(OSError, match="Bad file descriptor"):
        ready(polling.fileno() if not polling.closed else -1, 0)


def test_other_systems_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert load_system_calls() is None


def test_another_word_size_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "sizeof", lambda _kind: 4)
    assert load_system_calls() is None


def test_a_library_without_the_calls_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "PyDLL", lambda *_, **__: object())
    assert syscalls._through_ctypes() is None
