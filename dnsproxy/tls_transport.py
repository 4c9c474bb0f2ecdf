"""TLS for a client's connection on `ssl.MemoryBIO`, with buffers that are made when they are needed.

asyncio's own TLS keeps a buffer of 256 KiB for each connection. Here all connections of a listener share two,
as what is read is handed on at once; between messages a connection keeps what OpenSSL needs. They
share the time of the loop as well (`time_slice`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Final, cast

from dnsproxy.time_slice import TimeSlice

# Bytes read at a time, and bytes of a TLS record (RFC 8446 §5.1).
CHUNK: Final = 16_384
# Bytes of plaintext handed on before others may have their turn: 39 requests of the shortest kind.
SLICE: Final = 1024
# Bytes that a client may send before the handshake is done: a ClientHello has 200 to 2,000. More where it
# shows a certificate.
MAX_HANDSHAKE: Final = 16_384
MAX_WITH_CERTIFICATE: Final = 65_536
# Seconds for what is unsent and for the client to close its side.
GOODBYE_SECONDS = 1.0


class Buffers:
    """What the connections of one listener share: buffers and a ``time_slice``."""

    __slots__ = ("network", "plain", "time_slice")

    def __init__(self) -> None:
        self.network = memoryview(bytearray(CHUNK))
        self.plain = memoryview(bytearray(SLICE))
        self.time_slice = TimeSlice()


class TlsTransport(asyncio.BufferedProtocol, asyncio.Transport):
    """The server's side of one connection: asyncio's protocol of the socket, the transport of what is inside.

    ``handshake`` is done when the handshake is; `serve` then gives the connection to a protocol. ``close``
    sends what is unsent and close_notify, and waits `GOODBYE_SECONDS` for the client to close.
    """

    __slots__ = (
        *("_buffers", "_closing", "_incoming", "_loop", "_outgoing", "_paused", "_protocol", "_raw"),
        *("_put_off", "_room", "_timer", "_tls", "handshake"),
    )

    def __init__(self, context: ssl.SSLContext, buffers: Buffers, first: bytes = b"") -> None:
        """``first`` is what has been read of the handshake, and not all of its first record."""
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._buffers = buffers
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._incoming.write(first)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._raw: asyncio.Transport | None = None
        self._protocol: asyncio.Protocol | None = None
        self._timer: asyncio.TimerHandle | None = None
        # Bytes that may still come of the handshake.
        self._room = MAX_WITH_CERTIFICATE if context.verify_mode else MAX_HANDSHAKE
        self._paused = False
        self._put_off = False
        self._closing = False
        self.handshake: asyncio.Future[None] = self._loop.create_future()

    def serve(self, protocol: asyncio.Protocol, first: bytes = b"") -> None:
        """Have ``protocol`` served, after the handshake; ``first`` is what has been read already."""
        self._protocol = protocol
        protocol.connection_made(self)
        if first:
            protocol.data_received(first)
        if self._raw is None:
            # The client has gone in the meantime.
            self._loop.call_soon(self._lose, None)
        else:
            self._read()

    # -- what asyncio calls for the socket -------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._raw = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """See `asyncio.BufferedProtocol`."""
        return self._buffers.network

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        if self._closing:
            return
        self._incoming.write(self._buffers.network[:nbytes])
        if not self.handshake.done():
            self._room -= nbytes
        if self._buffers.time_slice.has_time():
            self._work()
        else:
            self._wait()

    def eof_received(self) -> bool | None:
        """See `asyncio.BufferedProtocol`; the socket is closed then."""
        return None

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._raw = None
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if not self.handshake.done():
            self.handshake.set_exception(exc or ConnectionResetError("closed during the handshake"))
        self._lose(exc)

    def _lose(self, exc: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(exc)

    # -- TLS ---------------------------------------------------------------------------------

    def _work(self) -> None:
        """Take what has come."""
        if self.handshake.done():
            self._read()
        else:
            self._shake_hands()

    def _wait(self) -> None:
        """Go on in a later turn, and take nothing from the socket until then."""
        if self._raw is not None:
            self._put_off = True
            self._raw.pause_reading()
            self._buffers.time_slice.wait(self._go_on)

    def _go_on(self) -> None:
        self._put_off = False
        if self._raw is None or self._closing:
            return
        if not self._paused:
            self._raw.resume_reading()
        self._work()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self._room < 0:
                self._fail(ssl.SSLError("the handshake is too long"))
        except (ssl.SSLError, ssl.CertificateError) as exc:
            self._fail(exc)
        else:
            self._flush()
            self.handshake.set_result(None)

    def _fail(self, exc: Exception) -> None:
        """End the connection after an alert, if there is one to send."""
        if not self.handshake.done():
            self.handshake.set_exception(exc)
        self._flush()
        self._close_socket()

    def _read(self) -> None:
        """Hand on what has come, slice by slice, unless the protocol wants to wait or others have a turn."""
        plain = self._buffers.plain
        while not (self._paused or self._put_off or self._closing or self._protocol is None):
            try:
                # A number, as there is a buffer.
                count: Any = self._tls.read(SLICE, plain)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as exc:
                self._fail(exc)
                return
            if not count:
                self.close()  # close_notify
                return
            self._protocol.data_received(bytes(plain[:count]))
            if not self._closing and not self._buffers.time_slice.has_time():
                self._wait()
        self._flush()

    def _flush(self) -> None:
        """Send what OpenSSL has written."""
        if self._outgoing.pending and self._raw is not None:
            self._raw.write(self._outgoing.read())

    # -- what the protocol calls ---------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See `asyncio.Transport`."""
        if self._closing or not data:
            return
        view = memoryview(data)
        try:
            while view:
                # One record at a time: the memory of a BIO does not become less.
                view = view[self._tls.write(view[:CHUNK]) :]
                self._flush()
        except ssl.SSLError as exc:
            self._fail(exc)

    def get_write_buffer_size(self) -> int:
        """See `asyncio.WriteTransport`."""
        return 0 if self._raw is None else self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""
        if self._raw is not None:
            self._raw.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's signature
        """See `asyncio.BaseTransport`."""
        if name == "ssl_object":
            return self._tls
        return default if self._raw is None else self._raw.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._paused = True
        if self._raw is not None and not self._closing:
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._paused = False
        if self._raw is not None and not self._closing and not self._put_off:
            self._raw.resume_reading()
            self._loop.call_soon(self._read)

    def is_reading(self) -> bool:
        """See `asyncio.ReadTransport`."""
        return not self._paused and not self._closing

    def get_protocol(self) -> asyncio.BaseProtocol | None:  # type: ignore[override]  # none before `serve`
        """See `asyncio.BaseTransport`."""
        return self._protocol

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._closing

    def close(self) -> None:
        """See `asyncio.BaseTransport`."""
        if self._closing:
            return
        with contextlib.suppress(ssl.SSLError):  # it would wait for the client's close_notify
            self._tls.unwrap()
        self._flush()
        self._close_socket()

    def _close_socket(self) -> None:
        """Send what is unsent; the client then sees the end, and closes its side."""
        if self._closing or self._raw is None:
            return
        self._closing = True
        try:
            self._raw.write_eof()
        except OSError:  # the client has closed
            self.abort()
            return
        # What still comes is thrown away: closed at once, a socket with unread bytes would be reset, and what
        # has been sent with it.
        self._raw.resume_reading()
        self._timer = self._loop.call_later(GOODBYE_SECONDS, self.abort)

    def abort(self) -> None:
        """See `asyncio.WriteTransport`."""
        self._closing = True
        if not self.handshake.cancel() and not self.handshake.cancelled():
            self.handshake.exception()  # or asyncio would log that nothing has asked for it
        if self._raw is not None:
            self._raw.abort()
