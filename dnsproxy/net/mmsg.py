"""Many datagrams per system call: ``recvmmsg`` and ``sendmmsg`` through ctypes.

They are not in Python's socket module. The buffers, headers and pointers are laid
out once; a call then costs one ctypes call, and a message two or three slices.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence

# Messages per system call: at 6 us each a full batch keeps other work waiting for 0.4 ms.
BATCH = 64
# Queries are rarely over 100 octets; what is longer than this is cut and refused as
# malformed. The same slot then takes the response, which is at most 1232 octets.
SLOT = 2048

# Each peer's sockaddr (struct sockaddr_in6 takes 28 octets) and, after it, the control
# data of its message (CMSG_SPACE of struct in6_pktinfo is 40): kept together so that
# one slice is all that a late response needs.
_PEER = 72
_CONTROL_AT = 32
_CMSG_HEADER = 16
_BLOCKED = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS})

Token = bytes
"""A client's sockaddr, and the control data that picks our own address for the response."""

Call = Callable[..., int]


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Mmsghdr(ctypes.Structure):
    """struct mmsghdr of 64-bit Linux: struct msghdr, then the length of the message."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_uint32),  # the end of struct msghdr
        ("length", ctypes.c_uint32),
    )


_HEADER = ctypes.sizeof(_Mmsghdr)
_LENGTH_AT = _Mmsghdr.length.offset // 4


def load_batch_calls() -> tuple[Call, Call] | None:
    """Return ``recvmmsg`` and ``sendmmsg`` of the C library, or None where there are none to use."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8 or _HEADER != 64:
        return None
    library = ctypes.CDLL(None, use_errno=True)
    try:
        return library.recvmmsg, library.sendmmsg
    except AttributeError:
        return None


class _Slots:
    """`BATCH` places for a message, its peer's address and its control data."""

    def __init__(self) -> None:
        self.data = bytearray(BATCH * SLOT)
        self.peers = bytearray(BATCH * _PEER)

    def headers(self, name_length: int, control_length: int) -> _Headers:
        """Return message headers over these places."""
        data, peers = (ctypes.addressof(ctypes.c_char.from_buffer(b)) for b in (self.data, self.peers))
        headers = _Headers()
        for index in range(BATCH):
            iovec = headers.iovecs[index]
            iovec.base, iovec.length = data + index * SLOT, SLOT
            header = headers.array[index]
            header.iov, header.iov_count = ctypes.addressof(iovec), 1
            if name_length:
                header.name, header.name_length = peers + index * _PEER, name_length
            if control_length:
                header.control = peers + index * _PEER + _CONTROL_AT
                header.control_length = control_length
        return headers


class _Headers:
    """`BATCH` message headers; ``address`` is what the system calls are given."""

    def __init__(self) -> None:
        self.iovecs = (_Iovec * BATCH)()
        self.array = (_Mmsghdr * BATCH)()
        self.address = ctypes.addressof(self.array)
        # Views of the two fields that are touched per message: 28 ns instead of 83 by attribute.
        self.received = memoryview(self.array).cast("B").cast("I")[_LENGTH_AT :: _HEADER // 4]
        self.to_send = memoryview(self.iovecs).cast("B").cast("Q")[1::2]


class BatchSocket:
    """A `DatagramSocket` that moves up to `BATCH` messages per system call."""

    def __init__(self, sock: socket.socket, calls: tuple[Call, Call], *, wildcard: bool) -> None:
        self._fd = sock.fileno()
        self._recvmmsg, self._sendmmsg = calls
        inet6 = sock.family == socket.AF_INET6
        # CMSG_SPACE of struct in6_pktinfo (20 octets) and struct in_pktinfo (12 octets).
        control_length = (40 if inet6 else 32) if wildcard else 0
        lengths = 28 if inet6 else 16, control_length
        self._slots = _Slots()
        self._late_slots = _Slots()
        self._receiving = self._slots.headers(*lengths)
        self._answering = self._slots.headers(*lengths)
        self._late = self._late_slots.headers(*lengths)
        self._queued = 0
        self._failed = 0
        self._view = memoryview(self._slots.data)
        # All source addresses of a batch in one call: 20 ns each, against 150 by slicing.
        one = "8x16s48x" if inet6 else "4x4s64x"
        self._sources = [struct.Struct("=" + one * count).unpack_from for count in range(BATCH + 1)]
        # The interface index is last in in6_pktinfo, first in in_pktinfo.
        at = (_CONTROL_AT + _CMSG_HEADER + (16 if inet6 else 0)) // 4
        self._interfaces = memoryview(self._slots.peers).cast("I")[at :: _PEER // 4]
        self._none = memoryview(bytes(4 * BATCH)).cast("I")
        self._wildcard = wildcard

    def receive(self) -> tuple[list[bytes], Sequence[bytes]]:
        """See `DatagramSocket.receive`."""
        count = self._recvmmsg(self._fd, ctypes.c_void_p(self._receiving.address), BATCH, 0, None)
        if count <= 0:
            return [], ()
        view = self._view
        lengths = self._receiving.received[:count].tolist()
        messages = [view[at : at + lengths[at // SLOT]].tobytes() for at in range(0, count * SLOT, SLOT)]
        if self._wildcard:
            # Keep only the address: which interface a response leaves by is for the routes to say.
            self._interfaces[:count] = self._none[:count]
        return messages, self._sources[count](self._slots.peers)

    def answer(self, responses: Sequence[object]) -> int:
        """See `DatagramSocket.answer`: a response is put where its query was, beside its address."""
        view, lengths = self._view, self._answering.to_send
        failed = first = at = 0
        for index, response in enumerate(responses):
            if type(response) is not bytes:
                failed += self._send(self._answering, first, index)
                first = index + 1
            else:
                size = len(response)
                view[at : at + size] = response
                lengths[index] = size
            at += SLOT
        return failed + self._send(self._answering, first, len(responses))

    def _send(self, headers: _Headers, first: int, end: int) -> int:
        """Send messages ``first`` to ``end``; one that the kernel refuses is passed over and counted."""
        failed = 0
        while first < end:
            at = ctypes.c_void_p(headers.address + first * _HEADER)
            sent = self._sendmmsg(self._fd, at, end - first, 0)
            if sent <= 0:
                failed += 1
                sent = 1
            first += sent
        return failed

    def token(self, index: int) -> Token:
        """See `DatagramSocket.token`."""
        return bytes(self._slots.peers[index * _PEER : (index + 1) * _PEER])

    def queue(self, token: Token, response: bytes) -> None:
        """See `DatagramSocket.queue`."""
        if self._queued == BATCH:
            self._failed = self.flush()
        index = self._queued
        slots, size = self._late_slots, len(response)
        slots.data[index * SLOT : index * SLOT + size] = response
        slots.peers[index * _PEER : (index + 1) * _PEER] = token
        self._late.to_send[index] = size
        self._queued = index + 1

    def flush(self) -> int:
        """See `DatagramSocket.flush`."""
        failed = self._failed + self._send(self._late, 0, self._queued)
        self._queued = self._failed = 0
        return failed


class BatchMover:
    """Moves messages on connected sockets, whichever; one instance serves them all in turn."""

    def __init__(self, calls: tuple[Call, Call]) -> None:
        self._recvmmsg, self._sendmmsg = calls
        self._slots = _Slots()
        self._headers = self._slots.headers(0, 0)
        self._sending = self._slots.headers(0, 0)
        self._view = memoryview(self._slots.data)

    def receive(self, sock: socket.socket) -> list[bytes]:
        """Return up to `BATCH` waiting messages.

        Raises:
            OSError: the peer cannot be reached (an ICMP error has come in).
        """
        headers = self._headers
        count = self._recvmmsg(sock.fileno(), ctypes.c_void_p(headers.address), BATCH, 0, None)
        if count <= 0:
            _raise_unless_blocked()
            return []
        view = self._view
        lengths = headers.received[:count].tolist()
        return [view[at : at + lengths[at // SLOT]].tobytes() for at in range(0, count * SLOT, SLOT)]

    def send(self, sock: socket.socket, messages: list[bytes]) -> int:
        """Send the first `BATCH` of ``messages``; return how many the kernel took.

        Raises:
            OSError: the peer cannot be reached.
        """
        view, headers, at = self._view, self._sending, 0
        messages = messages[:BATCH]
        for index, message in enumerate(messages):
            size = len(message)
            view[at : at + size] = message
            headers.to_send[index] = size
            at += SLOT
        sent = self._sendmmsg(sock.fileno(), ctypes.c_void_p(headers.address), len(messages), 0)
        if sent < 0:
            _raise_unless_blocked()
            return 0
        return sent


def _raise_unless_blocked() -> None:
    number = ctypes.get_errno()
    if number not in _BLOCKED:
        raise OSError(number, os.strerror(number))
