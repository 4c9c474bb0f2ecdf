"""A source that is a file of this host."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from dnsproxy.errors import FetchError
from dnsproxy.net import fetch
from dnsproxy.net.fetch import Fetched, Request, text_of


class FileReader:
    """Reads the file at ``path``, whole, at each request."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def fetch(self, request: Request) -> Fetched:  # noqa: ARG002 - a file has nothing to compare
        """See `fetch.Reader`."""
        return Fetched(text_of(await asyncio.to_thread(read_file, self._path)))

    async def close(self) -> None:
        """Nothing is held."""


def read_file(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        FetchError: it is something else, or too large.
        OSError: it cannot be read.
    """
    # Without O_NONBLOCK the opening of a pipe waits for its writer, for ever perhaps.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FetchError("not a regular file")
        content = file.read(fetch.MAX_OCTETS + 1)
    if len(content) > fetch.MAX_OCTETS:
        raise FetchError(f"larger than {fetch.MAX_OCTETS} octets")
    return content
