"""Descriptors of this process in place of those that a service manager hands on; tests/e2e has real ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dnsproxy.activation import match_doors, take_descriptors
from dnsproxy.errors import StartError
from dnsproxy.net.doors import Door

HOST = "127.0.0.1"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def bound(
    stack: ExitStack, kind: socket.SocketKind, host: str = HOST, *, listen: bool = True
) -> tuple[int, int]:
    """A descriptor that is nobody's, and its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as sock:
        sock.bind((host, 0))
        if kind is socket.SOCK_STREAM and listen:
            sock.listen()
        port = int(sock.getsockname()[1])
        return sock.detach(), port


def test_each_goes_to_its_address(stack: ExitStack) -> None:
    udp, udp_port = bound(stack, socket.SOCK_DGRAM)
    tcp, tcp_port = bound(stack, socket.SOCK_STREAM)
    doors = [Door("udp", HOST, udp_port), Door("tls", HOST, tcp_port), Door("admin", HOST, 9153)]
    found = match_doors({udp: "dns.socket", tcp: ""}, doors)
    assert {door: sock.fileno() for door, sock in found.items()} == {doors[0]: udp, doors[1]: tcp}
    for sock in found.values():
        assert sock.getblocking() is False
        sock.close()


def test_several_of_one_address_are_numbered(stack: ExitStack) -> None:
    one, port = bound(stack, socket.SOCK_DGRAM)
    found = match_doors({one: "", os.dup(one): ""}, [Door("udp", HOST, port)])
    assert [door.number for door in found] == [0, 1]
    for sock in found.values():
        sock.close()


def test_every_one_that_cannot_be_used_is_named(stack: ExitStack) -> None:
    stranger, port = bound(stack, socket.SOCK_DGRAM)
    silent, tcp_port = bound(stack, socket.SOCK_STREAM, listen=False)
    both, any_port = bound(stack, socket.SOCK_DGRAM, "::")
    local = socket.socket(socket.AF_UNIX).detach()
    reading, writing = os.pipe()
    os.close(writing)
    good, good_port = bound(stack, socket.SOCK_DGRAM)
    descriptors = {stranger: "dns.socket", silent: "", both: "", local: "", reading: "", good: ""}
    doors = [Door("tcp", HOST, tcp_port), Door("udp", "::", any_port), Door("udp", HOST, good_port)]
    with pytest.raises(StartError) as caught:
        match_doors(descriptors, doors)
    head = "socket activation: descriptor"
    assert caught.value.reasons == (
        f"{head} {stranger} (dns.socket) is udp 127.0.0.1:{port}, which the configuration does not listen on",
        f"{head} {silent} is tcp 127.0.0.1:{tcp_port} and does not listen; set Accept=no in the socket unit",
        (
            f"{head} {both} is udp [::]:{any_port} and takes IPv4 too;"
            " set BindIPv6Only=ipv6-only in the socket unit"
        ),
        f"{head} {local} is not a UDP or TCP socket",
        f"{head} {reading} is not a socket: Socket operation on non-socket",
    )
    os.close(reading)
    for descriptor in (stranger, silent, both, local, good):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_wildcard_tells_where_a_query_came_to(stack: ExitStack) -> None:
    udp, port = bound(stack, socket.SOCK_DGRAM, "0.0.0.0")
    (sock,) = match_doors({udp: ""}, [Door("udp", "0.0.0.0", port)]).values()
    with sock:
        assert sock.getsockopt(socket.IPPROTO_IP, 8)  # IP_PKTINFO


def test_what_the_environment_says() -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "HOME": "/"}
    # Not made uninheritable here: 3 and 4 are pytest's.
    inheritable = {fd: os.get_inheritable(fd) for fd in (3, 4) if is_open(fd)}
    assert take_descriptors(environ) == {3: "a", 4: "b"}
    assert environ == {"HOME": "/"}
    for descriptor, before in inheritable.items():
        os.set_inheritable(descriptor, before)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "one", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_what_is_meant_for_others_is_left_alone(environ: dict[str, str]) -> None:
    assert take_descriptors(environ) == {}
    assert environ == {}
