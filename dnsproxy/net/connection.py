"""One TCP client: takes messages from the stream, and sends responses as they come."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from time import monotonic
from typing import Final

from dnsproxy.core.budget import MemoryBudget
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.options import KEEPALIVE_ASKED, for_stream
from dnsproxy.core.wire import Query
from dnsproxy.errors import DropReason
from dnsproxy.net.loop import Readiness
from dnsproxy.net.upstream import Forwarder

# Seconds without a whole message after which a connection is closed (RFC 7766 §6.2.3
# leaves the number to us; unbound's and BIND's are 30 s, but with a cap on clients less is fairer).
IDLE_SECONDS = 10.0
# Octets of responses that a client has not taken yet. From the first number on nothing more is taken
# from it, since many a client reads only when it has asked all it wanted; what it still waits for
# may bring it to the second, where it is cut.
ENOUGH_UNREAD: Final = 64 * 1024
MAX_UNREAD = 256 * 1024
# Queries of one connection that may wait for upstreams at a time.
MAX_WAITING = 128
# Bytes read per wake-up before other sockets get their turn: at most 146 queries.
_CHUNK: Final = 2048
# So many times at the end.
_LAST_CHUNKS: Final = 8
_HEADER: Final = 12
_LENGTH: Final = struct.Struct(">H").pack
# struct linger: on, for 0 seconds.
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


class Connection:
    """A connected socket with its unfinished input, its unsent output and the queries that wait.

    Responses go out in any order (RFC 7766 §7). A client that has said all it wanted (half-closed)
    or what is not DNS still gets the answers it is owed. ``forget`` is called at the end. What it holds is
    charged to ``buffers``.
    """

    def __init__(
        self,
        sock: socket.socket,
        source: bytes,
        engine: Engine,
        forwarder: Forwarder,
        ready: Readiness,
        buffers: MemoryBudget,
        forget: Callable[[Connection], None],
    ) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self.source = self.peer = source
        self._engine = engine
        self._forwarder = forwarder
        self._ready = ready
        self._buffers = buffers
        self._forget = forget
        self._input = b""
        self._output: list[bytes] = []
        self._unsent = b""
        self._unread = 0
        self._waiting = 0
        self.active = monotonic()
        self._ended = False
        self._closed = False
        self._flush_planned = False
        self._reads = True
        self._writes = False
        self._charged = 0
        sock.setblocking(False)
        # A response is one segment; waiting to fill it would only delay it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ready.add(self._fd, self._serve)

    def come_by(self, peer: bytes, port: int) -> None:  # noqa: ARG002 - for those that are watched
        """Note that the connection is ``peer``'s, made for the client's ``port`` there."""
        self.peer = peer

    def _serve(self) -> None:
        """Do what the socket is ready for."""
        try:
            if self._unsent:
                self._go_on()
            elif not self._reads:
                # Watched for neither reading nor writing, so this is a reset.
                self.abort()
            if self._reads and not self._closed:
                self._receive()
        except Exception:
            # A mistake of ours: the same input would lead to it again, and answer twice what came before.
            self.abort()
            raise

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if not data:
            self._ended = True
            self._rest()
            return
        self._input = self._input + data if self._input else data
        self._take_messages()

    def _take_messages(self) -> None:
        """Take what is whole from the input; the rest stays while too much is awaited or unread."""
        now = monotonic()
        data = self._input
        position = answered = 0
        while len(data) - position >= 2 and self._takes_more():
            length = data[position] << 8 | data[position + 1]
            if length < _HEADER:
                # Not DNS: there is no telling where a next message would start.
                self._ended = True
                position = len(data)
                break
            start = position + 2
            if len(data) - start < length:
                break
            position = start + length
            if self._take(data[start:position], now):
                answered += 1
                if self._unread >= ENOUGH_UNREAD:
                    self._flush()
        if position:
            self.active = now
            self._input = data[position:]
        self._forwarder.flush()
        if self._output:
            # Not for what is left from before alone: were it taken now, nothing would wake us for the input.
            self._flush()
        if answered:
            self._engine.times.record(monotonic() - now, answered)
        self._rest()

    def _take(self, message: bytes, now: float) -> bool:
        """Have a message answered, now or later; tell whether it is."""
        step = self._engine.receive(message, self.source, now, tcp=True)
        if isinstance(step, bytes):
            self._put(message, step)
            return True
        if isinstance(step, Forward):
            self._waiting += 1
            self._forwarder.submit(step, self._respond, None, now)
        return False

    def _takes_more(self) -> bool:
        return self._waiting < MAX_WAITING and self._unread < ENOUGH_UNREAD

    def _put(self, query: bytes, response: bytes) -> None:
        # `in` first takes the octets for a number, and makes an exception of it: 1,500 instructions.
        if query.find(KEEPALIVE_ASKED) >= 0:
            response = for_stream(query, response, IDLE_SECONDS)
        self._output.append(_LENGTH(len(response)) + response)
        self._unread += len(response)

    def _respond(self, _token: object, response: bytes, query: Query) -> None:
        self._waiting -= 1
        if self._closed:
            return
        self._put(query.data, response)
        if not self._flush_planned:
            self._flush_planned = True
            self._ready.after(self._flush_late)

    def _flush_late(self) -> None:
        self._flush_planned = False
        try:
            self._go_on()
        except Exception:
            self.abort()
            raise

    def _go_on(self) -> None:
        """Send what there is; then take up what was left in the input."""
        self._flush()
        if self._input and not self._closed:
            self._take_messages()
        else:
            self._rest()

    def _flush(self) -> None:
        """Send what there is; what the client does not take now stays for later, within bounds."""
        if self._closed or not (self._output or self._unsent):
            return
        data = b"".join([self._unsent, *self._output]) if self._unsent else b"".join(self._output)
        self._output = []
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        self._unsent = data[sent:]
        self._unread = len(self._unsent)
        if self._unread > MAX_UNREAD:
            self.abort()

    def _rest(self) -> None:
        """Say what the socket is to be watched for, or close it when nothing more can come of it."""
        if self._closed:
            self._input = b""  # it was closed while messages were taken from it
            return
        if self._ended and not self._waiting and not self._unsent and not self._output:
            self._close()
            return
        reads = not self._ended and self._takes_more()
        writes = bool(self._unsent)
        if reads != self._reads or writes != self._writes:
            self._reads, self._writes = reads, writes
            self._ready.watch(self._fd, read=reads, write=writes)
        held = len(self._input) + self._unread
        if held != self._charged:
            self._charged = held
            self._buffers.charge(self, self.source, held)

    def evict(self) -> None:
        """See `budget.Holder`."""
        self._charged = 0
        self._engine.stats.drops[DropReason.MEMORY] += 1
        self.abort()

    def refit(self, engine: Engine, forwarder: Forwarder) -> None:
        """Have these answer from the next query on."""
        self._engine = engine
        self._forwarder = forwarder

    def is_busy(self, since: float) -> bool:
        """Tell whether the client waits for an answer, has not read one, or has asked since ``since``."""
        return bool(self._waiting or self._unsent or self._output) or self.active >= since

    def finish(self) -> None:
        """Answer what has come until now and can be answered at once, then close."""
        for _ in range(_LAST_CHUNKS):
            if self._reads and not self._closed:
                self._receive()
        self._flush()
        if self._waiting or self._unsent:
            self.abort()
        self._close()

    def close_if_idle(self, now: float) -> None:
        """Close it when no whole message has come for `IDLE_SECONDS` and none is being answered."""
        if not self._waiting and now - self.active >= IDLE_SECONDS:
            self._close()

    def abort(self) -> None:
        """Cut the connection at once: what is unsent is lost, and the client sees a reset."""
        if not self._closed:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # Who still refers to it, a query that waits, must not keep what it holds.
        self._input = self._unsent = b""
        self._output = []
        if self._charged:
            self._charged = 0
            self._buffers.charge(self, self.source, 0)
        self._ready.remove(self._fd)
        self._sock.close()
        self._forget(self)
