"""Random numbers for decisions. The octets come from the shell, so that a test can say what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Octets drawn at a time: a call for each number would cost 0.5 us.
_STOCK: Final = 2048


class Chance:
    """Numbers made from ``draw``, which returns as many random octets as it is asked for."""

    __slots__ = ("_at", "_draw", "_octets")

    def __init__(self, draw: Callable[[int], bytes]) -> None:
        self._draw = draw
        self._octets = b""
        self._at = 0

    def octets(self, count: int) -> bytes:
        """Return ``count`` octets that were given to nobody before."""
        at = self._at
        if at + count > len(self._octets):
            self._octets = self._draw(max(_STOCK, count))
            at = 0
        self._at = at + count
        return self._octets[at : at + count]

    def below(self, bound: int) -> int:
        """Draw from 0 to ``bound`` - 1; for a bound up to 65536 all are as likely within 1/65536."""
        return int.from_bytes(self.octets(4), "big") % bound

    def mixed_case(self, question: bytes) -> bytes:
        """Return ``question`` with each letter of its name in a random case (draft-vixie-dnsext-dns0x20).

        The length octets of the name are at most 63 and no letter's; type and class are left alone.
        """
        end = len(question) - 4
        bits = int.from_bytes(self.octets((end + 7) // 8), "big")
        name = bytearray(question)
        for index in range(end):
            octet = name[index] | 0x20
            if 0x61 <= octet <= 0x7A:
                name[index] = octet ^ (bits >> index & 1) << 5
        return bytes(name)
