"""Peers that say by PROXY protocol which client they ask for (`serve.proxy_protocol`).

The UDP listener reads a `ProxiedSocket`; `receive_header` is for streams.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

from dnsproxy.core.engine import Engine
from dnsproxy.core.proxy_protocol import Header, header_length, read_header
from dnsproxy.errors import WireError
from dnsproxy.net.datagrams import DatagramSocket, Token

# Batches without a message for the listener that are read at one time.
_BATCHES: Final = 4


class ProxiedToken(NamedTuple):
    """Where a response goes, and the client that it is for."""

    address: bytes
    port: int
    peer: Token


class ProxiedSocket:
    """A `DatagramSocket` whose messages and addresses are those of the clients behind ``inner``'s peers.

    What comes from a peer that ``engine`` does not admit, or without its header, is counted and passed over.
    """

    def __init__(self, inner: DatagramSocket, engine: Engine) -> None:
        self.engine = engine
        self._inner = inner
        # Of each message of the last `receive`: its number in that of ``inner``, and its header, if any.
        self._kept: list[tuple[int, Header | None]] = []
        self._count = 0

    def receive(self) -> tuple[list[bytes], Sequence[bytes]]:
        """See `DatagramSocket.receive`."""
        for _ in range(_BATCHES):
            messages, peers = self._inner.receive()
            self._count = len(messages)
            taken = self._take(messages, peers)
            if self._kept or not messages:
                return taken
        return [], ()

    def _take(self, messages: list[bytes], peers: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        engine, proxies = self.engine, self.engine.features.proxies
        self._kept = []
        bare: list[bytes] = []
        sources: list[bytes] = []
        for index, message in enumerate(messages):
            peer = peers[index]
            if proxies is None or not proxies.allows(peer):
                self._kept.append((index, None))
                bare.append(message)
                sources.append(peer)
            elif engine.admits(peer):
                try:
                    header = read_header(message)
                except WireError as exc:
                    engine.stats.drops[exc.reason] += 1
                    continue
                self._kept.append((index, header))
                bare.append(message[header.length :])
                sources.append(header.address or peer)
        return bare, sources

    def answer(self, responses: Sequence[object]) -> int:
        """See `DatagramSocket.answer`."""
        spread: list[object] = [None] * self._count
        for index, response in enumerate(responses):
            spread[self._kept[index][0]] = response
        return self._inner.answer(spread)

    def token(self, index: int) -> Token:
        """See `DatagramSocket.token`."""
        number, header = self._kept[index]
        peer = self._inner.token(number)
        return ProxiedToken(header.address, header.port, peer) if header and header.address else peer

    def address(self, token: Token) -> bytes:
        """See `DatagramSocket.address`."""
        return token.address if isinstance(token, ProxiedToken) else self._inner.address(token)

    def port(self, index: int) -> int:
        """See `DatagramSocket.port`."""
        number, header = self._kept[index]
        return header.port if header and header.address else self._inner.port(number)

    def queue(self, token: Token, response: bytes) -> None:
        """See `DatagramSocket.queue`."""
        self._inner.queue(token.peer if isinstance(token, ProxiedToken) else token, response)

    def flush(self) -> int:
        """See `DatagramSocket.flush`."""
        return self._inner.flush()


async def receive_header(sock: socket.socket, data: bytes = b"") -> Header:
    """Return the header at the start of the stream of ``sock``, ``data`` first; what follows is left there.

    Raises:
        OSError: the connection is broken.
        WireError: there is none, or one that is not accepted.
    """
    loop = asyncio.get_running_loop()
    while len(data) < (length := header_length(data)):
        more = await loop.sock_recv(sock, length - len(data))
        if not more:
            break
        data += more
    return read_header(data)
