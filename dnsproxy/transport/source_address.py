"""What sockets leave from: `forward.source` to upstreams, `learn.source_address` to sources."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

from dnsproxy.core.upstreams import Source
from dnsproxy.transport.reasons import os_reason

# ip(7): the port is chosen at connect(2), by the whole 4-tuple, so that one address serves more connections.
_BIND_ADDRESS_NO_PORT: Final = 24


def bind_source(sock: socket.SocketType, source: Source) -> None:
    """Have ``sock``, which is not connected yet, send from ``source``.

    Raises:
        OSError: this host has no such address or interface, or may not use it.
    """
    if source.interface:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, source.interface.encode() + b"\x00")
    address = source.ipv6 if sock.family == socket.AF_INET6 else source.ipv4
    if address:
        if sock.type & socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind((address, 0))


async def connect_socket(
    kind: socket.SocketKind, host: str, port: int, source: Source | None
) -> socket.socket:
    """Return a socket of ``kind`` that is connected to the numeric address ``host``, from ``source``.

    Raises:
        OSError: it cannot be connected, or as `bind_source`.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        sock.setblocking(False)
        if source is not None:
            bind_source(sock, source)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:  # a cancellation too
        sock.close()
        raise
    return sock


def socket_factory(source: Source | None) -> Callable[[tuple[Any, ...]], socket.socket] | None:
    """Return what makes the sockets of an ``aiohttp.TCPConnector``: from an item of getaddrinfo(3)."""
    if source is None:
        return None

    def make(info: tuple[Any, ...]) -> socket.socket:
        sock = socket.socket(*info[:3])
        try:
            bind_source(sock, source)
        except OSError:
            sock.close()
            raise
        return sock

    return make


def refusal(source: Source) -> str | None:
    """Return why ``source`` cannot be used now; None if it can."""
    families = [(socket.AF_INET, source.ipv4), (socket.AF_INET6, source.ipv6)]
    used = [family for family, address in families if address] or [socket.AF_INET]
    for family in used:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                bind_source(sock, source)
        except OSError as exc:
            return os_reason(exc)
    return None
