"""A listening socket for an HTTP server of aiohttp: how many connections, for how long without a request.

aiohttp itself accepts all connections and waits an hour for the headers of a request. Here a client has ten
seconds for them, connections are counted for each client and in total, and the last descriptors of the
process are left to DNS. Beyond a limit the connection that has waited longest without a request is closed,
so that a client which holds many cannot keep others out.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from time import monotonic
from typing import Final, NamedTuple

import structlog
from aiohttp import web

from dnsproxy.certificate import Certificate
from dnsproxy.core.budget import MemoryBudget
from dnsproxy.core.memory import HTTP_BUFFERS, HTTP_RECEIVE, HTTP_SEND
from dnsproxy.http_connection import HttpConnection
from dnsproxy.tls_transport import Buffers, TlsTransport

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Descriptors that a listener leaves to DNS, where the limit of the process has room for them.
SPARE_FILES: Final = 64
_BACKLOG: Final = 128
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 1.0
# Seconds between two warnings of refused connections.
_WARN_SECONDS: Final = 60.0
# One IPv6 client has a /64 to connect from.
_IPV6_CLIENT: Final = 8


class Limits(NamedTuple):
    """Connections at one time; ``spare_files`` of the process's descriptors are never used for them.

    ``buffers`` is what requests and unread responses may take of memory, in bytes; beyond it, connections of
    the client with the most are closed. ``send_buffer`` is what the kernel keeps for each; it doubles that.
    """

    total: int
    per_client: int
    spare_files: int = SPARE_FILES
    buffers: int = HTTP_BUFFERS
    send_buffer: int = HTTP_SEND


class HttpListener:
    """Accepts on ``sock``, which listens, for ``server``, which makes a protocol for each connection.

    ``name`` is what the log calls it. Without ``certificate`` it is plain HTTP.
    """

    def __init__(
        self,
        name: str,
        sock: socket.socket,
        server: Callable[[], asyncio.Protocol],
        limits: Limits,
        certificate: Certificate | None = None,
    ) -> None:
        self._name = name
        self._sock = sock
        self._server = server
        self._limits = limits
        self._certificate = certificate
        self._buffers = Buffers()
        self.budget = MemoryBudget(limits.buffers)
        self._held: Counter[bytes] = Counter()
        self._connections: set[HttpConnection] = set()
        # Without a request at this time, the longest first; all, and those of each client.
        self._waiting: dict[HttpConnection, None] = {}
        self._waiting_of: dict[bytes, dict[HttpConnection, None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._warned_at = -_WARN_SECONDS
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HTTP_RECEIVE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer)
        self._accepting = self._loop.create_task(self._accept())

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are bound."""
        host, port = self._sock.getsockname()[:2]
        return str(host), int(port)

    def use(self, certificate: Certificate | None) -> None:
        """Accept connections with ``certificate`` from now on, or without TLS; those that are open stay."""
        self._certificate = certificate

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    async def _accept(self) -> None:
        while True:
            try:
                sock, peer = await self._loop.sock_accept(self._sock)
            except OSError as exc:  # the client has gone again, or the process is out of descriptors
                if exc.errno in _EXHAUSTED:
                    self._close_longest_waiting(self._waiting)
                    await asyncio.sleep(_PAUSE)
                continue
            self._admit(sock, str(peer[0]))

    def _admit(self, sock: socket.socket, host: str) -> None:
        client = client_of(host)
        if not self._make_room(sock.fileno(), client):
            sock.close()
            self._warn(host)
            return
        connection = HttpConnection(self, client, self._server())
        self._held[client] += 1
        self._connections.add(connection)
        self.note_waiting(connection)
        task = connection.task = self._loop.create_task(self._connect(connection, sock))
        self._tasks.add(task)

        def connected(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled() or task.exception() is not None:
                connection.forget()
                sock.close()

        task.add_done_callback(connected)

    def _make_room(self, descriptor: int, client: bytes) -> bool:
        """Return whether a connection may be added; close the longest waiting one where that helps."""
        # The kernel gives the lowest free number, so all below it are in use.
        if descriptor >= file_limit() - self._limits.spare_files:
            self._close_longest_waiting(self._waiting)
            return False
        if self._held[client] >= self._limits.per_client:
            return self._close_longest_waiting(self._waiting_of.get(client, {}))
        if len(self._connections) >= self._limits.total:
            return self._close_longest_waiting(self._waiting)
        return True

    def _close_longest_waiting(self, waiting: dict[HttpConnection, None]) -> bool:
        connection = next(iter(waiting), None)
        if connection is None:
            return False
        connection.abort()
        return True

    async def _connect(self, connection: HttpConnection, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._certificate is None:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
            return
        transport = TlsTransport(self._certificate.context(), self._buffers)
        try:
            await self._loop.connect_accepted_socket(lambda: transport, sock)
            await transport.handshake  # the connection has its deadline
        except BaseException:
            transport.abort()
            raise
        transport.serve(connection)

    def note_waiting(self, connection: HttpConnection) -> None:
        """Note that it has no request."""
        if connection not in self._connections:
            return
        self._waiting[connection] = None
        self._waiting_of.setdefault(connection.client, {})[connection] = None

    def note_busy(self, connection: HttpConnection) -> None:
        """Note that a request of it is being answered."""
        self._waiting.pop(connection, None)
        mine = self._waiting_of.get(connection.client)
        if mine is not None:
            mine.pop(connection, None)
            if not mine:
                del self._waiting_of[connection.client]

    def charge(self, connection: HttpConnection, size: int) -> None:
        """Note that it holds ``size`` bytes."""
        if connection in self._connections:
            self.budget.charge(connection, connection.client, size)

    def forget(self, connection: HttpConnection) -> None:
        """Free the place of one that has ended."""
        if connection in self._connections:
            self._connections.discard(connection)
            self.budget.charge(connection, connection.client, 0)
            self.note_busy(connection)
            self._held[connection.client] -= 1
            if not self._held[connection.client]:
                del self._held[connection.client]

    def _warn(self, host: str) -> None:
        now = monotonic()
        if now - self._warned_at >= _WARN_SECONDS:
            self._warned_at = now
            log.warning(
                "http.connection_refused",
                listener=self._name,
                client=host,
                connections=len(self._connections),
            )

    async def stop(self) -> None:
        """Accept no more connections; requests are still answered."""
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._sock.close()

    async def close(self) -> None:
        """Close the connections that are left."""
        await self.stop()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def make_runner(app: web.Application, *, handler_cancellation: bool, seconds: float) -> web.AppRunner:
    """Return what makes the protocol of each connection; at the end, handlers have ``seconds``.

    Nothing is unpacked: a small body must not become a large one.
    """
    return web.AppRunner(
        app,
        handle_signals=False,
        access_log=None,
        handler_cancellation=handler_cancellation,
        shutdown_timeout=seconds,
        auto_decompress=False,
    )


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a numeric address.

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def client_of(host: str) -> bytes:
    """Return what is counted as one client: an IPv4 address, or the /64 of an IPv6 address."""
    address = ip_address(host.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return address.packed if address.version == 4 else address.packed[:_IPV6_CLIENT]


def file_limit() -> int:
    """Return how many descriptors this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 if soft == resource.RLIM_INFINITY else soft


def spare_files(wanted: int = SPARE_FILES) -> int:
    """Return how many descriptors a listener leaves alone: ``wanted``, or a quarter where there are few."""
    return min(wanted, file_limit() // 4)
