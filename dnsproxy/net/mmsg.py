"""Many datagrams per system call: ``recvmmsg`` and ``sendmmsg`` on the memory of `msghdr`.

A batch costs one call, for the messages as well as for the system.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from dnsproxy.net.msghdr import BATCH, CMSG_HEADER, CONTROL_AT, LINK_LOCAL, PEER, SLOT, Headers, Slots
from dnsproxy.net.syscalls import SystemCalls

_BLOCKED = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS})

Boxed = Any
"""A number that is only handed on: under its own type the compiler makes an object of it for each call."""
Token = bytes
"""A client's sockaddr, and the control data that picks our own address for the response."""


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
        self._read, self._write = calls.read, calls.write
        self._slots, late_slots = Slots(), Slots()
        self._view = self._slots.view
        self._receiving = self._slots.headers(name_length, control_length)
        self._answering = self._slots.headers(name_length, control_length)
        self._late = late_slots.headers(name_length, control_length)
        self._peers: list[Boxed] = self._slots.addresses(0)
        self._first_message: Boxed = self._slots.addresses(PEER)[0]
        self._late_peers: list[Boxed] = late_slots.addresses(0)
        # Read for each batch: these are attributes of a class that is not compiled.
        self._first: Boxed = self._receiving.addresses[0]
        self._first_answer: Boxed = self._answering.addresses[0]
        self._queued: list[bytes] = []
        self._failed = 0
        # Where the address is in struct sockaddr_in6 and struct sockaddr_in, and how long.
        source_at, source_length = (8, 16) if inet6 else (4, 4)
        self._address_at, self._address_end = source_at, source_at + source_length
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
        messages = self._recvmmsg(self._fd, self._first, BATCH)
        if not messages:
            return [], ()
        if self._wildcard:
            self._forget_interfaces(len(messages))
        return messages, self._sources[len(messages)](self._view)

    def receive_one(self) -> bytes | None:
        """Return one waiting message, or None; `source` and `answer_one` are for it.

        For one or two messages this costs the kernel a third of what a batch of them does.
        """
        message = self._receive_one(self._fd, self._first, self._first_message)
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
        """See `DatagramSocket.answer`: each response goes behind the address that its query came from."""
        failed = first = 0
        run: list[bytes] = []
        for index, response in enumerate(responses):
            if isinstance(response, bytes):
                run.append(response)
            else:
                failed += self._send(self._answering, first, run)
                run = []
                first = index + 1
        return failed + self._send(self._answering, first, run)

    def _send(self, headers: Headers, first: int, messages: list[bytes]) -> int:
        """Send ``messages`` by the headers from ``first`` on; pass over and count what the kernel refuses."""
        failed = 0
        while messages:
            sent = self._sendmmsg(self._fd, headers.addresses[first], messages)
            if sent <= 0:
                failed += 1
                sent = 1
            first += sent
            messages = messages[sent:]
        return failed

    def token(self, index: int) -> Token:
        """See `DatagramSocket.token`."""
        return self._read(self._peers[index], PEER)

    def address(self, token: Token) -> bytes:
        """See `DatagramSocket.address`."""
        return token[self._address_at : self._address_end]

    def port(self, index: int) -> int:
        """See `DatagramSocket.port`: the third and fourth octet of both kinds of sockaddr."""
        at = index * SLOT
        return int(self._view[at + 2]) << 8 | int(self._view[at + 3])

    def queue(self, token: Token, response: bytes) -> None:
        """See `DatagramSocket.queue`."""
        if len(self._queued) == BATCH:
            self._failed = self.flush()
        self._write(self._late_peers[len(self._queued)], token)
        self._queued.append(response)

    def flush(self) -> int:
        """See `DatagramSocket.flush`."""
        queued, self._queued = self._queued, []
        failed, self._failed = self._failed, 0
        return failed + self._send(self._late, 0, queued)


class BatchMover:
    """Moves messages on connected sockets, whichever; one instance serves them all in turn."""

    def __init__(self, calls: SystemCalls) -> None:
        self._recvmmsg, self._sendmmsg = calls.recvmmsg, calls.sendmmsg
        self._last_error = calls.last_error
        slots = Slots()
        self._receiving, self._sending = slots.headers(0, 0), slots.headers(0, 0)
        self._first: Boxed = self._receiving.addresses[0]
        self._first_sent: Boxed = self._sending.addresses[0]

    def receive(self, sock: socket.SocketType, most: int = BATCH) -> list[bytes]:
        """Return up to ``most`` waiting messages, of at the most `BATCH`.

        Raises:
            OSError: the peer cannot be reached (an ICMP error has come in).
        """
        messages = self._recvmmsg(sock.fileno(), self._first, min(most, BATCH))
        if messages is None:
            self._raise_unless_blocked()
            return []
        return messages

    def send(self, sock: socket.SocketType, messages: list[bytes]) -> int:
        """Send the first `BATCH` of ``messages``; return how many the kernel took.

        Raises:
            OSError: the peer cannot be reached.
        """
        batch = messages if len(messages) <= BATCH else messages[:BATCH]
        sent = self._sendmmsg(sock.fileno(), self._first_sent, batch)
        if sent < 0:
            self._raise_unless_blocked()
            return 0
        return sent

    def _raise_unless_blocked(self) -> None:
        number = self._last_error()
        if number not in _BLOCKED:
            raise OSError(number, os.strerror(number))
