"""System calls that a host refuses, as under a strict seccomp profile.

For most of them there is a replacement; without the others the program cannot run, and says which it is.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from collections.abc import Callable
from selectors import PollSelector
from typing import Final

import structlog

from dnsproxy.errors import HostError
from dnsproxy.lifecycle import ServiceLoop

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# What a call that a profile does not allow fails with.
REFUSED: Final = frozenset({errno.EPERM, errno.ENOSYS})

_noted: set[str] = set()


def note_replaced(call: str, number: int, instead: str) -> None:
    """Log, once for each call, that ``call`` fails with ``number`` and that ``instead`` is used."""
    if call not in _noted:
        _noted.add(call)
        log.warning("host.call_replaced", call=call, reason=os.strerror(number), instead=instead)


def check_calls() -> None:
    """Try the calls that nothing replaces.

    Raises:
        HostError: this host refuses one.
    """
    call = "socketpair"
    try:
        for end in socket.socketpair():
            end.close()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            call = "recvmsg"
            _ignore_others(sock.recvmsg, 1)
            call = "sendmsg"
            _ignore_others(sock.sendmsg, [b""])
    except OSError as exc:
        if exc.errno not in REFUSED:
            return  # the start fails by itself where this lasts, and says where
        reason = os.strerror(exc.errno)
        log.error("host.call_refused", call=call, reason=reason)  # noqa: TRY400 - the trace would say no more
        raise HostError(f"this host refuses the system call {call}: {reason}") from exc


def _ignore_others(call: Callable[..., object], *arguments: object) -> None:
    """Make ``call``, which fails; raise only where the host refuses it."""
    try:
        call(*arguments)
    except OSError as exc:
        if exc.errno in REFUSED:
            raise


def can_use_epoll() -> bool:
    """Return whether epoll can be used; log it where it cannot."""
    call = "epoll_create1"
    try:
        with select.epoll(flags=select.EPOLL_CLOEXEC) as poll, socket.socket() as sock:
            call = "epoll_ctl"
            poll.register(sock, select.EPOLLIN)
            call = "epoll_wait"
            poll.poll(0)
    except OSError as exc:
        if exc.errno not in REFUSED:
            raise
        note_replaced(call, exc.errno, "poll")
        return False
    return True


def open_service_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of a service that is not on the path of queries."""
    return ServiceLoop() if can_use_epoll() else open_poll_loop()


def open_poll_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop for a host without epoll."""
    return ServiceLoop(PollSelector())
