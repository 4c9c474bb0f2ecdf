"""dnstap: queries and responses as protobuf messages in Frame Streams, to a collector's socket or a file.

Formats: https://dnstap.info and https://farsightsec.github.io/fstrm. The messages are made by
dnstap-pb, the control frames by fstrm, which the extra ``dnstap`` installs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import Final

import fstrm
from dnstap_pb import INET, INET6, Dnstap, Message, SocketProtocol

from dnsproxy.core.exchange import Exchange
from dnsproxy.core.querylog import OMIT, PREFIX, truncated
from dnsproxy.core.seen import Seen
from dnsproxy.errors import StartError
from dnsproxy.net.outlets import MODE, Condition, is_at
from dnsproxy.output import wait_writable, write_all

CONTENT_TYPE: Final = b"protobuf:dnstap.Dnstap"
# Seconds for a step of the handshake, for a batch that a collector is slow to take, and between attempts.
HANDSHAKE_SECONDS = 2.0
WRITE_SECONDS = 5.0
RETRY_SECONDS = 1.0
# Octets of a control frame (fstrm's own limit).
MAX_CONTROL = 512
_LENGTH = struct.Struct(">I")
_PROTOCOLS: Final[dict[str, int]] = {
    protocol: SocketProtocol.Value(name)
    for protocol, name in (("udp", "UDP"), ("tcp", "TCP"), ("tls", "DOT"), ("https", "DOH"))
}


class DnstapMessages:
    """Makes CLIENT_QUERY, CLIENT_RESPONSE and FORWARDER_RESPONSE; ``clients`` is full, prefix or omit."""

    def __init__(self, identity: str, version: str, clients: str) -> None:
        self._identity = identity.encode()
        self._version = version.encode()
        self._clients = clients

    def of(self, seen: Seen) -> Sequence[bytes]:
        """Return the frames of a query: what came, what an upstream told and what was sent, if anything."""
        query = self._of_client(seen, Message.CLIENT_QUERY)
        query.message.query_message = seen.query
        frames = [_framed(query)]
        if seen.told is not None:
            frames.append(_framed(self._of_upstream(seen, seen.told)))
        if seen.response:
            response = self._of_client(seen, Message.CLIENT_RESPONSE)
            message = response.message
            message.response_time_sec, message.response_time_nsec = _split(seen.wall + seen.duration)
            message.response_message = seen.response
            frames.append(_framed(response))
        return frames

    def _of_client(self, seen: Seen, kind: int) -> Dnstap:
        made = self._message(kind, INET if len(seen.client) == 4 else INET6, _PROTOCOLS[seen.protocol])
        message = made.message
        if self._clients != OMIT:
            prefix = self._clients == PREFIX
            message.query_address = truncated(seen.client) if prefix else seen.client
            message.query_port = 0 if prefix else seen.client_port
        if seen.server:
            message.response_address = seen.server
        message.response_port = seen.server_port
        message.query_time_sec, message.query_time_nsec = _split(seen.wall)
        return made

    def _of_upstream(self, seen: Seen, told: Exchange) -> Dnstap:
        host, port = told.upstream.address
        made = self._message(Message.FORWARDER_RESPONSE, INET6 if ":" in host else INET, _transport(told))
        message = made.message
        with contextlib.suppress(ValueError):  # an upstream whose address somebody else knows
            message.response_address = ip_address(host).packed
        message.response_port = port
        message.query_time_sec, message.query_time_nsec = _split(seen.wall + told.sent_at - seen.arrived)
        message.response_time_sec, message.response_time_nsec = _split(seen.wall + seen.duration)
        message.response_message = told.reply
        return made

    def _message(self, kind: int, family: int, protocol: int) -> Dnstap:
        made = Dnstap(type=Dnstap.MESSAGE, identity=self._identity, version=self._version)
        made.message.type = kind
        made.message.socket_family = family
        made.message.socket_protocol = protocol
        return made


def _transport(told: Exchange) -> int:
    secure = told.upstream.secure
    if secure is not None:
        return _PROTOCOLS["https" if secure.path else "tls"]
    return _PROTOCOLS["tcp" if told.over_tcp else "udp"]


def _split(wall: float) -> tuple[int, int]:
    """Return whole seconds, and nanoseconds as far as a float tells them."""
    microseconds = round(wall * 1_000_000)
    return microseconds // 1_000_000, microseconds % 1_000_000 * 1000


def _framed(made: Dnstap) -> bytes:
    data: bytes = made.SerializeToString()
    return _LENGTH.pack(len(data)) + data


class FrameFile:
    """A file with one stream. When it is renamed or removed, its stream is ended and a new file begun."""

    def __init__(self, path: Path) -> None:
        """Open it, and forget what was in it.

        Raises:
            StartError: it cannot be written.
        """
        self._path = path
        self._condition = Condition("dnstap", str(path))
        try:
            self._fd = self._begin()
        except OSError as exc:
            raise StartError(f"log.dnstap.file: cannot write {path}: {exc.strerror}") from exc

    def _begin(self) -> int:
        # Without O_NONBLOCK a named pipe that nobody reads would hold the start up (fifo(7)).
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(self._path, flags, MODE)
        try:
            write_all(fd, _control(fstrm.FSTRM_CONTROL_START))
        except OSError:
            os.close(fd)
            raise
        return fd

    def open(self) -> None:
        """See `Sink.open`: it is."""

    def reopen(self) -> None:
        """Begin the stream that is at the path now; the old one until that can be opened.

        Raises:
            OSError: it cannot.
        """
        fd = self._begin()
        self.close()
        self._fd = fd

    def write(self, batch: list[bytes]) -> int:
        """See `Sink.write`."""
        try:
            if not is_at(self._fd, self._path):
                self.reopen()
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            try:
                write_all(self._fd, b"".join(batch))
            except OSError:
                # Half a frame would end the stream for every reader.
                os.ftruncate(self._fd, end)
                os.lseek(self._fd, end, os.SEEK_SET)
                raise
        except OSError as exc:
            return self._condition.record(exc, batch)
        return self._condition.record(None, batch)

    def close(self) -> None:
        """See `Sink.close`."""
        with contextlib.suppress(OSError):
            write_all(self._fd, _control(fstrm.FSTRM_CONTROL_STOP))
        os.close(self._fd)

    def is_ready(self) -> bool:
        """See `Sink.is_ready`."""
        return wait_writable(self._fd, 0)


class FrameSocket:
    """A stream to a collector that listens on the Unix socket ``path``, connected anew when it is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._condition = Condition("dnstap", str(path))
        self._sock: socket.socket | None = None
        self._retry_at = 0.0

    def open(self) -> None:
        """See `Sink.open`. A collector that is not there yet is no fault of the start."""
        self._connect()

    def write(self, batch: list[bytes]) -> int:
        """See `Sink.write`."""
        if self._sock is None and monotonic() >= self._retry_at:
            self._connect()
        if self._sock is None:
            return len(batch)
        try:
            self._sock.settimeout(WRITE_SECONDS)
            self._sock.sendall(b"".join(batch))
        except OSError as exc:
            self._lose(exc)
            return len(batch)
        return 0

    def _connect(self) -> None:
        try:
            sock = self._sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(HANDSHAKE_SECONDS)
            sock.connect(str(self._path))
            sock.sendall(_control(fstrm.FSTRM_CONTROL_READY))
            _expect(sock, fstrm.FSTRM_CONTROL_ACCEPT)
            sock.sendall(_control(fstrm.FSTRM_CONTROL_START))
        except OSError as exc:
            self._lose(exc)
        else:
            self._condition.record_success()

    def _lose(self, failure: OSError) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = None
        self._retry_at = monotonic() + RETRY_SECONDS
        self._condition.record_failure(failure.strerror or str(failure))

    def close(self) -> None:
        """See `Sink.close`: say that this is all, and let the collector say that it has it."""
        if self._sock is None:
            return
        with contextlib.suppress(OSError):
            self._sock.settimeout(HANDSHAKE_SECONDS)
            self._sock.sendall(_control(fstrm.FSTRM_CONTROL_STOP))
            _expect(self._sock, fstrm.FSTRM_CONTROL_FINISH)
        self._sock.close()
        self._sock = None

    def is_ready(self) -> bool:
        """See `Sink.is_ready`."""
        return self._sock is not None and wait_writable(self._sock.fileno(), 0)


def _control(kind: int) -> bytes:
    """Return a control frame; STOP and FINISH have no content type."""
    types = [] if kind in (fstrm.FSTRM_CONTROL_STOP, fstrm.FSTRM_CONTROL_FINISH) else [CONTENT_TYPE]
    frame: bytes = fstrm.FstrmCodec().encode(kind, types)
    return frame


def _expect(sock: socket.socket, kind: int) -> None:
    """Read one control frame.

    Raises:
        OSError: it is another one, or not for dnstap, or none comes.
    """
    codec = fstrm.FstrmCodec()
    codec.append(_read(sock, 8))
    length = int.from_bytes(codec.buf[4:], "big")
    if codec.buf[:4] != bytes(4) or not 4 <= length <= MAX_CONTROL:
        raise OSError("the collector does not speak Frame Streams")
    codec.append(_read(sock, length))
    codec.process()
    try:
        found, types, _ = codec.decode()
    except Exception as exc:  # the codec has no class of its own for what is malformed
        raise OSError(f"the collector does not speak Frame Streams: {exc}") from exc
    if found != kind or (types and CONTENT_TYPE not in types):
        raise OSError("the collector does not take dnstap")


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise OSError("the collector has closed the connection")
        data += more
    return data
