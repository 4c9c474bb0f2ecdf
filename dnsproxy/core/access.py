"""Who may ask: a verdict per client address, remembered."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

# One dictionary entry costs about 150 octets; the bound keeps an address flood under 10 MB.
MAX_VERDICTS = 65_536


class AccessList:
    """The allowed networks. Addresses are packed: 4 octets for IPv4, 16 for IPv6."""

    def __init__(self, allow: Iterable[IPv4Network | IPv6Network]) -> None:
        self._rules = [
            (network.max_prefixlen // 8, int(network.network_address), int(network.netmask))
            for network in allow
        ]
        self._verdicts: dict[bytes, bool] = {}

    def allows(self, source: bytes) -> bool:
        """Tell whether the client with the packed address ``source`` may ask."""
        verdict = self._verdicts.get(source)
        if verdict is None:
            verdict = self._decide(source)
            if len(self._verdicts) >= MAX_VERDICTS:
                self._verdicts.clear()
            self._verdicts[source] = verdict
        return verdict

    def _decide(self, source: bytes) -> bool:
        address = int.from_bytes(source, "big")
        return any(length == len(source) and address & mask == base for length, base, mask in self._rules)
