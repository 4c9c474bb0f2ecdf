"""The sockets of the data plane, opened the fastest way that the system has.

`open_socket` gives the UDP listener its socket, `open_mover` moves messages on the
sockets to upstreams. Both use `mmsg` where the C library has it; the classes here
do the same with one call per message. Nothing else in the program knows which.

A socket bound to a wildcard must respond from the address that was asked (RFC 1123
§4.1.3.5): the IP_PKTINFO that the kernel gives with each query goes back with its response.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Protocol

from dnsproxy.core.memory import UDP_RECEIVE
from dnsproxy.errors import StartError
from dnsproxy.net.mmsg import BatchMover, BatchSocket
from dnsproxy.net.msghdr import BATCH, LINK_LOCAL, load_batch_calls
from dnsproxy.net.syscalls import LONGEST

RECEIVE_BUFFER = UDP_RECEIVE

# Linux's numbers; Python's socket module has them only in part.
_IP_PKTINFO, _IPV6_RECVPKTINFO = 8, 49

Token = Any
"""Where a response goes; only the socket that made it looks inside. Those of one client's port are equal."""


class DatagramSocket(Protocol):
    """What the UDP listener needs of a socket."""

    def receive(self) -> tuple[list[bytes], Sequence[bytes]]:
        """Return up to `BATCH` waiting messages and the packed address that each came from."""

    def answer(self, responses: Sequence[object]) -> int:
        """Send each response to its message of the last `receive`; return how many failed.

        What is not bytes stands for a message that gets no response, or a late one.
        """

    def token(self, index: int) -> Token:
        """Return where a later response to message ``index`` of the last `receive` goes."""

    def address(self, token: Token) -> bytes:
        """Return the packed address that the message of ``token`` came from."""

    def port(self, index: int) -> int:
        """Return the port that message ``index`` of the last `receive` came from."""

    def queue(self, token: Token, response: bytes) -> None:
        """Keep a response that took its time for the next `flush`."""

    def flush(self) -> int:
        """Send what is queued; return how many responses the kernel would not take."""


def open_socket(host: str, port: int, *, reuse_port: bool = False) -> tuple[socket.socket, DatagramSocket]:
    """Bind a UDP socket to the numeric address ``host`` and return it with its fast side.

    Raises:
        StartError: the address cannot be bound.
    """
    sock = bind_socket(host, port, reuse_port=reuse_port)
    return sock, fast_side(sock)


def bind_socket(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Return a non-blocking UDP socket bound to the numeric address ``host``.

    Raises:
        StartError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            prepare_socket(sock, wildcard=ip_address(host).is_unspecified)
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
    except OSError as exc:
        raise StartError(f"cannot listen on udp {host} port {port}: {exc.strerror}") from exc
    return sock


def prepare_socket(sock: socket.socket, *, wildcard: bool) -> None:
    """Give a UDP socket, bound or not, a large queue, and have it say where a query came to.

    Raises:
        OSError: as the system says.
    """
    sock.setblocking(False)
    # The kernel says twice what it was told. One that the service manager has made larger stays so.
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 2 * RECEIVE_BUFFER:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    if not wildcard:
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def fast_side(sock: socket.socket) -> DatagramSocket:
    """Return the fastest way that the system has to serve a socket that `prepare_socket` has prepared."""
    calls = load_batch_calls()
    if calls is None:
        return PlainSocket(sock)
    wildcard = ip_address(str(sock.getsockname()[0]).partition("%")[0]).is_unspecified
    return BatchSocket(sock, calls, wildcard=wildcard)


def open_mover() -> BatchMover | PlainMover:
    """Return the fast way, if there is one, to move messages on connected sockets."""
    calls = load_batch_calls()
    return PlainMover() if calls is None else BatchMover(calls)


# -- one call per message -----------------------------------------------------------------


class PlainMover:
    """A `BatchMover` made of ``send`` and ``recv`` alone."""

    def receive(self, sock: socket.SocketType, most: int = BATCH) -> list[bytes]:
        """See `BatchMover.receive`."""
        messages: list[bytes] = []
        while len(messages) < min(most, BATCH):
            try:
                messages.append(sock.recv(LONGEST))
            except BlockingIOError:
                break
            except OSError:
                if not messages:
                    raise
                break
        return messages

    def send(self, sock: socket.SocketType, messages: list[bytes]) -> int:
        """See `BatchMover.send`."""
        for index, message in enumerate(messages[:BATCH]):
            try:
                sock.send(message)
            except BlockingIOError:
                return index
            except OSError:
                if index == 0:
                    raise
                return index
        return min(len(messages), BATCH)


class PlainSocket:
    """A `DatagramSocket` made of ``recvmsg`` and ``sendmsg`` alone."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._tokens: list[tuple[tuple[Any, ...], Any]] = []
        self._queue: list[tuple[Token, bytes]] = []

    def receive(self) -> tuple[list[bytes], list[bytes]]:
        """See `DatagramSocket.receive`."""
        messages: list[bytes] = []
        sources: list[bytes] = []
        self._tokens = []
        while len(messages) < BATCH:
            try:
                data, control, _, peer = self._sock.recvmsg(LONGEST, socket.CMSG_SPACE(20))
            except OSError:  # no message waits, or an ICMP error about an earlier response
                break
            messages.append(data)
            sources.append(socket.inet_pton(self._sock.family, peer[0].partition("%")[0]))
            self._tokens.append((tuple(control), peer))
        return messages, sources

    def answer(self, responses: Sequence[object]) -> int:
        """See `DatagramSocket.answer`."""
        pairs = zip(self._tokens, responses, strict=True)
        return sum(not self._send(token, response) for token, response in pairs if type(response) is bytes)

    def _send(self, token: Token, response: bytes) -> bool:
        control, peer = token
        try:
            self._sock.sendmsg([response], [_without_interface(item) for item in control], 0, peer)
        except OSError:
            return False
        return True

    def token(self, index: int) -> Token:
        """See `DatagramSocket.token`."""
        return self._tokens[index]

    def address(self, token: Token) -> bytes:
        """See `DatagramSocket.address`."""
        return socket.inet_pton(self._sock.family, str(token[1][0]).partition("%")[0])

    def port(self, index: int) -> int:
        """See `DatagramSocket.port`."""
        return int(self._tokens[index][1][1])

    def queue(self, token: Token, response: bytes) -> None:
        """See `DatagramSocket.queue`."""
        self._queue.append((token, response))

    def flush(self) -> int:
        """See `DatagramSocket.flush`."""
        queued, self._queue = self._queue, []
        return sum(not self._send(token, response) for token, response in queued)


def _without_interface(item: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    level, kind, data = item
    if level == socket.IPPROTO_IP:
        return level, kind, b"\0\0\0\0" + data[4:]
    # A link-local address is one of its interface only.
    return item if data[0] == LINK_LOCAL else (level, kind, data[:16] + b"\0\0\0\0")
