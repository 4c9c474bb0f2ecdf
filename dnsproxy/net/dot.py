"""DNS over TLS, as server (RFC 7858): as over TCP, but padded for those who ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from dnsproxy.core import wire
from dnsproxy.core.options import for_encrypted
from dnsproxy.net import encrypted
from dnsproxy.net.encrypted import EncryptedClient, House


class DotClient(EncryptedClient):
    """One connection; responses go out in any order."""

    proto = "tls"

    def __init__(self, house: House, source: bytes) -> None:
        super().__init__(house, source)
        self._input = b""
        self._output: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> None:
        """See `EncryptedClient.take`."""
        self._input = self._input + data if self._input else data
        self.take_rest()

    def take_rest(self) -> None:
        """Take what is whole from the input, as long as not too much waits."""
        data = self._input
        position = 0
        while len(data) - position >= 2 and self.is_ready:
            end = position + 2 + int.from_bytes(data[position : position + 2], "big")
            if end - position - 2 < wire.HEADER:
                # Not DNS: there is no telling where a next message would start.
                self._flush()
                self.close()
                data = b""
                break
            if end > len(data):
                break
            self.ask(data[position + 2 : end], None)
            position = end
        self._input = data[position:]

    def answer(self, token: Hashable, query: bytes, response: bytes) -> None:  # noqa: ARG002 - none is needed
        """See `EncryptedClient.answer`."""
        message = for_encrypted(query, response, encrypted.IDLE_SECONDS)
        if not self._output:
            asyncio.get_running_loop().call_soon(self._flush)
        self._output.append(len(message).to_bytes(2, "big") + message)
        self._size += len(message)
        if self._size >= encrypted.ENOUGH_UNREAD:
            self._flush()

    def _flush(self) -> None:
        """Send the responses of one round of the loop at once, in one record if they fit."""
        output, self._output, self._size = self._output, [], 0
        self.write(b"".join(output))
