"""One send to one upstream: what it is made of, how long it may take, what a reply means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from dnsproxy.core.native import mypyc_attr
from dnsproxy.core.upstreams import Upstream


class Failure(StrEnum):
    """Why an attempt gave nothing. The value is the metric's label."""

    TIMEOUT = "timeout"
    NETWORK = "network"
    RCODE = "rcode"
    # It answered with the name in another case than asked for, while ``forward.case_randomization`` is on.
    CASE = "case"
    # A probe that was sent to it came back to us.
    LOOP = "loop"
    # Of encrypted transports: the certificate is not to be trusted, TLS failed otherwise, HTTP did.
    CERTIFICATE = "certificate"
    TLS = "tls"
    HTTP = "http"
    # More queries wait on its connections than they may carry.
    BUSY = "busy"
    # This host had no descriptor, port or memory for a socket, or refused to send: no fault of the upstream.
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Limits:
    """The most seconds for one attempt before the next is made, and those for all of them together."""

    attempt: float
    total: float


@mypyc_attr(free_list_len=1)
class Attempt:
    """Send ``payload`` after an id of the sender's choice; call `Exchange.time_out` at ``deadline``.

    ``edns`` tells that it has an OPT; ``turn`` is the place of ``upstream`` in the order of the exchange.
    """

    __slots__ = ("deadline", "edns", "payload", "sent_at", "tcp", "turn", "upstream")

    def __init__(
        self,
        upstream: Upstream,
        payload: bytes,
        deadline: float,
        tcp: bool = False,  # noqa: FBT001, FBT002 - one is made for each miss, and names take a tenth more time
        edns: bool = True,  # noqa: FBT001, FBT002 - as above
        turn: int = 0,
        sent_at: float = 0.0,
    ) -> None:
        self.upstream = upstream
        self.payload = payload
        self.deadline = deadline
        self.tcp = tcp
        self.edns = edns
        self.turn = turn
        self.sent_at = sent_at


class Verdict(Enum):
    """What a reply means for the exchange."""

    # It answers nothing: the attempt remains open.
    IGNORED = "ignored"
    # The attempt has ended, and the next one is due.
    NEXT = "next"
    # The attempt has ended, and another one is under way.
    WAIT = "wait"
    # The next attempt is due, and this one remains open: the reply may be forged.
    HINT = "hint"
    DONE = "done"
