from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from dnsproxy.errors import StartError
from dnsproxy.net.doors import ADMIN, HELPER, Door, Doorkeeper, dns_doors, helper_doors, proxy_doors
from dnsproxy.settings import Settings
from tests.e2e.processes import Ports

HOST = "127.0.0.1"


@pytest.fixture
def ports() -> Iterator[Ports]:
    """Ports that the kernel gives to nobody meanwhile."""
    made = Ports()
    yield made
    made.release()


@pytest.fixture
def port(ports: Ports) -> int:
    return ports.take()


@pytest.fixture
def keepers() -> Iterator[list[Doorkeeper]]:
    made: list[Doorkeeper] = []
    yield made
    for keeper in made:
        keeper.close()


def close(sockets: dict[Door, socket.socket]) -> None:
    for sock in sockets.values():
        sock.close()


def sends(port: int, host: str = HOST) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((host, port))
    return sock


def is_free(port: int, host: str = HOST) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True


def test_the_doors_of_a_configuration() -> None:
    settings = Settings.model_validate(
        {
            "serve": {
                "listen": ["127.0.0.1:53", "[::1]:53"],
                "tls": {"listen": ["127.0.0.1:853"], "cert_file": "/c", "key_file": "/k"},
            },
            "admin": {"listen": "127.0.0.1:9153"},
            "helper": {"listen": "127.0.0.1:8953"},
        }
    )
    assert [str(door) for door in proxy_doors(settings)] == [
        "udp 127.0.0.1:53",
        "tcp 127.0.0.1:53",
        "udp [::1]:53",
        "tcp [::1]:53",
        "tls 127.0.0.1:853",
        "admin 127.0.0.1:9153",
    ]
    assert proxy_doors(settings)[:-1] == dns_doors(settings)
    assert helper_doors(settings) == [Door(HELPER, "127.0.0.1", 8953)]
    assert proxy_doors(Settings.model_validate({"admin": {"listen": None}}))[-1].kind == "tcp"


def test_what_is_sent_before_anybody_reads_is_not_lost(port: int, keepers: list[Doorkeeper]) -> None:
    keeper = Doorkeeper()
    keepers.append(keeper)
    door = Door("udp", HOST, port)
    keeper.open([door])
    with sends(port) as client:
        client.send(b"one")
        first = keeper.share([door])
        assert first[door].recv(100) == b"one"
        close(first)
        client.send(b"two")
        second = keeper.share([door])
        assert second[door].recv(100) == b"two"
        close(second)


def test_every_reason_is_told_and_nothing_is_left_open(port: int, keepers: list[Doorkeeper]) -> None:
    keeper = Doorkeeper()
    keepers.append(keeper)
    with socket.create_server((HOST, 0)) as one, socket.create_server((HOST, 0)) as two:
        taken = [one.getsockname()[1], two.getsockname()[1]]
        doors = [Door("udp", HOST, port), Door("tcp", HOST, taken[0]), Door(ADMIN, HOST, taken[1])]
        with pytest.raises(StartError) as caught:
            keeper.open(doors)
    assert caught.value.reasons == (
        f"cannot listen on tcp {HOST} port {taken[0]}: Address already in use",
        f"admin.listen: cannot listen on {HOST}:{taken[1]}: Address already in use",
    )
    assert is_free(port)


def test_workers_have_a_socket_each_and_nobody_else_joins(port: int, keepers: list[Doorkeeper]) -> None:
    keeper = Doorkeeper(shares=3)
    keepers.append(keeper)
    doors = [Door("udp", HOST, port), Door("tcp", HOST, port)]
    keeper.open(doors)
    shares = [keeper.share(doors, index) for index in range(3)]
    assert [[door.number for door in share] for share in shares] == [[0, 0], [1, 1], [2, 2]]
    inodes = {os.fstat(sock.fileno()).st_ino for share in shares for sock in share.values()}
    assert len(inodes) == 6
    for share in shares:
        close(share)
    other = Doorkeeper(shares=2)
    keepers.append(other)
    with pytest.raises(StartError, match="Address already in use"):
        other.open(doors)


@pytest.mark.parametrize(
    ("given", "shares", "expected"),
    [
        (1, 2, [[0], [0]]),
        (2, 2, [[0], [1]]),
        (3, 2, [[0, 2], [1]]),
        (2, 3, [[0], [1], [0]]),
        (3, 1, [[0, 1, 2]]),
    ],
)
def test_sockets_that_were_given_are_shared_out(
    port: int, keepers: list[Doorkeeper], given: int, shares: int, expected: list[list[int]]
) -> None:
    source = Doorkeeper(shares=given)
    door = Door("udp", HOST, port)
    source.open([door])
    sockets: dict[Door, socket.socket] = {}
    for index in range(given):
        sockets |= source.share([door], index)
    source.close()
    keeper = Doorkeeper(sockets, shares=shares)
    keepers.append(keeper)
    keeper.open([door])
    for index, numbers in enumerate(expected):
        share = keeper.share([door], index)
        assert [held.number for held in share] == numbers
        close(share)
    # It cannot be bound again, so it is kept for when it is wanted again.
    keeper.keep([])
    assert not is_free(port)


def test_what_is_not_wanted_any_more_is_closed(port: int, ports: Ports, keepers: list[Doorkeeper]) -> None:
    keeper = Doorkeeper(shares=2)
    keepers.append(keeper)
    door, other = Door("udp", HOST, port), Door("udp", HOST, ports.take())
    keeper.open([door, other])
    keeper.keep([other])
    assert is_free(port)
    assert not is_free(other.port)


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("shares", [1, 2])
@pytest.mark.parametrize(("before", "after"), [("0.0.0.0", HOST), (HOST, "0.0.0.0")])
def test_a_wildcard_gives_way_to_one_address_and_back(
    kind: str, shares: int, before: str, after: str, port: int, keepers: list[Doorkeeper]
) -> None:
    """Bound before the old ones are closed, so that a failure leaves these; the kernel needs to be told."""
    keeper = Doorkeeper(shares=shares)
    keepers.append(keeper)
    old, new = Door(kind, before, port), Door(kind, after, port)
    keeper.open([old])
    keeper.open([new])
    keeper.keep([new])
    share = keeper.share([new])
    assert [sock.getsockname() for sock in share.values()] == [(after, port)]
    close(share)
    with pytest.raises(StartError, match="Address already in use"):
        Doorkeeper().open([new])
