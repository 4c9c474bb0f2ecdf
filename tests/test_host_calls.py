"""What a host refuses; tests/faults/test_host_seccomp.py has real profiles."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable
from selectors import PollSelector
from typing import Any

import pytest
from structlog.testing import capture_logs

from dnsproxy import host_calls
from dnsproxy.errors import HostError
from dnsproxy.net.loop import HotLoop, open_loop


@pytest.fixture(autouse=True)
def _nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_calls, "_noted", set())


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, "x")

    return fail


@pytest.fixture(params=[errno.EPERM, errno.ENOSYS])
def number(request: pytest.FixtureRequest) -> int:
    chosen: int = request.param
    return chosen


def test_a_host_that_refuses_nothing() -> None:
    with capture_logs() as logs:
        host_calls.check_calls()
        assert host_calls.can_use_epoll()
        open_loop().close()
        host_calls.open_service_loop().close()
    assert logs == []


def test_a_call_that_nothing_replaces_is_named(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(socket, "socketpair", failing(number))
    with capture_logs() as logs, pytest.raises(HostError, match="refuses the system call socketpair: "):
        host_calls.check_calls()
    assert [(entry["event"], entry["call"]) for entry in logs] == [("host.call_refused", "socketpair")]


def test_a_host_that_is_short_of_descriptors_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socketpair", failing(errno.EMFILE))
    host_calls.check_calls()
    monkeypatch.setattr(select, "epoll", failing(errno.EMFILE))
    with pytest.raises(OSError, match="x"):
        host_calls.can_use_epoll()


def test_poll_replaces_epoll_and_is_logged_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    with monkeypatch.context() as refusing, capture_logs() as logs:
        refusing.setattr(select, "epoll", failing(number))
        loops: list[Any] = [open_loop(), host_calls.open_service_loop()]
    for loop in loops:
        assert not isinstance(loop, HotLoop)
        assert isinstance(loop._selector, PollSelector)
        loop.close()
    assert [(entry["event"], entry["call"], entry["instead"]) for entry in logs] == [
        ("host.call_replaced", "epoll_create1", "poll")
    ]
