"""Which addresses count as one client, for the rate limit and for every share of a limited resource."""

from __future__ import annotations


class Clients:
    """Addresses that share the first ``ipv4_prefix`` or ``ipv6_prefix`` bits are one client."""

    __slots__ = ("_mask4", "_mask6", "_whole4")

    def __init__(self, ipv4_prefix: int = 32, ipv6_prefix: int = 64) -> None:
        self._whole4 = ipv4_prefix == 32
        self._mask4 = (1 << 32) - (1 << (32 - ipv4_prefix))
        self._mask6 = (1 << 128) - (1 << (128 - ipv6_prefix))

    def of(self, source: bytes) -> bytes:
        """Return the client that the packed address ``source`` belongs to."""
        if len(source) == 4:
            if self._whole4:
                return source
            return (int.from_bytes(source, "big") & self._mask4).to_bytes(4, "big")
        return (int.from_bytes(source, "big") & self._mask6).to_bytes(16, "big")
