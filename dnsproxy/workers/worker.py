"""A worker process: answers queries, and between them does what the control process says."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from time import monotonic

import structlog

from dnsproxy import logs
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.explain import explain
from dnsproxy.core.returns import Returns
from dnsproxy.errors import MessageError, StartError
from dnsproxy.net.doors import Door
from dnsproxy.net.loop import open_loop
from dnsproxy.plane import tune_interpreter
from dnsproxy.server import Server
from dnsproxy.settings import Settings
from dnsproxy.settings.plain import unpack
from dnsproxy.supervise import in_thread
from dnsproxy.watching import open_watch
from dnsproxy.workers.channel import Channel
from dnsproxy.workers.messages import (
    Ask,
    Begin,
    Content,
    Explain,
    Flush,
    NotOpened,
    Opened,
    Refit,
    Reply,
    Request,
    Stop,
    TakeNames,
    ToWorker,
)
from dnsproxy.workers.table_feed import with_entries

# Seconds. A connection on which nobody has asked for the first is quiet; after the second all are ended.
QUIET_SECONDS = 1.0
GENTLE_SECONDS = 5.0
# The kernel drops sockets for which the receiver has no descriptor left (MSG_CTRUNC, recvmsg(2)).
_SHORT = f"sockets: {os.strerror(errno.EMFILE)}"


def run_worker(number: int, sock: socket.socket, returns: Returns) -> int:
    """Be worker ``number`` until told to stop or nobody is there to tell; return the exit code.

    ``sock`` stays open for the control process, which takes its end for that of this process.
    """
    structlog.contextvars.bind_contextvars(worker=number)
    with asyncio.Runner(loop_factory=open_loop) as runner:
        return runner.run(Worker(number, returns).run(sock.dup()))


class Worker:
    """The server of one process. It serves its sockets only once it has a table to answer from."""

    def __init__(self, number: int, returns: Returns) -> None:
        self._number = number
        self._returns = returns
        self._begin: Begin | None = None
        self._sockets: dict[Door, socket.socket] = {}
        self._table = ServedTable()
        self._has_table = False
        self._server: Server | None = None
        self._told = asyncio.Event()
        self._stop: Stop | None = None
        self._refits: list[tuple[int, Refit, dict[Door, socket.socket]]] = []

    async def run(self, sock: socket.socket) -> int:
        """Do what is said on ``sock`` until it ends or says stop; return the exit code."""
        channel = Channel(
            sock, ToWorker, lambda message: self._take(message, channel), lambda: self._end(Stop())
        )
        code = 0
        try:
            while self._stop is None and (self._begin is None or not self._has_table):
                await self._wait()
            if self._stop is None:
                code = await self._serve(channel)
        finally:
            if self._server is not None:
                await self._server.close()
            for unserved in self._sockets.values():
                unserved.close()
            channel.close()
        return code

    async def _wait(self) -> None:
        self._told.clear()
        await self._told.wait()

    async def _serve(self, channel: Channel) -> int:
        assert self._begin is not None  # noqa: S101 - `run` has seen to it
        begin, self._begin = self._begin, None  # megabytes, with 10,000 names
        if len(self._sockets) < len(begin.doors):
            channel.send(NotOpened(_SHORT))
            return 1
        try:
            self._server = server = self._make_server(unpack(begin.settings))
            server.swap_table(self._table)
            sockets, self._sockets = self._sockets, {}
            await server.open(sockets)
        except (StartError, MessageError) as exc:
            channel.send(NotOpened(str(exc)))
            return 1
        channel.send(Opened(os.getpid()))
        tune_interpreter()
        with logs.reporting():
            while self._stop is None:
                await self._wait()
                while self._refits:
                    number, refit, sockets = self._refits.pop(0)
                    channel.send(Reply(number, await _refit(server, refit, sockets)))
            if self._stop.gently:
                await server.finish(server.doors, QUIET_SECONDS, GENTLE_SECONDS)
            else:
                await server.finish(self._stop.held)
        return 0

    def _make_server(self, settings: Settings) -> Server:
        return Server(settings, open_watch(settings, self._number), self._returns)

    def _end(self, stop: Stop) -> None:
        self._stop = stop
        self._told.set()

    def _take(self, message: object, channel: Channel) -> None:
        if isinstance(message, TakeNames):
            self._table = with_entries(self._table, message)
            self._has_table = self._has_table or message.is_complete
            if self._server is not None:
                self._server.update(self._table, [entry.name for entry in message.entries])
        elif isinstance(message, Begin):
            self._begin = message
            self._sockets = _by_door(message.doors, channel)
        elif isinstance(message, Stop):
            self._end(message)
        elif isinstance(message, Ask):
            if isinstance(message.request, Refit):
                sockets = _by_door(message.request.doors, channel)
                self._refits.append((message.number, message.request, sockets))
            elif self._server is not None:
                channel.send(Reply(message.number, _do(message.request, self._server)))
        self._told.set()


def _by_door(doors: Sequence[Door], channel: Channel) -> dict[Door, socket.socket]:
    """Return the sockets that came for ``doors``; the last are missing where no descriptor was left."""
    return dict(zip(doors, channel.take_sockets(len(doors)), strict=False))


async def _refit(server: Server, refit: Refit, sockets: dict[Door, socket.socket]) -> str:
    failure: str | None = None
    try:
        settings = await in_thread(unpack, refit.settings)
        outfit = await in_thread(server.outfit, settings)
    except (StartError, MessageError) as exc:
        failure = str(exc)
    # A door that is served already needs no socket.
    if failure is None and not set(refit.doors) <= {*sockets, *server.doors}:
        failure = _SHORT
    if failure is not None:
        for sock in sockets.values():
            sock.close()
        return failure
    await server.refit(outfit, {door: sockets.get(door) for door in refit.doors})
    logs.configure(settings.log.level, settings.log.format)
    return ""


def _do(request: Request, server: Server) -> Content:
    if isinstance(request, Flush):
        return server.engine.flush(request.key)
    if isinstance(request, Explain):
        return explain(server.engine, request.question, monotonic())
    return server.traffic()
