"""What an engine does beyond the least. Every default is off; the settings turn on what `serve` has on."""

from __future__ import annotations

from dataclasses import dataclass

from dnsproxy.core.access import AccessList
from dnsproxy.core.returns import Returns


@dataclass(frozen=True, slots=True)
class Features:
    """``prefetch`` asks anew for busy entries near their end; ``nxdomain_cut`` is RFC 8020.

    ``minimal_any`` answers ANY here (RFC 8482) and ``mix_case`` asks with letters in random case.
    ``version`` and ``identity`` are the texts for version.bind and id.server (RFC 4892), None for REFUSED.
    ``probe_interval`` is the seconds between probes of an upstream that is well; infinite for none.
    ``designated`` is the data of SVCB records for _dns.resolver.arpa (RFC 9462).
    ``proxies`` are the peers that must say by PROXY protocol which client they ask for; None for none.
    ``returns`` is what the workers of one program share of probes that came back, None for a single process.
    """

    prefetch: bool = False
    nxdomain_cut: bool = False
    minimal_any: bool = False
    mix_case: bool = False
    version: str | None = None
    identity: str | None = None
    probe_interval: float = float("inf")
    designated: tuple[bytes, ...] = ()
    returns: Returns | None = None
    proxies: AccessList | None = None


NO_FEATURES = Features()
