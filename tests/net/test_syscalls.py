from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import sys
from typing import Any

import pytest

from dnsproxy.net import syscalls
from dnsproxy.net.syscalls import ReadyEvents, SystemCalls, load_system_calls

# struct sockaddr_in of 127.0.0.1 without a port, which is put in behind the family.
LOOPBACK = bytes([127, 0, 0, 1]) + bytes(8)


@pytest.fixture(params=["as loaded", "ctypes"])
def calls(request: pytest.FixtureRequest) -> SystemCalls:
    """The calls of this build, and those of one that is not compiled."""
    found = load_system_calls() if request.param == "as loaded" else syscalls._through_ctypes()
    assert found is not None
    return found


def pointer_to(calls: SystemCalls, memory: bytearray) -> Any:
    return calls.pointer(ctypes.addressof(ctypes.c_char.from_buffer(memory)))


def test_sendto_sends_octets_as_they_are(calls: SystemCalls) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to,
        socket.socket(type=socket.SOCK_DGRAM) as sock,
    ):
        to.bind(("127.0.0.1", 0))
        to.settimeout(5)
        port = to.getsockname()[1].to_bytes(2, "big")
        peer = bytearray(socket.AF_INET.to_bytes(2, sys.byteorder) + port + LOOPBACK)
        message = b"a\0b" * 400
        assert calls.sendto(sock.fileno(), message, len(message), 0, pointer_to(calls, peer), 16) == 1200
        assert to.recv(2000) == message


def test_a_failure_has_its_number(calls: SystemCalls) -> None:
    closed = socket.socket(type=socket.SOCK_DGRAM)
    number = closed.detach()
    os.close(number)
    assert calls.sendto(number, b"x", 1, 0, calls.null, 0) == -1
    assert calls.last_error() == errno.EBADF


def test_the_events_of_epoll_tell_their_descriptors() -> None:
    library = ctypes.CDLL(None)
    calls = SystemCalls(library, None, ctypes.c_void_p, ctypes.get_errno, library.epoll_wait)
    events = ReadyEvents(calls, 4)
    one, other = socket.socketpair()
    with select.epoll() as polling, one, other:
        polling.register(one.fileno(), select.EPOLLOUT)
        polling.register(other.fileno(), select.EPOLLOUT)
        assert calls.epoll_wait is not None
        assert calls.epoll_wait(polling.fileno(), events.pointer, 4, 0) == 2
        assert set(events.descriptors[:2]) == {one.fileno(), other.fileno()}


def test_through_ctypes_nobody_else_waits_for_epoll() -> None:
    found = syscalls._through_ctypes()
    assert found is not None
    assert found.epoll_wait is None, "it would keep the interpreter's lock while it waits"


def test_other_systems_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert load_system_calls() is None


def test_another_word_size_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "sizeof", lambda _kind: 4)
    assert load_system_calls() is None


def test_a_library_without_the_calls_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "PyDLL", lambda *_, **__: object())
    assert syscalls._through_ctypes() is None
