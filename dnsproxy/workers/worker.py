"""A worker process: answers queries, and between them does what the control process says."""

from __future__ import annotations

import asyncio
import os
import socket
from time import monotonic

import structlog

from dnsproxy import logs
from dnsproxy.core.book import Book
from dnsproxy.core.explain import explain
from dnsproxy.core.returns import Returns
from dnsproxy.errors import StartError
from dnsproxy.net.loop import HotLoop
from dnsproxy.server import Server, tune_collector
from dnsproxy.settings import Settings
from dnsproxy.watching import open_watch
from dnsproxy.workers.channel import Channel
from dnsproxy.workers.messages import (
    Ask,
    Content,
    Explain,
    Flush,
    NotOpened,
    Opened,
    Reply,
    Request,
    TakeBook,
)


def run_worker(number: int, sock: socket.socket, settings: Settings, returns: Returns) -> int:
    """Be worker ``number`` until told to stop or nobody is there to tell; return the exit code.

    ``sock`` stays open for the control process, which takes its end for that of this process.
    """
    structlog.contextvars.bind_contextvars(worker=number)
    with asyncio.Runner(loop_factory=HotLoop) as runner:
        return runner.run(Worker(number, settings, returns).run(sock.dup()))


class Worker:
    """The server of one process. It binds its sockets only once it has a book to answer from."""

    def __init__(self, number: int, settings: Settings, returns: Returns) -> None:
        self._number = number
        self._settings = settings
        self._returns = returns
        self._book: Book | None = None
        self._server: Server | None = None
        self._told = asyncio.Event()
        self._stopped = False

    async def run(self, sock: socket.socket) -> int:
        """Do what is said on ``sock`` until it ends or says stop; return the exit code."""
        channel = Channel(sock, lambda message: self._take(message, channel), self._stop)
        code = 0
        try:
            await self._told.wait()
            if self._book is not None and not self._stopped:
                code = await self._serve(self._book, channel)
        finally:
            if self._server is not None:
                await self._server.close()
            channel.close()
        return code

    async def _serve(self, book: Book, channel: Channel) -> int:
        try:
            watch = open_watch(self._settings, self._number)
            self._server = Server(self._settings, watch, self._returns)
            self._server.swap_book(book)
            await self._server.open(reuse_port=True)
        except StartError as exc:
            channel.send(NotOpened(str(exc)))
            return 1
        channel.send(Opened(os.getpid()))
        tune_collector()
        with logs.reporting():
            while not self._stopped:
                self._told.clear()
                await self._told.wait()
        return 0

    def _stop(self) -> None:
        self._stopped = True
        self._told.set()

    def _take(self, message: object, channel: Channel) -> None:
        if isinstance(message, TakeBook):
            self._book = message.book
            if self._server is not None:
                self._server.swap_book(message.book)
            self._told.set()
        elif isinstance(message, Ask):
            if self._server is not None:
                channel.send(Reply(message.number, _do(message.request, self._server)))
        else:
            self._stop()


def _do(request: Request, server: Server) -> Content:
    if isinstance(request, Flush):
        return server.engine.flush(request.key)
    if isinstance(request, Explain):
        return explain(server.engine, request.question, monotonic())
    return server.traffic()
