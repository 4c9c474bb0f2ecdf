"""asyncio's event loop, with hot sockets served inside its selector."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

from dnsproxy.host_calls import can_use_epoll, open_poll_loop
from dnsproxy.lifecycle import ServiceLoop
from dnsproxy.net.hot import HotSockets, Serve

Arguments = TypeVarTuple("Arguments")


class HotSelector(selectors.EpollSelector):
    """asyncio's selector; it serves hot sockets until asyncio has something to do."""

    def __init__(self, report: Callable[[Exception], None]) -> None:
        super().__init__()
        self.hot = HotSockets(self.fileno(), report)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors.BaseSelector.select`."""
        return super().select(0) if self.hot.serve(timeout) else []

    def close(self) -> None:
        """Close both epoll sets."""
        self.hot.close()
        super().close()


class HotLoop(ServiceLoop):
    """asyncio's loop on a `HotSelector`; whatever gives asyncio work ends the serving."""

    def __init__(self) -> None:
        selector = HotSelector(self._report)
        self.hot = selector.hot
        super().__init__(selector)

    def _report(self, exc: Exception) -> None:
        self.call_exception_handler({"message": "a hot socket's callback failed", "exception": exc})

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's."""
        self.hot.release()
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's; `call_later` comes here too."""
        self.hot.release()
        return super().call_at(when, callback, *args, context=context)

    def stop(self) -> None:
        """As asyncio's."""
        self.hot.release()
        super().stop()


def open_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop for the path of queries; without epoll asyncio's own, which costs more."""
    return HotLoop() if can_use_epoll() else open_poll_loop()


class Readiness:
    """Calls for sockets that are ready, on the running loop, whichever kind it is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._hot = self._loop.hot if isinstance(self._loop, HotLoop) else None
        self._calls: dict[int, Serve] = {}

    def add(self, fd: int, serve: Serve) -> None:
        """Call ``serve`` whenever ``fd`` is readable or has an error."""
        if self._hot is not None:
            self._hot.add(fd, serve)
        else:
            self._calls[fd] = serve
            self._loop.add_reader(fd, serve)

    def watch(self, fd: int, *, read: bool, write: bool) -> None:
        """Call it when ``fd`` is readable, or writable, as said."""
        if self._hot is not None:
            self._hot.watch(fd, read=read, write=write)
            return
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        if read:
            self._loop.add_reader(fd, self._calls[fd])
        if write:
            self._loop.add_writer(fd, self._calls[fd])

    def remove(self, fd: int) -> None:
        """Stop serving ``fd``, which must still be open."""
        if self._hot is not None:
            self._hot.remove(fd)
        else:
            del self._calls[fd]
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)

    def after(self, work: Serve) -> None:
        """Call ``work`` once, after what is being served now."""
        if self._hot is not None:
            self._hot.after(work)
        else:
            self._loop.call_soon(work)
