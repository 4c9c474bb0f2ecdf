"""The TLS listener: DNS over TLS and DNS over HTTPS on one port, told apart by ALPN (RFC 7301).

A client that offers ``h2`` or ``http/1.1`` speaks HTTPS; another one, most of which offer
nothing, DNS over TLS.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from ipaddress import ip_address
from time import monotonic

from dnsproxy.certificate import Certificate
from dnsproxy.core.engine import Engine
from dnsproxy.core.places import Place, Places
from dnsproxy.core.proxy_protocol import Header, header_length, read_header
from dnsproxy.errors import DropReason, WireError
from dnsproxy.net import encrypted
from dnsproxy.net.doh_http1 import Http1Client
from dnsproxy.net.doh_http2 import Http2Client
from dnsproxy.net.dot import DotClient
from dnsproxy.net.encrypted import EncryptedClient
from dnsproxy.net.heap import trim
from dnsproxy.net.proxied import receive_header
from dnsproxy.net.stream import (
    EXHAUSTED_SECONDS,
    IDLE_LOOKS,
    TLS_CLIENTS,
    Greeting,
    bound_address,
    bound_buffers,
    displace,
    expects_header,
    listen,
    may_stay,
    note_exhausted,
)
from dnsproxy.net.upstream import Forwarder
from dnsproxy.net.watch import Watch
from dnsproxy.net.watched_encrypted import watched_client
from dnsproxy.supervise import supervise
from dnsproxy.tls_transport import GOODBYE_SECONDS, Buffers, TlsTransport

HANDSHAKE_SECONDS = 5.0
_LOOK_SECONDS = 0.01
# Bytes of an idle connection, roughly.
_IDLE = 32 * 1024
# How a TLS record with a ClientHello begins (RFC 8446 §5.1), and no PROXY header.
_HELLO = b"\x16"
# Connections taken at the end.
_LAST_ACCEPTS = 512
_SPOKEN: dict[str | None, type[EncryptedClient]] = {"h2": Http2Client, "http/1.1": Http1Client}


class HeaderReader(asyncio.Protocol):
    """Reads a header where TLS is around it: ``header`` is done with it, or raises OSError or WireError."""

    def __init__(self) -> None:
        self.header: asyncio.Future[Header] = asyncio.get_running_loop().create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._data += data
        if self.header.done():
            return
        try:
            if len(self._data) >= header_length(self._data):
                self.header.set_result(read_header(self._data))
        except WireError as exc:
            self.header.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if not self.header.done():
            self.header.set_exception(exc or ConnectionResetError("closed before the header"))

    def rest(self, header: Header) -> bytes:
        """Return what has come after ``header``."""
        return self._data[header.length :]


class TlsListener:
    """One listening socket; ``places`` are shared with those for TCP, ``path`` is that of HTTPS requests.

    ``watch`` is told of each query.
    """

    def __init__(
        self,
        engine: Engine,
        forwarder: Forwarder,
        places: Places,
        certificate: Certificate,
        path: str,
        watch: Watch | None = None,
    ) -> None:
        self.engine = engine
        self.forwarder = forwarder
        self.path = path
        self.buffers = places.buffers
        self._places = places
        self._certificate = certificate
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._buffers = Buffers()
        self._sock: socket.socket | None = None
        self._clients: dict[EncryptedClient, Place] = {}
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def open(self, host: str = "", port: int = 0, *, sock: socket.socket | None = None) -> None:
        """Bind, or take ``sock``, which listens and does not block, and accept.

        Raises:
            StartError: the address cannot be bound.
        """
        self._sock = bound_buffers(listen("tls", host, port, reuse_port=False) if sock is None else sock)
        accept = partial(self._accept, self._sock)
        self._accepting = self._loop.create_task(supervise("TLS listener", accept))

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are really bound."""
        return bound_address(self._sock)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                sock, peer = await self._loop.sock_accept(listening)
            except OSError as exc:  # the client has gone again, or this host is short of something
                # An error that lasts must not hold the loop up.
                is_short = note_exhausted(TLS_CLIENTS, exc, self.engine.stats.local_failures)
                await asyncio.sleep(EXHAUSTED_SECONDS if is_short else 0)
                continue
            try:
                self._admit(sock, str(peer[0]))
            except Exception:
                sock.close()
                raise

    def _admit(self, sock: socket.socket, host: str) -> None:
        source = ip_address(host.partition("%")[0]).packed
        if not self.engine.admits(source):
            sock.close()
            return
        proxied = expects_header(self.engine, source)
        place = self._places.take(source, proxied=proxied)
        if not isinstance(place, Place):
            self.engine.stats.drops[place] += 1
            sock.close()
            return
        displace(place, self.engine)
        greeting = Greeting(place)
        greet = self._greet if proxied else self._shake_hands
        task = greeting.task = self._loop.create_task(greet(sock, source, greeting))
        self._handshakes.add(task)
        task.add_done_callback(partial(self._end_handshake, sock, greeting))

    def _end_handshake(self, sock: socket.socket, greeting: Greeting, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        if greeting.place.holder is greeting:
            # Of a task that is cancelled before its first step nothing else closes the socket.
            sock.close()
            self._places.leave(greeting.place)

    async def _greet(self, sock: socket.socket, peer: bytes, greeting: Greeting) -> None:
        """Have the load balancer at ``peer`` name its client, in front of the handshake or after it."""
        header = None
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                first = await self._loop.sock_recv(sock, 1)
                if first != _HELLO:
                    header = await receive_header(sock, first)
        except (OSError, WireError):  # TimeoutError is an OSError
            self.engine.stats.drops[DropReason.PROXY_HEADER] += 1
            return
        if header is None:
            await self._shake_hands(sock, peer, greeting, first)
        elif (source := greeting.client(header, peer, self.engine, self._places)) is not None:
            origin = (source, header.port) if header.address else None
            await self._shake_hands(sock, peer, greeting, origin=origin)

    async def _shake_hands(
        self,
        sock: socket.socket,
        peer: bytes,
        greeting: Greeting,
        first: bytes = b"",
        origin: tuple[bytes, int] | None = None,
    ) -> None:
        """Do the handshake, ``first`` being what has come of it if a header follows, and serve the client."""
        transport = TlsTransport(self._certificate.context(), self._buffers, first)
        rest = b""
        reason = DropReason.TLS_HANDSHAKE
        has_started = False
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(lambda: transport, sock)
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await transport.handshake
                if first:
                    reason = DropReason.PROXY_HEADER
                    reader = HeaderReader()
                    transport.serve(reader)
                    header = await reader.header
                    source = greeting.client(header, peer, self.engine, self._places)
                    if source is None:
                        return
                    origin = (source, header.port) if header.address else None
                    rest = reader.rest(header)
            has_started = True
            self._start(transport, peer, greeting.place, origin, rest)
        except (OSError, WireError):  # ssl.SSLError and TimeoutError are OSErrors
            self.engine.stats.drops[reason] += 1
        finally:
            if not has_started:
                transport.abort()

    def _start(
        self,
        transport: TlsTransport,
        peer: bytes,
        place: Place,
        origin: tuple[bytes, int] | None,
        rest: bytes,
    ) -> None:
        """Serve a client whose handshake is done: ``peer``, or the address and port in ``origin``."""
        source = peer if origin is None else origin[0]
        spoken = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if self._watch is None:
            client = _SPOKEN.get(spoken, DotClient)(self, source)
        else:
            client = watched_client(spoken, self, source, self._watch)
        place.holder = client
        self._clients[client] = place
        if origin is not None:
            client.come_by(peer, origin[1])
        transport.serve(client, rest)
        if self._sweep is None:
            self._plan_sweep()

    def forget(self, client: EncryptedClient) -> None:
        """See `encrypted.House.forget`."""
        place = self._clients.pop(client, None)
        if place is not None:
            self.buffers.freed += _IDLE
            self._places.leave(place)
            place.holder = None

    def _plan_sweep(self) -> None:
        self._sweep = self._loop.call_later(encrypted.IDLE_SECONDS / IDLE_LOOKS, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        now = monotonic()
        for client in list(self._clients):
            client.close_if_idle(now)
        if trim(self.buffers) or self._clients:
            self._plan_sweep()

    def refit(self, engine: Engine, forwarder: Forwarder, certificate: Certificate | None, path: str) -> None:
        """Have these answer from the next query on, and greet from the next connection on.

        Without a ``certificate`` this listener is left, and new connections are not accepted. Connections of
        clients that ``engine`` does not admit are closed.
        """
        self.engine = engine
        self.forwarder = forwarder
        self.path = path
        if certificate is not None:
            self._certificate = certificate
        for client in list(self._clients):
            if not may_stay(engine, client.source, client.peer):
                client.finish()

    def finish(self) -> None:
        """Take the connections that wait to be accepted, and no more."""
        if self._sock is None:
            return
        if self._accepting is not None:
            self._accepting.cancel()
        for _ in range(_LAST_ACCEPTS):
            try:
                sock, peer = self._sock.accept()
            except OSError:  # nobody waits any more
                break
            sock.setblocking(False)
            self._admit(sock, str(peer[0]))
        # Not before asyncio has let go of it, which it does when the task ends.
        self._loop.call_soon(self._sock.close)
        self._sock = None

    @property
    def has_clients(self) -> bool:
        """Whether a connection is open, or being made."""
        return bool(self._handshakes or self._clients)

    def is_busy(self, since: float) -> bool:
        """Tell whether a client is being greeted, waits for an answer, or has asked since ``since``."""
        return bool(self._handshakes) or any(client.is_busy(since) for client in self._clients)

    async def close(self) -> None:
        """Stop accepting; end the connections, in good order where nothing waits."""
        if self._sweep is not None:
            self._sweep.cancel()
        tasks = [*self._handshakes, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        for client in list(self._clients):
            client.finish()
        deadline = monotonic() + GOODBYE_SECONDS
        while self._clients and monotonic() < deadline:  # noqa: ASYNC110 - once, at the end of the program
            await asyncio.sleep(_LOOK_SECONDS)  # asyncio tells of no end but to the protocol
        for client in list(self._clients):
            client.abort()
