"""What a peer may send over HTTP/2 besides requests and responses: a bounded number of frames, short headers.

Some frames cost the sender 9 bytes and the receiver 10 to 20 microseconds and belong to no query: PING,
SETTINGS, WINDOW_UPDATE, PRIORITY, empty DATA, CONTINUATION (CVE-2019-9512, -9515, -9518, CVE-2024-27316).
h2 takes all of them. `FrameBudget` counts frames before h2 parses them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import h2.config
import h2.connection
import hpack

# Frames that a peer may send before its first query.
FIRST_FRAMES: Final = 128
# Further frames for each query: its DATA, PING, WINDOW_UPDATE for the response, a reset.
FRAMES_PER_QUERY: Final = 8
# One more for so many bytes of DATA sent, which the peer answers with WINDOW_UPDATE.
SENT_PER_FRAME: Final = 256
# DATA with less is counted; up to 256 bytes of it may be padding.
_SHORT_DATA: Final = 512
# A frame other than DATA is counted once for each such part of its payload. Usual ones have 4 to 60 bytes.
_PART: Final = 64
# The same for HEADERS, which usually have 50 to 700 bytes.
_HEADERS_PART: Final = 1024

_HEADER: Final = 9
_PREFACE: Final = 24
_DATA: Final = 0
_HEADERS: Final = 1
# Bytes of our own header table, whatever the peer allows (RFC 7541 §4.2: it may be smaller).
_TABLE: Final = 4096
# Changes of the size of the header table in one header block (RFC 7541 §4.2).
_MAX_SIZE_UPDATES: Final = 2


class FrameBudget:
    """Counts the frames of one peer. ``queries`` may be open at a time.

    A server's budget (``is_server``) grows with each new stream of the client; that of a client grows by
    `grant`.
    """

    def __init__(self, queries: int, *, is_server: bool) -> None:
        self._left = FIRST_FRAMES
        self._most = FIRST_FRAMES + queries * FRAMES_PER_QUERY
        self._is_server = is_server
        self._skip = _PREFACE if is_server else 0
        self._rest = b""
        self._last_stream = 0

    def grant(self, frames: int = FRAMES_PER_QUERY) -> None:
        """Allow ``frames`` more: those of another query, or WINDOW_UPDATE for DATA that has been sent."""
        self._left = min(self._left + frames, self._most)

    def spend(self, data: bytes) -> bool:
        """Count the frames that begin in ``data``; return False when the peer has sent too many."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = self._skip, len(data)
        while at + _HEADER <= end:
            length = int.from_bytes(data[at : at + 3], "big")
            self._count(data[at + 3], int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF, length)
            if self._left < 0:
                return False
            at += _HEADER + length
        if at < end:
            self._rest = data[at:]
        self._skip = max(0, at - end)
        return True

    def _count(self, kind: int, stream: int, length: int) -> None:
        if kind == _HEADERS and self._is_server and stream > self._last_stream:
            self._last_stream = stream
            self.grant()
            self._left -= length // _HEADERS_PART
        elif kind == _DATA:
            self._left -= length < _SHORT_DATA
        elif kind == _HEADERS:
            self._left -= 1 + length // _HEADERS_PART
        else:
            self._left -= 1 + length // _PART


class HeaderDecoder(hpack.Decoder):
    """Decodes header blocks of at most ``max_header_list_size`` bytes of names, values and overhead.

    hpack itself takes any number of table size updates: 16 kB of them cost 22 ms.
    """

    def __init__(self, max_header_list_size: int) -> None:
        self._updates = 0
        super().__init__(max_header_list_size)

    def decode(self, data: bytes, raw: bool = False) -> Iterable[hpack.HeaderTuple]:  # noqa: FBT001, FBT002 - hpack's
        """See `hpack.Decoder.decode`."""
        self._updates = 0
        return super().decode(data, raw)

    @property
    def header_table_size(self) -> int:
        """See `hpack.Decoder.header_table_size`."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        self._updates += 1
        if self._updates > _MAX_SIZE_UPDATES:
            raise hpack.HPACKDecodingError("too many changes of the header table size")
        self.header_table.maxsize = value


class _HeaderEncoder(hpack.Encoder):
    """Keeps a table of at most `_TABLE` bytes: a peer may allow 4 GiB, and hpack fills what is allowed."""

    @property
    def header_table_size(self) -> int:
        """See `hpack.Encoder.header_table_size`."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = min(value, _TABLE)
        if size != self.header_table.maxsize:
            self.header_table.maxsize = size
            self.table_size_changes.append(size)


class BoundedConnection(h2.connection.H2Connection):
    """h2's state of a connection, with bounds on what it keeps for a peer.

    ``max_headers`` bounds header blocks (`HeaderDecoder`): h2 announces it, and applies a default of its own.
    ``closed_streams`` are remembered, of 65,536 otherwise, which take 6 MiB.
    """

    def __init__(self, config: h2.config.H2Configuration, *, max_headers: int, closed_streams: int) -> None:
        self.MAX_CLOSED_STREAMS = closed_streams
        super().__init__(config)
        self.decoder = HeaderDecoder(max_headers)
        self.encoder = _HeaderEncoder()
