"""DNS over TLS, as server (RFC 7858): as over TCP, but padded for those who ask for it."""

from __future__ import annotations

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
                self.close()
                data = b""
                break
            if end > len(data):
                break
            self.ask(data[position + 2 : end], None)
            position = end
        self._input = data[position:]

    def held(self) -> int:
        """See `EncryptedClient.held`."""
        return len(self._input)

    def answer(self, token: Hashable, query: bytes, response: bytes) -> None:  # noqa: ARG002 - none is needed
        """See `EncryptedClient.answer`."""
        message = for_encrypted(query, response, encrypted.IDLE_SECONDS)
        # A record each: there are programs that read one message and wait for the next record.
        self.write(len(message).to_bytes(2, "big") + message)
