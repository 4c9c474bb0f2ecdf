"""One forwarded question: which upstream next, is this reply ours, is it final.

The shell asks `Exchange.next_attempt`, sends what it says, and feeds back each
datagram (`receive_reply`) or failure (`fail_attempt`). Identical questions in
flight share one exchange, so a burst gives a spoofer no more ids to guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final

from dnsproxy.core import wire
from dnsproxy.core.response import Response, scan_response
from dnsproxy.core.upstreams import NO_EDNS_FOR, Upstream
from dnsproxy.core.wire import Query
from dnsproxy.errors import WireError

# RFC 9520 §3.1 asks for a low bound on the sends for one failing question.
MAX_SENDS = 3
_NO_EDNS_RCODES: Final = frozenset({wire.FORMERR, wire.NOTIMP})
_TRY_NEXT_RCODES: Final = frozenset({wire.FORMERR, wire.SERVFAIL, wire.NOTIMP, wire.REFUSED})
_TC: Final = 0x02  # in the third octet


class Failure(StrEnum):
    """Why an attempt gave nothing. The value is the metric's label."""

    TIMEOUT = "timeout"
    NETWORK = "network"
    RCODE = "rcode"
    # Of encrypted transports: the certificate is not to be trusted, TLS failed otherwise, HTTP did.
    CERTIFICATE = "certificate"
    TLS = "tls"
    HTTP = "http"
    # More queries wait on its connections than they may carry.
    BUSY = "busy"


class Verdict(Enum):
    """What a reply means for the exchange."""

    IGNORED = "ignored"
    NEXT = "next"
    DONE = "done"


# Reading a member of an Enum costs 80 ns each time.
_IGNORED: Final = Verdict.IGNORED
_NEXT: Final = Verdict.NEXT
_DONE: Final = Verdict.DONE


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for one attempt and for all of them together."""

    attempt: float
    total: float


class Attempt:
    """Send ``payload`` after an id of the sender's choice; wait until ``deadline`` (monotonic)."""

    __slots__ = ("deadline", "payload", "tcp", "upstream")

    def __init__(self, upstream: Upstream, payload: bytes, deadline: float, *, tcp: bool) -> None:
        self.upstream = upstream
        self.payload = payload
        self.deadline = deadline
        self.tcp = tcp


class Exchange:
    """The state of one question in flight.

    ``waiters`` belongs to the shell: whom to tell. ``response`` is set once a
    final reply came; ``reply`` is its whole message.
    """

    __slots__ = (
        *("_do", "_flags", "_limits", "_sends", "_sent_edns", "_turn", "_upstreams", "_use_tcp"),
        *(
            "attempt_deadline",
            "deadline",
            "key",
            "last_failure",
            "question",
            "reply",
            "response",
            "sent_at",
            "upstream",
            "waiters",
        ),
    )

    def __init__(
        self, key: bytes, query: Query, upstreams: tuple[Upstream, ...], limits: Limits, now: float
    ) -> None:
        self.key = key
        self.question = query.data[wire.HEADER : query.question_end]
        self.deadline = now + limits.total
        self.waiters: list[tuple[Query, Any, Any, float]] = []
        self.response: Response | None = None
        self.reply = b""
        self.last_failure: Failure | None = None
        self.upstream: Upstream = upstreams[0]
        self.attempt_deadline = self.deadline
        self.sent_at = now
        # AD asks for the AD flag (RFC 6840 §5.7); who may see it is decided per client.
        self._flags = wire.RD | wire.AD | query.flags & wire.CD
        self._do = query.do
        self._upstreams = upstreams
        self._limits = limits
        self._turn = 0
        self._sends = 0
        self._use_tcp = False
        self._sent_edns = True

    @property
    def attempt_number(self) -> int:
        """How many attempts there were; a timer that remembers an earlier number is out of date."""
        return self._sends

    def next_attempt(self, now: float) -> Attempt | None:
        """Return what to send next, or None when the sends or the time are used up."""
        if self._sends >= MAX_SENDS or now >= self.deadline:
            return None
        upstream = self._upstreams[self._turn % len(self._upstreams)]
        self._sends += 1
        self.upstream = upstream
        self.sent_at = now
        upstream.stats.sent += 1
        self._sent_edns = upstream.no_edns_until <= now
        payload = wire.upstream_query(self.question, self._flags, edns=self._sent_edns, do=self._do)
        self.attempt_deadline = min(now + self._limits.attempt, self.deadline)
        return Attempt(upstream, payload, self.attempt_deadline, tcp=self._use_tcp or upstream.tcp)

    def receive_reply(self, data: bytes, now: float) -> Verdict:
        """Judge a message that came from the upstream asked, with the id sent.

        Anything that is not a whole response to this question is IGNORED, and
        the wait goes on (RFC 5452 §9.1).
        """
        end = wire.HEADER + len(self.question)
        if len(data) < end or not self._is_ours(data, end):
            return _IGNORED
        if data[2] & _TC:
            self.upstream.record_response(now - self.sent_at)
            return self._retry_over_tcp()
        try:
            response = scan_response(data, end)
        except WireError:
            return _IGNORED
        self.upstream.record_response(now - self.sent_at)
        return self._judge_rcode(response, data, now)

    def _is_ours(self, data: bytes, end: int) -> bool:
        if data[2] & 0xF8 != 0x80 or data[4] or data[5] != 1:  # QR set, opcode QUERY, one question
            return False
        echoed = data[wire.HEADER : end]
        if echoed == self.question:
            return True
        # Case may differ in the name; type and class may not.
        return echoed[-4:] == self.question[-4:] and echoed[:-4].lower() == self.question[:-4].lower()

    def _retry_over_tcp(self) -> Verdict:
        if self._use_tcp or self.upstream.tcp:
            # TC over TCP cannot be true; another upstream may do better.
            self._pass_on(Failure.RCODE)
        else:
            self._use_tcp = True
        return _NEXT

    def _judge_rcode(self, response: Response, data: bytes, now: float) -> Verdict:
        rcode = response.rcode
        if rcode == wire.NOERROR or rcode == wire.NXDOMAIN:  # noqa: PLR1714 - a set is made for each `in`
            self.response = response
            self.reply = data
            return _DONE
        if self._sent_edns and (rcode == wire.BADVERS or (rcode in _NO_EDNS_RCODES and not response.edns)):
            # It does not know EDNS (RFC 6891 §7); one that does answers with an OPT, and knows version 0.
            self.upstream.no_edns_until = now + NO_EDNS_FOR
            return _NEXT
        if rcode in _TRY_NEXT_RCODES or rcode == wire.BADVERS:
            self.upstream.stats.failures[Failure.RCODE] += 1
            self._pass_on(Failure.RCODE)
            return _NEXT
        self.response = response
        self.reply = data
        return _DONE

    def may_resend(self) -> bool:
        """Tell whether a query lost with an idle connection may be sent again; if so it counts as a send."""
        if self._sends >= MAX_SENDS:
            return False
        self._sends += 1
        self.upstream.stats.sent += 1
        return True

    def fail_attempt(self, reason: Failure, now: float) -> None:
        """Record that the attempt under way gave nothing: no reply in time, or no connection."""
        self.upstream.record_failure(reason, now)
        self._pass_on(reason)

    def _pass_on(self, reason: Failure) -> None:
        self.last_failure = reason
        self._use_tcp = False
        self._turn += 1
        if reason is Failure.RCODE and self._turn >= len(self._upstreams):
            # Every upstream has had its say; asking one again would only repeat it.
            self._sends = MAX_SENDS
