"""Documents one after another: the event loop has queries to answer between two of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """``async with turns.next():`` is entered by one at a time, each in another turn of the event loop.

    A document of 300 names takes 10 ms. Sixty that are asked for at one time would be made in one go.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def next(self) -> AsyncIterator[None]:
        """Wait for those that came before."""
        async with self._lock:
            # A task that never waits within the lock does not make other tasks wait for it.
            await asyncio.sleep(0)
            yield
