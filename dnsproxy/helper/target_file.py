"""A target that is a file of this host."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from dnsproxy.files import remove_leftovers, write_atomically
from dnsproxy.settings import publishing


class FileTarget:
    """Replaces the file whole, readable for everybody: what is in it is signed, and no secret."""

    def __init__(self, settings: publishing.FileTarget) -> None:
        self.name = settings.name
        self._path: Path = settings.path
        remove_leftovers(self._path, time.time())

    async def write(self, token: str) -> None:
        """See `outlets.Target`."""
        await asyncio.to_thread(write_atomically, self._path, token.encode("ascii"), 0o644)

    async def read(self) -> str | None:
        """See `outlets.Target`."""
        try:
            return await asyncio.to_thread(self._path.read_text, encoding="ascii", errors="replace")
        except FileNotFoundError:
            return None

    async def close(self) -> None:
        """Nothing is held."""
