"""System calls of the data plane that Python's modules have not, or only with more around them.

A compiled build (setup.py) has them through cffi's generated module, others through ctypes.
What a call costs is mostly the code it walks through: at 20,000 queries per second nothing of
it is in the processor's first cache any more when the next packet comes, and ctypes with libffi
are 2,700 instructions per call against 1,100.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
import sys
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Any

Pointer = Any
"""An address in the form that the calls take."""

Call = Callable[..., int]


class SystemCalls:
    """The calls, each as in its manual page: -1 for a failure, whose number `last_error` tells.

    ``epoll_wait`` is None where calling it would keep Python's other threads waiting.
    """

    def __init__(
        self,
        library: Any,  # noqa: ANN401 - ctypes' or cffi's, alike but for their types
        null: Pointer,
        pointer: Callable[[int], Pointer],
        last_error: Callable[[], int],
        epoll_wait: Call | None = None,
    ) -> None:
        self.recvmmsg: Call = library.recvmmsg
        self.sendmmsg: Call = library.sendmmsg
        self.sendto: Call = library.sendto
        self.epoll_wait = epoll_wait
        self.null = null
        self.pointer = pointer
        self.last_error = last_error


class ReadyEvents:
    """Memory for up to ``count`` events of ``epoll_wait``; ``descriptors`` are those they are about."""

    def __init__(self, calls: SystemCalls, count: int) -> None:
        # struct epoll_event (epoll_wait(2)): 4 octets of events and 8 of the user's, where the descriptor
        # is the first of them; x86-64 alone leaves no gap between the two.
        packed = platform.machine() == "x86_64"
        self.memory = bytearray((12 if packed else 16) * count)
        self.pointer = calls.pointer(ctypes.addressof(ctypes.c_char.from_buffer(self.memory)))
        words = memoryview(self.memory).cast("I")
        self.descriptors = words[1::3] if packed else words[2::4]


def load_system_calls() -> SystemCalls | None:
    """Return the calls, or None where the system does not have them all, or in another form."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    try:
        compiled = importlib.import_module("dnsproxy.net._syscalls")
    except ImportError:
        return _through_ctypes()
    ffi, library = compiled.ffi, compiled.lib
    return SystemCalls(
        library,
        ffi.NULL,
        lambda address: ffi.cast("void *", address),
        lambda: int(ffi.errno),
        library.epoll_wait,
    )


def _through_ctypes() -> SystemCalls | None:
    # PyDLL keeps the interpreter's lock: these calls never block, and giving it up and taking it again
    # costs a fifth of a call for one message.
    library = ctypes.PyDLL(None, use_errno=True)
    try:
        calls = SystemCalls(library, None, ctypes.c_void_p, ctypes.get_errno)
    except AttributeError:
        return None
    library.sendto.argtypes = (c_int, c_char_p, c_size_t, c_int, c_void_p, c_uint)
    return calls
