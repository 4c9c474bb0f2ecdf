"""The memory that ``recvmmsg`` and ``sendmmsg`` work on, laid out once through ctypes.

Kept apart from `mmsg`, which moves the messages: that one is compiled, and ctypes
structures cannot be.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Final

from dnsproxy.net.syscalls import LONGEST, SystemCalls, load_system_calls

# Messages per system call: at 6 us each a full batch keeps other work waiting for 0.4 ms.
BATCH: Final = 64
# Each peer's sockaddr (struct sockaddr_in6 takes 28 octets) and, after it, the control data of
# its message (CMSG_SPACE of struct in6_pktinfo is 40): all that a late response needs.
PEER: Final = 72
# One message with its peer in front. Queries are rarely over 100 octets; what does not fit is
# cut and refused as malformed.
SLOT: Final = PEER + LONGEST
CONTROL_AT: Final = 32
CMSG_HEADER: Final = 16
# How link-local addresses begin, fe80::/10, and since RFC 3879 no others that are in use.
LINK_LOCAL: Final = 0xFE


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


HEADER = ctypes.sizeof(_Mmsghdr)


@cache
def load_batch_calls() -> SystemCalls | None:
    """Return the calls where this layout is the kernel's, or None."""
    return load_system_calls() if HEADER == 64 else None


class Slots:
    """`BATCH` places for a peer's address with its control data, and a message behind them."""

    def __init__(self) -> None:
        self.memory = bytearray(BATCH * SLOT)
        self.view = memoryview(self.memory)

    def addresses(self, offset: int) -> list[int]:
        """Return what is so many octets behind the start of each place."""
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + offset
        return [start + index * SLOT for index in range(BATCH)]

    def headers(self, name_length: int, control_length: int) -> Headers:
        """Return message headers over these places; no peers when ``name_length`` is 0."""
        headers = Headers(self.memory)
        for index, peer in enumerate(self.addresses(0)):
            iovec = headers.iovecs[index]
            iovec.base, iovec.length = peer + PEER, LONGEST
            header = headers.array[index]
            header.iov, header.iov_count = ctypes.addressof(iovec), 1
            if name_length:
                header.name, header.name_length = peer, name_length
            if control_length:
                header.control, header.control_length = peer + CONTROL_AT, control_length
        return headers


class Headers:
    """`BATCH` message headers; ``addresses`` are what the system calls are given, from each one on."""

    def __init__(self, memory: bytearray) -> None:
        self.memory = memory  # the kernel writes there as long as there are headers that say so
        self.iovecs = (_Iovec * BATCH)()
        self.array = (_Mmsghdr * BATCH)()
        start = ctypes.addressof(self.array)
        self.addresses = [start + index * HEADER for index in range(BATCH)]
