"""A service manager's socket, real, in place of systemd's."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dnsproxy.notify import Notifier
from dnsproxy.writer import flush_all

Manager = Callable[[], list[str]]


@pytest.fixture(params=["path", "abstract"])
def named(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = f"@dnsproxy-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        sock.settimeout(10)
        yield name, sock


def next_lines(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split("\n")


def test_what_a_manager_hears(named: tuple[str, socket.socket]) -> None:
    name, sock = named
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name})
    notifier.ready("answering")
    assert next_lines(sock) == ["READY=1", "STATUS=answering"]
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    begun, stamp, status = next_lines(sock)
    assert (begun, status) == ("RELOADING=1", "STATUS=reloading")
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.alive()
    assert next_lines(sock) == ["WATCHDOG=1"]
    notifier.stopping("draining")
    assert next_lines(sock) == ["STOPPING=1", "STATUS=draining"]


def test_a_status_is_told_when_it_changes(named: tuple[str, socket.socket]) -> None:
    name, sock = named
    notifier = Notifier(name)
    for status in ("one", "one", "two"):
        notifier.status(status)
    assert [next_lines(sock), next_lines(sock)] == [["STATUS=one"], ["STATUS=two"]]


def test_a_manager_hears_from_a_program_that_has_no_descriptor_left(named: tuple[str, socket.socket]) -> None:
    name, sock = named
    notifier = Notifier(name)
    notifier.ready("answering")
    assert next_lines(sock)[0] == "READY=1"
    flush_all(10)  # what it opens for one message is closed now
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        notifier.alive()
        assert next_lines(sock) == ["WATCHDOG=1"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("name", ["", "relative", "/nobody/listens/there"])
def test_without_a_manager_nothing_happens(name: str) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1"} if name else {})
    notifier.ready("answering")
    notifier.alive()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_how_often_a_manager_wants_to_hear(given: dict[str, str], seconds: float | None) -> None:
    environ = {"NOTIFY_SOCKET": "/x", **given, "HOME": "/"}
    assert Notifier.from_environment(environ).watchdog == seconds
    assert environ == {"HOME": "/"}, "programs that are started from here are not to speak for us"


def test_a_manager_that_does_not_read_delays_nothing_and_gets_all_when_it_does(
    named: tuple[str, socket.socket],
) -> None:
    name, sock = named
    notifier = Notifier(name)
    count = 1000  # more than the socket's queue (net.unix.max_dgram_qlen), fewer than the notifier's
    started = time.monotonic()
    for number in range(count):
        notifier.status(f"number {number}")
    assert time.monotonic() - started < 1
    assert [next_lines(sock) for _ in range(count)] == [
        [f"STATUS=number {number}"] for number in range(count)
    ]
