"""Sockets that the service manager has opened: ``LISTEN_FDS`` (sd_listen_fds(3)).

Each is matched to an address of the configuration by what it is bound to. It outlives this process,
and with it what clients have sent while nobody was there to read.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from ipaddress import ip_address

from dnsproxy.errors import StartError
from dnsproxy.net.datagrams import prepare_socket
from dnsproxy.net.doors import Door

_FIRST = 3  # SD_LISTEN_FDS_START
_MOST = 256
_KINDS = {socket.SOCK_DGRAM: "udp", socket.SOCK_STREAM: "tcp"}


def take_descriptors(environ: MutableMapping[str, str] | None = None) -> dict[int, str]:
    """Return the descriptors that are meant for this process, with their names; none without activation.

    The variables are taken out of ``environ``: they are not for the programs that this one starts.
    """
    environ = os.environ if environ is None else environ
    pid, count, names = (environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    descriptors = range(_FIRST, _FIRST + min(int(count), _MOST))
    named = [*names.split(":"), *[""] * len(descriptors)]
    for descriptor in descriptors:
        with suppress(OSError):
            os.set_inheritable(descriptor, False)
    return {descriptor: named[index] for index, descriptor in enumerate(descriptors)}


def match_doors(descriptors: dict[int, str], doors: Iterable[Door]) -> dict[Door, socket.socket]:
    """Return the sockets behind ``descriptors`` by the door that each is for.

    Several of one address, which the kernel shares the clients out to, are numbered.

    Raises:
        StartError: some are for no door, or cannot be used for theirs, with every reason; none is open then.
    """
    wanted = {(door.is_datagram, door.host, door.port): door for door in doors}
    found: dict[Door, socket.socket] = {}
    numbers: Counter[Door] = Counter()
    complaints: list[str] = []
    for descriptor, name in descriptors.items():
        shown = f"descriptor {descriptor}" + (f" ({name})" if name else "")
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError as exc:
            complaints.append(f"socket activation: {shown} is not a socket: {exc.strerror}")
            continue
        try:
            door = _door(sock, wanted)
        except StartError as exc:
            sock.close()
            complaints.append(f"socket activation: {shown} {exc}")
            continue
        found[door._replace(number=numbers[door])] = sock
        numbers[door] += 1
    if complaints:
        for sock in found.values():
            sock.close()
        raise StartError(*complaints)
    return found


def _door(sock: socket.socket, wanted: dict[tuple[bool, str, int], Door]) -> Door:
    if sock.family not in {socket.AF_INET, socket.AF_INET6} or sock.type not in _KINDS:
        raise StartError("is not a UDP or TCP socket")
    host, port = sock.getsockname()[:2]
    address = ip_address(host.partition("%")[0])
    is_datagram = sock.type == socket.SOCK_DGRAM
    door = wanted.get((is_datagram, str(address), port))
    shown = f"{_KINDS[sock.type]} {f'[{address}]' if address.version == 6 else address}:{port}"
    if door is None:
        raise StartError(f"is {shown}, which the configuration does not listen on")
    if not is_datagram and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise StartError(f"is {shown} and does not listen; set Accept=no in the socket unit")
    if address.is_unspecified and address.version == 6 and not _only_ipv6(sock):
        raise StartError(f"is {shown} and takes IPv4 too; set BindIPv6Only=ipv6-only in the socket unit")
    try:
        sock.setblocking(False)
        if is_datagram:
            prepare_socket(sock, wildcard=address.is_unspecified)
    except OSError as exc:
        raise StartError(f"is {shown} and cannot be used: {exc.strerror}") from exc
    return door


def _only_ipv6(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
