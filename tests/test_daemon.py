"""What a daemon takes hold of before it runs; tests/e2e has the processes."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dnsproxy import config
from dnsproxy.daemon import Service
from dnsproxy.errors import StartError
from dnsproxy.net.doors import Door, dns_doors
from tests.test_server import free_port

FILE = Path("/etc/dnsproxy/config.yaml")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A service takes signals that come before its start is over; these are the tests' own here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_to_reload_does_not_end_one_that_still_starts() -> None:
    Service(config.parse("{}"), FILE)
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR2)


def test_a_user_that_is_not_there_is_told_before_anything_opens() -> None:
    with pytest.raises(StartError, match="user: there is no user"):
        Service(config.parse("user: nobody-of-this-name\n"), FILE)


def test_what_was_given_is_used_and_the_rest_bound() -> None:
    port = free_port()
    settings = config.parse(f'serve: {{listen: ["127.0.0.1:{port}"]}}\n')
    service = Service(settings, FILE)
    udp, tcp = dns_doors(settings)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given:
        given.bind(("127.0.0.1", port))
        service.descriptors = {os.dup(given.fileno()): "dns.socket"}
        with capture_logs() as logs:
            keeper = service.open([udp, tcp])
        assert [(entry["event"], entry["listen"]) for entry in logs] == [
            ("service.socket_missing", f"tcp 127.0.0.1:{port}")
        ]
        served = keeper.share([udp, tcp])
        assert set(served) == {Door("udp", "127.0.0.1", port), Door("tcp", "127.0.0.1", port)}
        inodes = [os.fstat(sock.fileno()).st_ino for sock in (served[udp], given)]
        assert inodes[0] == inodes[1]
        for sock in served.values():
            sock.close()
        keeper.close()


def test_workers_get_nothing_of_it() -> None:
    service = Service(config.parse("{}"), FILE)
    reading, writing = os.pipe()
    service.descriptors = {reading: ""}
    service.leave_to_others()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)
    os.close(writing)


@pytest.mark.parametrize("expects", [False, True])
def test_a_manager_that_gives_nothing_is_a_fault_where_it_should(expects: bool) -> None:
    settings = config.parse(f'serve: {{listen: ["127.0.0.1:{free_port()}"]}}\n')
    doors = dns_doors(settings)
    with capture_logs() as logs:
        keeper = Service(settings, FILE, expects_sockets=expects).open(doors)
    expected = [("service.socket_missing", str(door)) for door in doors] if expects else []
    assert [(entry["event"], entry["listen"]) for entry in logs] == expected
    assert keeper.missing == len(expected)
    keeper.close()
