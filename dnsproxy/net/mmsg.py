"""Many datagrams per system call: ``recvmmsg`` and ``sendmmsg`` on the memory of `msghdr`.

A batch costs one call, and a message two or three slices.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from dnsproxy.net.msghdr import BATCH, CMSG_HEADER, CONTROL_AT, LINK_LOCAL, PEER, SLOT, Headers, Slots
from dnsproxy.net.syscalls import SystemCalls

_BLOCKED = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS})

Take = Callable[[memoryview, int], tuple[bytes]]
Boxed = Any
"""A number that is only handed on: under its own type the compiler makes an object of it for each call."""
Token = bytes
"""A client's sockaddr, and the control data that picks our own address for the response."""


# Short messages are copied out by a struct of their length: half the cost of a slice of a view.
_TAKERS: Final[list[Take]] = [struct.Struct(f"{length}s").unpack_from for length in range(256)]


def _take(view: memoryview, received: memoryview, count: int) -> list[bytes]:
    """Return copies of the first ``count`` messages, of the lengths ``received``."""
    messages: list[bytes] = []
    at: int = PEER
    for index in range(count):
        length: int = received[index]
        if length < len(_TAKERS):
            messages.append(_TAKERS[length](view, at)[0])
        else:
            messages.append(view[at : at + length].tobytes())
        at += SLOT
    return messages


class BatchSocket:
    """A `DatagramSocket` that moves up to `BATCH` messages per system call."""

    def __init__(self, sock: socket.socket, calls: SystemCalls, *, wildcard: bool) -> None:
        self._fd: Boxed = sock.fileno()
        self._recvmmsg, self._sendmmsg = calls.recvmmsg, calls.sendmmsg
        self._receive_one, self._send_one = calls.receive_one, calls.send_one
        inet6 = sock.family == socket.AF_INET6
        # CMSG_SPACE of struct in6_pktinfo (20 octets) and struct in_pktinfo (12 octets).
        control_length = (40 if inet6 else 32) if wildcard else 0
        name_length = 28 if inet6 else 16
        self._read, self._write, self._put = calls.read, calls.write, calls.put
        self._slots, late_slots = Slots(), Slots()
        self._view = self._slots.view
        self._receiving = self._slots.headers(name_length, control_length)
        self._answering = self._slots.headers(name_length, control_length)
        self._answering_one = self._slots.headers(name_length, control_length)
        self._late = late_slots.headers(name_length, control_length)
        self._peers: list[Boxed] = self._slots.addresses(0)
        self._messages: list[Boxed] = self._slots.addresses(PEER)
        self._late_peers: list[Boxed] = late_slots.addresses(0)
        self._late_messages: list[Boxed] = late_slots.addresses(PEER)
        # Read for each batch: these are attributes of a class that is not compiled.
        self._first: Boxed = self._receiving.addresses[0]
        self._first_answer: Boxed = self._answering_one.addresses[0]
        self._lengths: list[Boxed] = self._answering.lengths
        self._late_lengths: list[Boxed] = self._late.lengths
        self._received = self._receiving.received
        self._queued = 0
        self._failed = 0
        # Where the address is in struct sockaddr_in6 and struct sockaddr_in, and how long.
        source_at, source_length = (8, 16) if inet6 else (4, 4)
        # All source addresses of a batch in one call: 20 ns each, against 150 by slicing.
        one = f"{source_at}x{source_length}s{SLOT - source_at - source_length}x"
        self._sources = [struct.Struct("=" + one * count).unpack_from for count in range(BATCH + 1)]
        self._first_source: Boxed = self._slots.addresses(source_at)[0]
        self._source_length: Boxed = source_length
        # The interface index is last in in6_pktinfo, first in in_pktinfo.
        at = (CONTROL_AT + CMSG_HEADER + (16 if inet6 else 0)) // 4
        self._interfaces = self._view.cast("I")[at :: SLOT // 4]
        self._none = memoryview(bytes(4 * BATCH)).cast("I")
        # The first octet of the address that a query came to.
        self._asked = self._view[CONTROL_AT + CMSG_HEADER :: SLOT] if wildcard and inet6 else None
        self._wildcard = wildcard

    def receive(self) -> tuple[list[bytes], Sequence[bytes]]:
        """See `DatagramSocket.receive`."""
        count = self._recvmmsg(self._fd, self._first, BATCH)
        if count <= 0:
            return [], ()
        if self._wildcard:
            self._forget_interfaces(count)
        return _take(self._view, self._received, count), self._sources[count](self._view)

    def receive_one(self) -> bytes | None:
        """Return one waiting message, or None; `source` and `answer_one` are for it.

        For one or two messages this costs the kernel a third of what a batch of them does.
        """
        message = self._receive_one(self._fd, self._first, self._messages[0])
        if message is not None and self._wildcard:
            self._forget_interfaces(1)
        return message

    def source(self) -> bytes:
        """Return the packed address that the message of the last `receive_one` came from."""
        return self._read(self._first_source, self._source_length)

    def answer_one(self, response: bytes) -> int:
        """Send the response to the message of the last `receive_one`; return 1 if that failed."""
        return 1 if self._send_one(self._fd, self._first_answer, response) < 0 else 0

    def _forget_interfaces(self, count: int) -> None:
        """Keep only the address that was asked: the routes say by which interface a response leaves.

        Link-local addresses are addresses of an interface only.
        """
        asked = self._asked
        if asked is None or LINK_LOCAL not in asked[:count].tolist():
            self._interfaces[:count] = self._none[:count]
            return
        for index in range(count):
            if asked[index] != LINK_LOCAL:
                self._interfaces[index] = 0

    def answer(self, responses: Sequence[object]) -> int:
        """See `DatagramSocket.answer`: a response is put where its query was, behind its address."""
        failed = first = index = 0
        for response in responses:
            if isinstance(response, bytes):
                self._put(self._messages[index], self._lengths[index], response)
            else:
                failed += self._send(self._answering, first, index)
                first = index + 1
            index += 1
        return failed + self._send(self._answering, first, index)

    def _send(self, headers: Headers, first: int, end: int) -> int:
        """Send messages ``first`` to ``end``; one that the kernel refuses is passed over and counted."""
        failed = 0
        while first < end:
            sent = self._sendmmsg(self._fd, headers.addresses[first], end - first)
            if sent <= 0:
                failed += 1
                sent = 1
            first += sent
        return failed

    def token(self, index: int) -> Token:
        """See `DatagramSocket.token`."""
        return self._read(self._peers[index], PEER)

    def port(self, index: int) -> int:
        """See `DatagramSocket.port`: the third and fourth octet of both kinds of sockaddr."""
        at = index * SLOT
        return int(self._view[at + 2]) << 8 | int(self._view[at + 3])

    def queue(self, token: Token, response: bytes) -> None:
        """See `DatagramSocket.queue`."""
        if self._queued == BATCH:
            self._failed = self.flush()
        index = self._queued
        self._write(self._late_peers[index], token)
        self._put(self._late_messages[index], self._late_lengths[index], response)
        self._queued = index + 1

    def flush(self) -> int:
        """See `DatagramSocket.flush`."""
        failed = self._failed + self._send(self._late, 0, self._queued)
        self._queued = self._failed = 0
        return failed


class BatchMover:
    """Moves messages on connected sockets, whichever; one instance serves them all in turn."""

    def __init__(self, calls: SystemCalls) -> None:
        self._recvmmsg, self._sendmmsg, self._put = calls.recvmmsg, calls.sendmmsg, calls.put
        self._last_error = calls.last_error
        self._slots = Slots()
        self._view = self._slots.view
        self._headers = self._slots.headers(0, 0)
        self._sending = self._slots.headers(0, 0)
        self._messages: list[Boxed] = self._slots.addresses(PEER)
        self._lengths: list[Boxed] = self._sending.lengths

    def receive(self, sock: socket.SocketType, most: int = BATCH) -> list[bytes]:
        """Return up to ``most`` waiting messages, of at the most `BATCH`.

        Raises:
            OSError: the peer cannot be reached (an ICMP error has come in).
        """
        headers = self._headers
        count = self._recvmmsg(sock.fileno(), headers.addresses[0], min(most, BATCH))
        if count <= 0:
            self._raise_unless_blocked()
            return []
        return _take(self._view, headers.received, count)

    def send(self, sock: socket.SocketType, messages: list[bytes]) -> int:
        """Send the first `BATCH` of ``messages``; return how many the kernel took.

        Raises:
            OSError: the peer cannot be reached.
        """
        count = min(len(messages), BATCH)
        for index in range(count):
            self._put(self._messages[index], self._lengths[index], messages[index])
        sent = self._sendmmsg(sock.fileno(), self._sending.addresses[0], count)
        if sent < 0:
            self._raise_unless_blocked()
            return 0
        return sent

    def _raise_unless_blocked(self) -> None:
        number = self._last_error()
        if number not in _BLOCKED:
            raise OSError(number, os.strerror(number))
