"""System calls of the data plane that Python's modules have not, or only with more around them.

A compiled build (setup.py) has them in `_syscalls`, which Cython makes; others call them through
ctypes. What a call costs is mostly the code it walks through: at 20,000 queries per second nothing
of it is in the processor's first cache any more when the next packet comes, and ctypes with libffi
are 2,700 instructions per call against 200.
"""

from __future__ import annotations

import ctypes
import importlib
import socket
import sys
from ctypes import c_int, c_size_t, c_uint, c_void_p
from typing import Any, Final, Protocol

from dnsproxy.host_calls import REFUSED, note_replaced

LONGEST: Final = 1976
"""The most octets of a message, or of what else is copied to where the calls find it."""

MAX_EVENTS: Final = 64
"""Descriptors that are told as ready at once; the rest is told by the next call."""


class Waiting(Protocol):
    """How a compiled build waits for descriptors; it raises OSError for what the system refuses.

    The end of a wait is not told to epoll_wait(2), which would set a timer for each wait and take it back
    (2 us of the 17 that a query takes at 20,000 per second), but by a descriptor among the others.
    """

    def ready(self, descriptor: int, waiting: bool, /) -> list[object]:  # noqa: FBT001 - as Cython takes it
        """Return what is ready at an epoll descriptor: nothing when a signal has ended a wait."""

    def open_timer(self) -> int:
        """Return a new descriptor of timerfd_create(2) that counts monotonic time."""

    def set_timer(self, descriptor: int, at: float, /) -> None:
        """Have a timer's descriptor become ready ``at`` that time, and at no other."""


class SystemCalls(Protocol):
    """The calls, on sockets that do not block; addresses are plain numbers.

    A failure is -1, or None; `last_error` tells its number.
    """

    def recvmmsg(self, descriptor: int, messages: int, most: int, /) -> list[bytes] | None:
        """Receive by the ``most`` struct mmsghdr at ``messages``; return copies of what came."""

    def sendmmsg(self, descriptor: int, messages: int, octets: list[bytes], /) -> int:
        """Send ``octets``, each by one of the struct mmsghdr at ``messages``; return how many were sent."""

    def receive_one(self, descriptor: int, header: int, octets: int, /) -> bytes | None:
        """Call recvmsg(2) on the struct msghdr at ``header``, whose one vector is at ``octets``."""

    def send_one(self, descriptor: int, header: int, message: bytes, /) -> int:
        """Call sendmsg(2) on the struct msghdr at ``header``, with ``message`` as its one vector."""

    def last_error(self) -> int:
        """Return the number of the last failure."""

    def read(self, address: int, length: int, /) -> bytes:
        """Return a copy of so many octets at ``address``."""

    def write(self, address: int, octets: bytes, /) -> None:
        """Copy ``octets``, `LONGEST` at most, to ``address``.

        Raises:
            ValueError: they are more.
        """


def load_system_calls() -> SystemCalls | None:
    """Return the calls, or None where the system does not have or allow them all, or in another form."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    calls: SystemCalls | None = _compiled() or _through_ctypes()
    return calls if calls is not None and _is_allowed(calls) else None


def _is_allowed(calls: SystemCalls) -> bool:
    """Return whether this host lets messages be moved in batches; log it where it does not."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        # Without messages neither does anything.
        if calls.recvmmsg(sock.fileno(), 0, 0) is None and (number := calls.last_error()) in REFUSED:
            note_replaced("recvmmsg", number, "recvmsg")
            return False
        if calls.sendmmsg(sock.fileno(), 0, []) < 0 and (number := calls.last_error()) in REFUSED:
            note_replaced("sendmmsg", number, "sendmsg")
            return False
    return True


def load_waiting() -> Waiting | None:
    """Return the calls of a compiled build; in another such a wait would keep other threads waiting."""
    waiting: Waiting | None = _compiled()
    return waiting


def _compiled() -> Any:  # noqa: ANN401 - a module that mypy cannot look into
    try:
        return importlib.import_module("dnsproxy.net._syscalls")
    except ImportError:
        return None


class _Vector(ctypes.Structure):
    """struct iovec, with octets of Python's."""

    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


_TOO_LONG: Final = "longer than a message may be"

# Of 64 bits: where struct msghdr has the address of its vectors and struct mmsghdr the size of what came, and
# the size of that.
_VECTORS_AT: Final = 16
_RECEIVED_AT: Final = 56
_MMSGHDR: Final = 64


def _read_address(at: int) -> int:
    return c_size_t.from_address(at).value


def _vector(header: int) -> _Vector:
    return _Vector.from_address(_read_address(header + _VECTORS_AT))


def _received(header: int) -> bytes:
    octets = _read_address(_read_address(header + _VECTORS_AT))
    return ctypes.string_at(octets, c_uint.from_address(header + _RECEIVED_AT).value)


class _ThroughCtypes:
    # PyDLL keeps the interpreter's lock: these calls never block, and giving it up and taking it again
    # costs a fifth of a call for one message.
    def __init__(self) -> None:
        library = ctypes.PyDLL(None, use_errno=True)
        self._recvmmsg, self._sendmmsg = library.recvmmsg, library.sendmmsg
        self._recvmsg, self._sendmsg = library.recvmsg, library.sendmsg
        self._recvmmsg.argtypes = (c_int, c_void_p, c_uint, c_int, c_void_p)
        self._sendmmsg.argtypes = (c_int, c_void_p, c_uint, c_int)
        self._recvmsg.argtypes = self._sendmsg.argtypes = (c_int, c_void_p, c_int)

    def recvmmsg(self, descriptor: int, messages: int, most: int, /) -> list[bytes] | None:
        count = self._recvmmsg(descriptor, messages, most, 0, None)
        if count < 0:
            return None
        return [_received(messages + index * _MMSGHDR) for index in range(count)]

    def sendmmsg(self, descriptor: int, messages: int, octets: list[bytes], /) -> int:
        vectors = [_vector(messages + index * _MMSGHDR) for index in range(len(octets))]
        for vector, message in zip(vectors, octets, strict=True):
            vector.base, vector.length = message, len(message)
        return int(self._sendmmsg(descriptor, messages, len(octets), 0))

    def receive_one(self, descriptor: int, header: int, octets: int, /) -> bytes | None:
        size = self._recvmsg(descriptor, header, 0)
        return None if size < 0 else ctypes.string_at(octets, size)

    def send_one(self, descriptor: int, header: int, message: bytes, /) -> int:
        vector = _vector(header)
        vector.base, vector.length = message, len(message)
        return int(self._sendmsg(descriptor, header, 0))

    def last_error(self) -> int:
        return ctypes.get_errno()

    def read(self, address: int, length: int, /) -> bytes:
        return ctypes.string_at(address, length)

    def write(self, address: int, octets: bytes, /) -> None:
        if len(octets) > LONGEST:
            raise ValueError(_TOO_LONG)
        ctypes.memmove(address, octets, len(octets))


def _through_ctypes() -> SystemCalls | None:
    try:
        return _ThroughCtypes()
    except AttributeError:
        return None
