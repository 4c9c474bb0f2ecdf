from __future__ import annotations

import errno
from collections import Counter

import pytest
from structlog.testing import capture_logs

from dnsproxy.errors import StartError
from dnsproxy.net import stream
from dnsproxy.net.stream import bound_address, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_listens_without_blocking_on_the_address_that_it_tells(host: str) -> None:
    with listen("tcp", host, 0, reuse_port=False) as sock:
        assert bound_address(sock) == sock.getsockname()[:2]
        with pytest.raises(BlockingIOError):
            sock.accept()


def test_an_address_in_use_is_named() -> None:
    with listen("tcp", "127.0.0.1", 0, reuse_port=False) as sock:
        port = bound_address(sock)[1]
        with pytest.raises(
            StartError, match=f"cannot listen on tls 127.0.0.1 port {port}: Address already in use"
        ):
            listen("tls", "127.0.0.1", port, reuse_port=False)


def test_several_share_a_port_when_they_say_so() -> None:
    with listen("tcp", "127.0.0.1", 0, reuse_port=True) as one:
        port = bound_address(one)[1]
        with listen("tcp", "127.0.0.1", port, reuse_port=True) as other:
            assert bound_address(other) == bound_address(one)


def test_no_socket_has_no_address() -> None:
    with pytest.raises(StartError, match="not listening"):
        bound_address(None)


def test_a_host_that_is_short_of_descriptors_is_an_event_and_no_flood_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "_noted", {})
    counts: Counter[str] = Counter()
    with capture_logs() as logs:
        for _ in range(3):
            for use in ("tcp_clients", "tls_clients"):
                assert stream.note_exhausted(use, OSError(errno.EMFILE, "x"), counts)
        # Nobody waits to be accepted any more.
        for number in (errno.ECONNABORTED, errno.EAGAIN):
            assert not stream.note_exhausted("tcp_clients", OSError(number, "x"), counts)
    assert [(entry["event"], entry["use"], entry["reason"]) for entry in logs] == [
        ("host.exhausted", "tcp_clients", "Too many open files"),
        ("host.exhausted", "tls_clients", "Too many open files"),
    ]
    assert counts == {"tcp_clients": 3, "tls_clients": 3}


def test_failures_of_this_host_and_of_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_noted", {})
    counts: Counter[str] = Counter()
    numbers = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN)
    with capture_logs() as logs:
        for number in (*numbers, errno.EPERM, errno.ENOSYS):
            assert stream.note_local("upstreams", OSError(number, "x"), counts)
        for number in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET):
            assert not stream.note_local("upstreams", OSError(number, "x"), counts)
        assert not stream.note_local("upstreams", OSError("no number"), counts)
    assert [entry["event"] for entry in logs] == ["host.exhausted"] * len(numbers) + ["host.refused"] * 2
    assert counts == {"upstreams": len(numbers) + 2}
