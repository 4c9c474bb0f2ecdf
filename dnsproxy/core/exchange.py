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
from dnsproxy.core.chance import Chance
from dnsproxy.core.native import mypyc_attr
from dnsproxy.core.response import Response, TooManyRecordsError, errors_told, scan_response
from dnsproxy.core.upstreams import CASE_LOST_FOR, NO_EDNS_FOR, Upstream
from dnsproxy.core.wire import Query
from dnsproxy.errors import WireError

# RFC 9520 §3.1 asks for a low bound on the sends for one failing question.
MAX_SENDS = 3
_NO_EDNS_RCODES: Final = frozenset({wire.FORMERR, wire.NOTIMP})
_TRY_NEXT_RCODES: Final = frozenset({wire.FORMERR, wire.SERVFAIL, wire.NOTIMP, wire.REFUSED})


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


class Verdict(Enum):
    """What a reply means for the exchange."""

    IGNORED = "ignored"
    NEXT = "next"
    DONE = "done"


# Reading a member of an Enum costs 80 ns each time.
_IGNORED: Final = Verdict.IGNORED
_NEXT: Final = Verdict.NEXT
_DONE: Final = Verdict.DONE


# What an exchange is for. Only the first two have waiters, a refresh those that joined it.
PLAIN: Final = 0
REFRESH: Final = 1
PROBE: Final = 2
# The slower one of two that raced.
SPENT: Final = 3
# Its place went to another one; what it still brings is kept.
GIVEN_UP: Final = 4

Waiter = tuple[Query, Any, Any, float]
"""A query with what its listener wants to be called with, and when it came."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for one attempt and for all of them together."""

    attempt: float
    total: float


@mypyc_attr(free_list_len=1)
class Attempt:
    """Send ``payload`` after an id of the sender's choice; wait until ``deadline`` (monotonic)."""

    __slots__ = ("deadline", "payload", "tcp", "upstream")

    def __init__(self, upstream: Upstream, payload: bytes, deadline: float, *, tcp: bool) -> None:
        self.upstream = upstream
        self.payload = payload
        self.deadline = deadline
        self.tcp = tcp


@mypyc_attr(free_list_len=1)
class Forward:
    """Ask upstream: ``exchange`` is shared by identical questions; ``is_new`` for the first of them.

    ``client`` is what `fairness.Fairness.join` returned for a further one.
    """

    __slots__ = ("client", "exchange", "is_new", "query")

    def __init__(self, exchange: Exchange, query: Query, *, is_new: bool, client: bytes = b"") -> None:
        self.exchange = exchange
        self.query = query
        self.is_new = is_new
        self.client = client


class Share:
    """How an exchange counts among clients (see `fairness`).

    ``holder`` is the client whose slot it takes, None while that is not counted. ``waiting`` counts the
    queries besides the first by client, ``count`` all of them; ``peers`` has what tells two copies apart.
    """

    __slots__ = ("count", "holder", "peers", "waiting")

    def __init__(self) -> None:
        self.holder: bytes | None = None
        self.count = 0
        self.waiting: dict[bytes, int] = {}
        self.peers: set[tuple[Any, bytes]] = set()


class Exchange:
    """The state of one question in flight.

    ``waiters`` belongs to the shell: whom to tell. ``response`` is set once a
    final reply came; ``reply`` is its whole message. ``zone`` is the key of the zone whose upstreams
    are asked. Two exchanges that race for one answer are each other's ``partner``; they
    have one list of waiters and one number of sends. ``error`` is the reason that an upstream gave
    for failing (RFC 8914), 0 without one. ``source`` is the packed address of the client that asked first,
    empty for a question of our own.
    """

    __slots__ = (
        *("_case_lost", "_do", "_exact_case", "_flags", "_limits", "_sends", "_sent_edns", "_turn"),
        *("_upstreams", "_use_tcp", "attempt_deadline", "deadline", "error", "key", "last_failure"),
        *("partner", "purpose", "question", "reply", "response", "sent_at", "share", "source", "upstream"),
        *("waiters", "zone"),
    )

    def __init__(
        self,
        key: bytes,
        query: Query,
        upstreams: tuple[Upstream, ...],
        limits: Limits,
        now: float,
        zone: bytes = b"\x00",
    ) -> None:
        self.key = key
        self.zone = zone
        self.purpose = PLAIN
        self.source = b""
        self.share: Share | None = None
        self.partner: Exchange | None = None
        self.error = 0
        self.question = query.data[wire.HEADER : query.question_end]
        self.deadline = now + limits.total
        self.waiters: list[Waiter] = []
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
        self._exact_case = False
        self._case_lost = False

    def mix_case(self, chance: Chance) -> None:
        """Ask with the letters of the name in random case, and take only replies that have the same.

        A spoofer must then hit one more bit per letter (draft-vixie-dnsext-dns0x20).
        """
        self.question = chance.mixed_case(self.question)
        self._exact_case = True

    @property
    def has_second(self) -> bool:
        """Whether there is another upstream that is worth asking at the same time."""
        return len(self._upstreams) > 1 and self._upstreams[1].usable

    def race(self, query: Query, now: float) -> Exchange:
        """Return the exchange that asks the second upstream while this one asks the first."""
        order = self._upstreams
        other = Exchange(self.key, query, order[1:] + order[:1], self._limits, now, self.zone)
        # When its first one fails this one goes on to the third, for the second is being asked.
        self._upstreams = (order[0], *order[2:], order[1])
        other.question = self.question
        other._exact_case = self._exact_case
        other.waiters = self.waiters
        other.partner, self.partner = self, other
        return other

    @property
    def over_tcp(self) -> bool:
        """Whether the last attempt had TCP below it, for the upstream's sake or after a truncated reply."""
        return self._use_tcp or self.upstream.tcp

    def give_up(self) -> None:
        """Send nothing more; a reply to what was sent is still taken."""
        self._sends = MAX_SENDS

    def send_once(self) -> None:
        """Let there be one attempt only."""
        self._sends = MAX_SENDS - 1

    def distrust_datagrams(self) -> None:
        """Have the next attempt go over TCP: somebody is guessing at this one's port and id."""
        self._use_tcp = True

    def next_attempt(self, now: float) -> Attempt | None:
        """Return what to send next, or None when the sends or the time are used up."""
        if self._sends >= MAX_SENDS or now >= self.deadline:
            return None
        upstream = self._upstreams[self._turn % len(self._upstreams)]
        self._sends += 1
        if self.partner is not None:
            self.partner._sends = self._sends  # noqa: SLF001 - of the same class
        self.upstream = upstream
        self.sent_at = now
        upstream.stats.sent += 1
        self._sent_edns = upstream.no_edns_until <= now
        payload = wire.upstream_query(self.question, self._flags, edns=self._sent_edns, do=self._do)
        self.attempt_deadline = min(now + self._limits.attempt, self.deadline)
        tcp = self._use_tcp or upstream.tcp
        if self._exact_case and now < upstream.case_lost_until:
            # It changes the case of what it is asked. Nobody can forge an answer over TCP.
            tcp = True
        return Attempt(upstream, payload, self.attempt_deadline, tcp=tcp)

    def receive_reply(self, data: bytes, now: float) -> Verdict:
        """Judge a message that came from the upstream asked, with the id sent.

        Anything that is not a whole response to this question is IGNORED, and
        the wait goes on (RFC 5452 §9.1).
        """
        end = wire.HEADER + len(self.question)
        if len(data) < end or not self._is_ours(data, end):
            return _IGNORED
        if data[2] & wire.TC_OCTET:
            self.upstream.record_response(now - self.sent_at)
            return self._retry_over_tcp()
        try:
            response = scan_response(data, end)
        except WireError as exc:
            # Too many records are an error: to wait for another reply would cost the upstream's health.
            return self._try_next() if isinstance(exc, TooManyRecordsError) else _IGNORED
        self.upstream.record_response(now - self.sent_at)
        return self._judge_rcode(response, data, now)

    def receive_cut(self, data: bytes, now: float) -> Verdict:
        """Judge a datagram larger than was asked for, whose end did not fit here: it counts as truncated."""
        end = wire.HEADER + len(self.question)
        if not self._is_ours(data, end):
            return _IGNORED
        self.upstream.record_response(now - self.sent_at)
        return self._retry_over_tcp()

    def _is_ours(self, data: bytes, end: int) -> bool:
        if data[2] & 0xF8 != 0x80 or data[4] or data[5] != 1:  # QR set, opcode QUERY, one question
            return False
        echoed = data[wire.HEADER : end]
        if echoed == self.question:
            return True
        # Case may differ in the name; type and class may not.
        same = echoed[-4:] == self.question[-4:] and echoed[:-4].lower() == self.question[:-4].lower()
        if same and self._exact_case and not self._use_tcp:
            # Forged, or from a server that does not keep the case: who it is shows when the wait ends.
            self._case_lost = True
            return self.upstream.tcp or self.upstream.case_lost_until > self.sent_at
        return same

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
            told = errors_told(data, response.opt)
            self.error = told[0] if told else self.error
            return self._try_next()
        self.response = response
        self.reply = data
        return _DONE

    def _try_next(self) -> Verdict:
        self.upstream.stats.failures[Failure.RCODE] += 1
        self._pass_on(Failure.RCODE)
        return _NEXT

    def may_resend(self) -> bool:
        """Tell whether a query lost with an idle connection may be sent again; if so it counts as a send."""
        if self._sends >= MAX_SENDS:
            return False
        self._sends += 1
        if self.partner is not None:
            self.partner._sends = self._sends  # noqa: SLF001 - of the same class
        self.upstream.stats.sent += 1
        return True

    def fail_attempt(self, reason: Failure, now: float) -> None:
        """Record that the attempt under way gave nothing: no reply in time, or no connection."""
        upstream = self.upstream
        if reason is Failure.LOCAL:
            # The upstream was not asked. Others may be: a socket to them may be open.
            self._pass_on(reason)
            return
        if self._case_lost and reason is Failure.TIMEOUT:
            self._case_lost = False
            upstream.case_lost_until = now + CASE_LOST_FOR
            upstream.stats.failures[Failure.CASE] += 1
            return
        upstream.record_failure(reason, now)
        self._pass_on(reason)

    def _pass_on(self, reason: Failure) -> None:
        self.last_failure = reason
        self._use_tcp = False
        self._turn += 1
        if reason is Failure.RCODE and self._turn >= len(self._upstreams):
            # Every upstream has had its say; asking one again would only repeat it.
            self._sends = MAX_SENDS
