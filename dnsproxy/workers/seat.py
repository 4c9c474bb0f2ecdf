"""One worker as the control process sees it, over all the processes that have its number in turn."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable

from dnsproxy.core.restarts import Pulse, Restarts
from dnsproxy.core.totals import WorkerView
from dnsproxy.net.doors import Door
from dnsproxy.workers.channel import Channel
from dnsproxy.workers.messages import (
    Ask,
    Begin,
    Content,
    NotOpened,
    Opened,
    Reply,
    Request,
    Stop,
    TellTraffic,
    ToControl,
)
from dnsproxy.workers.table_feed import TableFeed


class Seat:
    """Worker ``number``. ``changed`` is called when it starts to answer, ``gone`` when its end has closed.

    ``heard`` is called with each reply. ``reason`` is what it said that keeps it from answering. ``process``
    is the number of the process among all that were ever started, ``served`` what it was told to answer by,
    and on.
    """

    def __init__(
        self,
        number: int,
        changed: Callable[[Seat], None],
        gone: Callable[[Seat], None],
        heard: Callable[[Seat, Content], None],
    ) -> None:
        self.number = number
        self.process = 0
        self.restarts = Restarts()
        self.served: tuple[int, tuple[int, ...]] = (0, ())
        self.is_open = False
        self.is_being_ended = False
        self.reason: str | None = None
        self._changed = changed
        self._gone = gone
        self._heard = heard
        self._channel: Channel | None = None
        self._feed: TableFeed | None = None
        self._pid: int | None = None
        self._pulse = Pulse()
        self._asked: dict[int, asyncio.Future[Content]] = {}
        self._last = 0
        self._beat: asyncio.Future[Content] | None = None
        self._began = 0.0
        self._began_wall = 0.0

    # -- one process after another ---------------------------------------------------------

    def begin(
        self,
        process: int,
        sock: socket.socket,
        begin: Begin,
        sockets: Iterable[socket.socket],
        feed: TableFeed,
    ) -> None:
        """Take ``process`` behind ``sock``; it opens when it has ``begin`` and the table of ``feed``."""
        self.process = process
        self._feed = feed
        self._channel = Channel(sock, ToControl, self._take, lambda: self._gone(self), feed.next)
        self._pulse = Pulse()
        self._beat = None
        self._began, self._began_wall = time.monotonic(), time.time()
        self.reason = None
        self.is_being_ended = False
        self._channel.send(begin, sockets)
        self._channel.offer()

    def end(self) -> float:
        """Forget the process, which has ended; return the seconds that it lived."""
        if self._channel is not None:
            self._channel.close()
            self._channel = self._feed = None
        self.is_open = False
        self._pid = None
        for future in self._asked.values():
            future.cancel()
        self._asked.clear()
        return time.monotonic() - self._began

    @property
    def is_there(self) -> bool:
        """Whether there is a process, answering or not."""
        return self._channel is not None

    @property
    def is_well(self) -> bool:
        """Whether it answers queries, as far as can be told."""
        return self.is_open and self._pulse.is_well

    # -- what it is told and asked ------------------------------------------------------------

    def offer(self, names: Iterable[str]) -> None:
        """Have it answer ``names`` by the newest table as soon as it reads."""
        if self._channel is not None and self._feed is not None:
            self._feed.want(names)
            self._channel.offer()

    def ask(self, request: Request, sockets: Iterable[socket.socket] = ()) -> asyncio.Future[Content] | None:
        """Return what will hold the reply, cancelled if the process ends; None when it cannot be asked.

        ``sockets`` go along, and are closed here.
        """
        if self._channel is None or not self.is_open:
            for sock in sockets:
                sock.close()
            return None
        self._last += 1
        number = self._last
        if not self._channel.send(Ask(number, request), sockets):
            return None
        future: asyncio.Future[Content] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        future.add_done_callback(lambda _: self._asked.pop(number, None))
        return future

    def beat(self) -> bool:
        """Ask for what it counted, once a second; return whether it is stuck."""
        answered = self.is_open and (self._beat is None or self._beat.done())
        if answered:
            self._beat = self.ask(TellTraffic())
        return self._pulse.beat(answered=answered)

    def stop(self, *, gently: bool = False, held: frozenset[Door] = frozenset()) -> None:
        """Ask it to end; see `Stop`."""
        if self._channel is not None:
            self._channel.send(Stop(gently, held))

    def view(self, queries: int) -> WorkerView:
        """Return what the status shows."""
        started_at = self._began_wall if self.is_there else None
        return WorkerView(self.number, self._pid, started_at, queries, self.restarts.count, self.is_well)

    def _take(self, message: object) -> None:
        if isinstance(message, Reply):
            self._heard(self, message.content)
            future = self._asked.get(message.number)
            if future is not None and not future.done():
                future.set_result(message.content)
        elif isinstance(message, Opened):
            self._pid = message.pid
            self.is_open = True
            self._changed(self)
        elif isinstance(message, NotOpened):
            self.reason = message.reason
