"""Give memory that many connections have freed back to the system.

The C library keeps freed blocks below others that are in use. Looking for them takes 10 to 50 ms of a heap of
100 MiB, so it is done only after much has been freed, and at most once a minute.
"""

from __future__ import annotations

import contextlib
import ctypes
from math import inf
from time import monotonic
from typing import Final

from dnsproxy.core.budget import MemoryBudget

# Bytes that have been freed before it is done, and seconds between two times.
ENOUGH: Final = 4 * 1024 * 1024
SECONDS: Final = 60.0

_trimmed_at = -inf


def trim(buffers: MemoryBudget, now: float | None = None) -> bool:
    """Give back what is free if connections have freed `ENOUGH` of ``buffers``.

    Return whether that is to be done later, as it was done a short time ago.
    """
    global _trimmed_at  # noqa: PLW0603 - there is one heap in a process
    now = monotonic() if now is None else now
    if buffers.freed < ENOUGH:
        return False
    if now < _trimmed_at + SECONDS:
        return True
    _trimmed_at = now
    buffers.freed = 0
    with contextlib.suppress(AttributeError, OSError):  # musl has none, and keeps less
        ctypes.CDLL(None).malloc_trim(0)
    return False
