"""The sockets that clients come to, by what they are for.

They are bound, or taken from the service manager, by the process that was started, and handed on to
whoever serves them: the same process, or workers one after another. The kernel keeps what lies in the queue
of a socket for as long as one process has it open, so nothing is lost when another one takes over.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from dnsproxy.errors import StartError
from dnsproxy.net.datagrams import bind_socket
from dnsproxy.net.stream import listen
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint

# What the sockets of an operator's endpoint are called; they speak HTTP, and no worker serves them.
ADMIN = "admin"
HELPER = "helper"


class Door(NamedTuple):
    """What a socket is for: ``kind`` is udp, tcp, tls, admin or helper.

    ``number`` tells several sockets of one address apart, which the kernel shares the clients out to.
    """

    kind: str
    host: str
    port: int
    number: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind} {host}:{self.port}"

    @property
    def is_datagram(self) -> bool:
        """Whether the socket is one for UDP."""
        return self.kind == "udp"


def dns_doors(settings: Settings) -> list[Door]:
    """Return what queries are to come to."""
    serve = settings.serve
    doors = [Door(kind, at.host, at.port) for at in serve.listen for kind in ("udp", "tcp")]
    return [*doors, *(Door("tls", at.host, at.port) for at in serve.tls.listen)]


def proxy_doors(settings: Settings) -> list[Door]:
    """Return every door of ``dnsproxy serve``."""
    admin = settings.admin.listen
    return [*dns_doors(settings), *([] if admin is None else [_http(ADMIN, admin)])]


def helper_doors(settings: Settings) -> list[Door]:
    """Return every door of ``dnsproxy helper``."""
    return [_http(HELPER, settings.helper.listen)]


def _http(kind: str, at: Endpoint) -> Door:
    return Door(kind, at.host, at.port)


class Doorkeeper:
    """Owns the sockets. Each address has ``shares`` of them, or as many as were ``given`` for it.

    ``missing`` counts those that the service manager was expected to give at the start and did not.
    """

    def __init__(
        self, given: Mapping[Door, socket.socket] | None = None, *, shares: int = 1, missing: int = 0
    ) -> None:
        self.missing = missing
        self._given = dict(given or {})
        self._shares = shares
        self._open: dict[Door, socket.socket] = dict(self._given)

    @property
    def given(self) -> frozenset[Door]:
        """The doors whose sockets another process, the service manager, has open too."""
        return frozenset(self._given)

    def open(self, doors: Iterable[Door]) -> None:
        """Bind what is not open yet.

        Raises:
            StartError: some cannot be bound, with every reason; none of them is open then.
        """
        opened: dict[Door, socket.socket] = {}
        complaints: list[str] = []
        for door in doors:
            if door in self._open:
                continue
            try:
                opened |= self._bind(door)
            except StartError as exc:
                complaints += exc.reasons
        if complaints:
            _close(opened)
            raise StartError(*complaints)
        self._open |= opened

    def keep(self, doors: Iterable[Door]) -> None:
        """Close all but ``doors``. What was given stays, for it cannot be bound again."""
        kept = {door._replace(number=0) for door in doors}
        left = {
            door: sock
            for door, sock in self._open.items()
            if door._replace(number=0) not in kept and door not in self._given
        }
        for door in left:
            del self._open[door]
        _close(left)

    def one(self, door: Door) -> socket.socket:
        """Return a socket of its own, for the one process that serves ``door``."""
        return self._open[door].dup()

    def numbered(self, doors: Iterable[Door], index: int = 0) -> list[Door]:
        """Return ``doors``, numbered, as worker ``index`` of all that share them serves them.

        Fewer sockets than workers: several serve the same one. More: a worker serves several.
        """
        found = []
        for door in doors:
            numbers = [held.number for held in self._open if held._replace(number=0) == door]
            mine = [number for number in numbers if number % self._shares == index]
            found += [door._replace(number=number) for number in mine or [index % len(numbers)]]
        return found

    def share(
        self, doors: Iterable[Door], index: int = 0, served: Container[Door] = ()
    ) -> dict[Door, socket.socket]:
        """Return sockets of its own for worker ``index``, but none for what is ``served`` already.

        Raises:
            OSError: no descriptor is left.
        """
        return {door: self._open[door].dup() for door in self.numbered(doors, index) if door not in served}

    def give_to(self, uid: int, gid: int) -> None:
        """Make ``uid`` the owner: only sockets of one user may have an address together (SO_REUSEPORT)."""
        for sock in self._open.values():
            os.fchown(sock.fileno(), uid, gid)

    def close(self) -> None:
        """Close all; those who serve one have it open still."""
        _close(self._open)
        self._open = {}
        self._given = {}

    def _bind(self, door: Door) -> dict[Door, socket.socket]:
        shares = 1 if door.kind in {ADMIN, HELPER} else self._shares
        first = self._bind_beside(door)
        if shares == 1:
            return {door: first}
        # Had the first one been bound to share, another program of this user would be joined silently.
        first.close()
        bound: dict[Door, socket.socket] = {}
        try:
            for number in range(shares):
                bound[door._replace(number=number)] = _bind(door, reuse_port=True)
        except StartError:
            _close(bound)
            raise
        return bound

    def _bind_beside(self, door: Door) -> socket.socket:
        """Bind ``door``, also where a door that it is to replace has the port on a wildcard, or below one."""
        try:
            return _bind(door)
        except StartError as exc:
            beside = [held for open_, held in self._open.items() if _overlap(open_, door)]
            taken = isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EADDRINUSE
            if not beside or not taken:
                raise
        for held in beside:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock = _bind(door, reuse_port=True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        finally:
            if self._shares == 1:
                for held in beside:
                    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        return sock


def _overlap(one: Door, other: Door) -> bool:
    return one.port == other.port and one.is_datagram == other.is_datagram


def _bind(door: Door, *, reuse_port: bool = False) -> socket.socket:
    if door.is_datagram:
        return bind_socket(door.host, door.port, reuse_port=reuse_port)
    try:
        return listen(door.kind, door.host, door.port, reuse_port=reuse_port)
    except StartError as exc:
        if door.kind not in {ADMIN, HELPER}:
            raise
        reason = str(exc).rpartition(": ")[2]
        at = Endpoint(door.host, door.port)
        raise StartError(f"{door.kind}.listen: cannot listen on {at}: {reason}") from exc.__cause__


def _close(sockets: Mapping[Door, socket.socket]) -> None:
    for sock in sockets.values():
        sock.close()
