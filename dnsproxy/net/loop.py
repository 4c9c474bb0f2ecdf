"""An event loop that serves hot sockets before asyncio hears of them.

At 20,000 queries per second most wake-ups are for one packet. asyncio's own way from
`select` to a reader's callback (a list of events, a look-up, a handle, a context) costs
about as much as answering that packet. Hot sockets are therefore read inside
`HotSelector.select`, which returns to asyncio only when asyncio has something to do.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import TypeVarTuple

Serve = Callable[[], None]
Arguments = TypeVarTuple("Arguments")

# Sockets served per wake-up; the rest is reported by the next one.
_MAX_EVENTS = 64


class HotSelector(selectors.EpollSelector):
    """A selector whose hot sockets are served inside `select`.

    They stand in an epoll set of their own, which also holds the set of all the others:
    asyncio's descriptors are looked at only when one of them is ready.
    """

    def __init__(self) -> None:
        super().__init__()
        self._serve: dict[int, Serve] = {}
        self._after: list[Serve] = []
        self._released = False
        self._outer = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._outer.register(self.fileno(), select.EPOLLIN)
        self.report: Callable[[Exception], None] | None = None

    def add_hot(self, fd: int, serve: Serve) -> None:
        """Call ``serve`` whenever ``fd`` is readable or has an error."""
        self._serve[fd] = serve
        self._outer.register(fd, select.EPOLLIN)

    def remove_hot(self, fd: int) -> None:
        """Stop serving ``fd``, which must still be open."""
        del self._serve[fd]
        self._outer.unregister(fd)

    def after(self, work: Serve) -> None:
        """Call ``work`` once, when every socket that is ready now has been served."""
        self._after.append(work)

    def release(self) -> None:
        """Have `select` return after the running round: asyncio has got work to do."""
        self._released = True

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Serve hot sockets until another one is ready, ``timeout`` seconds have passed, or `release`."""
        wait = -1.0 if timeout is None else max(timeout, 0.0)
        deadline = monotonic() + wait if wait > 0 else None
        poll, serve_by_fd, others = self._outer.poll, self._serve, self.fileno()
        if self._after:
            wait = 0.0
        self._released = False
        while True:
            is_ready = False
            for fd, _ in poll(wait, _MAX_EVENTS):
                serve = serve_by_fd.get(fd)
                if serve is not None:
                    self._run(serve)
                elif fd == others:
                    is_ready = True
            while self._after:
                self._run(self._after.pop())
            if is_ready:
                return super().select(0)
            if self._released or wait == 0:
                return []
            if deadline is not None and (wait := deadline - monotonic()) <= 0:
                return []

    def _run(self, serve: Serve) -> None:
        try:
            serve()
        except Exception as exc:
            if self.report is None:
                raise
            self.report(exc)

    def close(self) -> None:
        """Close both epoll sets."""
        self._outer.close()
        super().close()


class HotLoop(asyncio.SelectorEventLoop):
    """asyncio's loop with a `HotSelector`; whatever gives asyncio work releases it."""

    def __init__(self) -> None:
        self.hot = HotSelector()
        super().__init__(self.hot)
        self.hot.report = self._report

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


class Readers:
    """Readers of hot sockets on the running loop, whichever kind it is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._hot = self._loop.hot if isinstance(self._loop, HotLoop) else None

    def add(self, fd: int, serve: Serve) -> None:
        """Call ``serve`` whenever ``fd`` is readable."""
        if self._hot is None:
            self._loop.add_reader(fd, serve)
        else:
            self._hot.add_hot(fd, serve)

    def remove(self, fd: int) -> None:
        """Stop serving ``fd``, which must still be open."""
        if self._hot is None:
            self._loop.remove_reader(fd)
        else:
            self._hot.remove_hot(fd)

    def after(self, work: Serve) -> None:
        """Call ``work`` once, after what is being served now."""
        if self._hot is None:
            self._loop.call_soon(work)
        else:
            self._hot.after(work)
