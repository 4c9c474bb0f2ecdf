"""Listening sockets for streams, as the TCP and the TLS listener both open them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import Counter
from math import inf
from time import monotonic
from typing import Final

import structlog

from dnsproxy.core.engine import Engine
from dnsproxy.core.memory import CLIENT_RECEIVE, CLIENT_SEND
from dnsproxy.core.places import Place, Places
from dnsproxy.core.proxy_protocol import Header
from dnsproxy.errors import DropReason, StartError
from dnsproxy.host_calls import REFUSED

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_BACKLOG: Final = 512
# Out of descriptors or memory: the listening socket stays readable, so look again only after a while.
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED_SECONDS: Final = 1.0
# All that a socket towards a peer fails with for a reason of this host: besides, no port is free for it.
LOCAL: Final = EXHAUSTED | REFUSED | {errno.EADDRNOTAVAIL, errno.EAGAIN}
# What sockets are for: labels of the metric and the event.
UPSTREAMS: Final = "upstreams"
TCP_CLIENTS: Final = "tcp_clients"
TLS_CLIENTS: Final = "tls_clients"
# How often idle connections are looked for within the time that they may be idle.
IDLE_LOOKS: Final = 8


# When what last failed, by its use: a flood must not cost an event for each query.
_noted: dict[tuple[str, int], float] = {}


def note_exhausted(use: str, exc: OSError, counts: Counter[str]) -> bool:
    """Return whether ``exc`` says that this host is short of descriptors or memory; log and count it then."""
    return exc.errno in EXHAUSTED and note_local(use, exc, counts)


def note_local(use: str, exc: OSError, counts: Counter[str]) -> bool:
    """Return whether ``exc`` is a failure of this host and not of the peer; log and count it then.

    It is no fault of the upstreams and clients whose queries and connections fail by it.
    """
    number = exc.errno
    if number is None or number not in LOCAL:
        return False
    counts[use] += 1
    now = monotonic()
    if now - _noted.get((use, number), -inf) >= EXHAUSTED_SECONDS:
        _noted[use, number] = now
        if number in REFUSED:  # by a firewall, or a seccomp profile
            log.error("host.refused", use=use, reason=os.strerror(number))
        else:
            log.error("host.exhausted", use=use, reason=os.strerror(number))
    return True


def listen(transport: str, host: str, port: int, *, reuse_port: bool) -> socket.socket:
    """Return a non-blocking socket that listens; ``transport`` is what the complaint calls it.

    Raises:
        StartError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=reuse_port)
    except OSError as exc:
        # Python adds to the system's text what is said here already.
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise StartError(f"cannot listen on {transport} {host} port {port}: {reason}") from exc
    sock.setblocking(False)
    return sock


def bound_buffers(sock: socket.socket) -> socket.socket:
    """Bound the kernel's buffers of connections that ``sock``, which listens, accepts from now on."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CLIENT_RECEIVE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CLIENT_SEND)
    return sock


class Greeting:
    """A connection that is being made: the holder of ``place`` until then."""

    def __init__(self, place: Place) -> None:
        self.task: asyncio.Task[None] | None = None
        self.active = monotonic()
        self.place = place
        place.holder = self

    def client(self, header: Header, peer: bytes, engine: Engine, places: Places) -> bytes | None:
        """Return the client that ``peer`` connects for, and take its place; None if it may not connect."""
        source = header.address or peer
        if not engine.admits(source):
            return None
        places.leave(self.place)
        place = places.take(source)
        if not isinstance(place, Place):
            engine.stats.drops[place] += 1
            return None
        self.place, place.holder = place, self
        displace(place, engine)
        return source

    def abort(self) -> None:
        """See `core.places.Holder`."""
        if self.task is not None:
            self.task.cancel()


def displace(place: Place, engine: Engine) -> None:
    """Close the connection that ``place`` was taken from, if any."""
    if place.displaced is not None:
        engine.stats.drops[DropReason.TCP_DISPLACED] += 1
        place.displaced.abort()
        place.displaced = None


def expects_header(engine: Engine, peer: bytes) -> bool:
    """Tell whether the packed address ``peer`` says by PROXY protocol which client it connects for."""
    proxies = engine.features.proxies
    return proxies is not None and proxies.allows(peer)


def may_stay(engine: Engine, source: bytes, peer: bytes) -> bool:
    """Tell whether ``engine`` admits a connection that ``peer`` has made for the client at ``source``."""
    if peer != source and not (expects_header(engine, peer) and engine.admits(peer)):
        return False
    return engine.admits(source)


def bound_address(sock: socket.socket | None) -> tuple[str, int]:
    """Return the address and port that are really bound.

    Raises:
        StartError: there is no socket.
    """
    if sock is None:
        raise StartError("not listening")
    name = sock.getsockname()
    return str(name[0]), int(name[1])
