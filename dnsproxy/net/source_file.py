"""A source that is a file of this host: read at each request, and followed by inotify in between."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from pathlib import Path

import structlog

from dnsproxy.errors import FetchError
from dnsproxy.net import fetch
from dnsproxy.net.fetch import Fetched, Request, text_of
from dnsproxy.net.filewatch import FileWatch
from dnsproxy.supervise import in_thread
from dnsproxy.transport.reasons import os_reason

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class FileReader:
    """Reads the file at ``path``, whole; the mark of what it holds is its hash.

    A file that cannot be watched is still read at each request, which is as often as the proxy pulls.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._watch = FileWatch(path)
        self._unwatched: str | None = None

    async def fetch(self, request: Request) -> Fetched:
        """See `fetch.Reader`."""
        return await asyncio.to_thread(self._arm_and_read, request.etag)

    async def changed(self) -> None:
        """See `fetch.Follower`."""
        await self._watch.changed()

    def _arm_and_read(self, etag: str | None) -> Fetched:
        # In this order: what is written after the file was read must be told of.
        reason = None
        try:
            self._watch.arm()
        except OSError as exc:
            self._watch.close()
            reason = os_reason(exc)
        if reason != self._unwatched and reason is not None:
            log.warning("learned.file_not_followed", file=str(self._path), reason=reason)
        self._unwatched = reason
        content = read_file(self._path)
        mark = hashlib.sha256(content).hexdigest()
        return Fetched(None if mark == etag else text_of(content), mark)

    async def close(self) -> None:
        """See `fetch.Reader`."""
        await in_thread(self._watch.close)  # the kernel takes 15 ms


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
