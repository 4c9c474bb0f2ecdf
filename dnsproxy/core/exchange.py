"""One forwarded question: which upstream next, is this reply ours, is it final.

The shell asks `Exchange.next_attempt`, sends what it says, and feeds back each
datagram (`receive_reply`), the end of an attempt's time (`time_out`) or failure (`fail_attempt`). An attempt
whose time is over is followed by the next one, and a reply to it still counts until the exchange ends.
Identical questions in flight share one exchange, so a burst gives a spoofer no more ids to guess.
"""

from __future__ import annotations

from typing import Any, Final

from dnsproxy.core import wire
from dnsproxy.core.attempt import Attempt, Failure, Limits, Verdict
from dnsproxy.core.chance import Chance
from dnsproxy.core.cname import Link, Origin
from dnsproxy.core.native import mypyc_attr
from dnsproxy.core.response import Response, TooManyRecordsError, errors_told, scan_cut, scan_response
from dnsproxy.core.shares import Share
from dnsproxy.core.upstreams import CASE_LOST_FOR, EDNS_SEEN_FOR, NO_EDNS_FOR, Upstream
from dnsproxy.core.wire import Query
from dnsproxy.errors import WireError

# RFC 9520 §3.1 asks for a low bound on the sends for one failing question.
MAX_SENDS = 3
# Connections that the upstream may close without a reply to any query since this one was sent, before that
# counts as a failure. The question itself may be what makes it close them.
MAX_LOSSES: Final = 2
_NO_EDNS_RCODES: Final = frozenset({wire.FORMERR, wire.NOTIMP})
_FAILURE_RCODES: Final = frozenset({wire.FORMERR, wire.SERVFAIL, wire.NOTIMP, wire.REFUSED, wire.BADVERS})

# Reading a member of an Enum costs 80 ns each time.
_IGNORED: Final = Verdict.IGNORED
_NEXT: Final = Verdict.NEXT
_WAIT: Final = Verdict.WAIT
_HINT: Final = Verdict.HINT
_DONE: Final = Verdict.DONE

# What an exchange is for. Only the first two have waiters, a refresh those that joined it.
PLAIN: Final = 0
REFRESH: Final = 1
PROBE: Final = 2
# No client waits for these. The slower one of two that raced:
SPENT: Final = 3
# Its place went to another one; what it still brings is kept.
GIVEN_UP: Final = 4

Waiter = tuple[Query, Any, Any, float]
"""A query with what its listener wants to be called with, and when it came."""


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


class Exchange:
    """The state of one question in flight.

    ``waiters`` belongs to the shell: whom to tell. ``response`` is set once a
    final reply came; ``reply`` is its whole message. ``zone`` is the key of the zone whose upstreams
    are asked. Two exchanges that race for one answer are each other's ``partner``; they
    have one list of waiters and one number of sends. ``error`` is the reason that an upstream gave
    for failing (RFC 8914), 0 without one. ``source`` is the packed address of the client that asked first,
    empty for a question of our own. ``origin`` is None while it asks just what it was begun for.

    ``is_waiting`` tells that the last attempt is under way, ``listening`` how many attempts a reply may still
    come to, late ones included: at most `MAX_SENDS`. When there is none, and none to make, the exchange ends.
    ``ended`` is set then: what comes later is ignored.
    """

    __slots__ = (
        *("_attempt", "_blamed", "_case_lost", "_do", "_exact_case", "_flags", "_limits", "_losses"),
        *("_plain", "_refused", "_sends", "_turn", "_upstreams", "_use_tcp", "deadline", "ended", "error"),
        *("is_waiting", "key", "last_failure", "listening", "origin", "partner", "purpose", "question"),
        *("reply", "response", "share", "source", "upstream", "waiters", "zone"),
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
        self.origin: Origin | None = None
        self.error = 0
        self.question = query.data[wire.HEADER : query.question_end]
        self.deadline = now + limits.total
        self.waiters: list[Waiter] = []
        self.response: Response | None = None
        self.reply = b""
        self.last_failure: Failure | None = None
        self.upstream: Upstream = upstreams[0]
        self.ended = self.is_waiting = False
        # AD asks for the AD flag (RFC 6840 §5.7); who may see it is decided per client.
        self._flags = wire.RD | wire.AD | query.flags & wire.CD
        self._do = query.do
        self._upstreams = upstreams
        self._limits = limits
        self._turn = self._sends = self.listening = 0
        self._use_tcp = self._exact_case = self._case_lost = False
        self._attempt: Attempt | None = None
        # Upstreams, a bit for each: those that have failed to answer, do not do EDNS, have had a timeout.
        self._refused = self._plain = self._blamed = self._losses = 0

    def mix_case(self, chance: Chance) -> None:
        """Ask with the letters of the name in random case, and take only replies that have the same.

        A spoofer must then hit one more bit per letter (draft-vixie-dnsext-dns0x20).
        """
        self._origin().spelled = self.question
        self.question = chance.mixed_case(self.question)
        self._exact_case = True

    def _origin(self) -> Origin:
        if self.origin is None:
            self.origin = Origin(self.question, self.zone)
        return self.origin

    def follow(self, links: list[Link], zone: bytes, upstreams: tuple[Upstream, ...]) -> Exchange:
        """Return the exchange that asks ``upstreams``, those of ``zone``, for the last target of ``links``.

        It has the waiters of this one, which has ended, and the time that is left.
        """
        question = links[-1][1] + self.question[-4:]
        query = wire.scan_query(b"\0\0" + wire.upstream_query(question, self._flags, edns=True, do=self._do))
        other = Exchange(
            self.key, query, upstreams, self._limits, self.deadline - self._limits.total, self.zone
        )
        other.purpose = self.purpose
        other.waiters = self.waiters
        origin = other.origin = self._origin()
        origin.links += links
        origin.zone = zone
        origin.spelled = question
        origin.partial = None
        return other

    def _keep_partial(self, response: Response, data: bytes) -> None:
        if response.cnames:
            self._origin().partial = response, data

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
        if self.origin is not None:
            other._origin().spelled = self.origin.spelled
        other.question = self.question
        other._exact_case = self._exact_case
        other.waiters = self.waiters
        other.partner, self.partner = self, other
        return other

    @property
    def over_tcp(self) -> bool:
        """Whether the last attempt, or the one that was answered, has TCP below it."""
        return self._attempt is not None and self._attempt.tcp

    @property
    def sent_at(self) -> float:
        """When the last attempt, or the one that was answered, was sent."""
        return self.deadline - self._limits.total if self._attempt is None else self._attempt.sent_at

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
        order = self._upstreams
        count = len(order)
        if self._refused:
            # One that has refused would only repeat it.
            for _ in range(count):
                if not self._refused >> self._turn % count & 1:
                    break
                self._turn += 1
            else:
                return None
        turn = self._turn
        upstream = order[turn % count]
        self._sends += 1
        if self.partner is not None:
            self.partner._sends = self._sends  # noqa: SLF001 - of the same class
        self.upstream = upstream
        upstream.stats.sent += 1
        edns = upstream.no_edns_until <= now and not (self._plain and self._plain >> turn % count & 1)
        payload = wire.upstream_query(self.question, self._flags, edns=edns, do=self._do)
        tcp = self._use_tcp or upstream.tcp
        if self._exact_case and now < upstream.case_lost_until:
            # It changes the case of what it is asked. Nobody can forge an answer over TCP.
            tcp = True
        seconds = upstream.attempt_time
        if turn >= count:
            seconds *= 1 << turn // count
        longest = self._limits.attempt
        # TCP repeats what is lost, and may have to connect first.
        deadline = now + (longest if tcp or seconds > longest else seconds)
        if deadline > self.deadline:  # noqa: PLR1730 - a call of `min` takes as long as all of this
            deadline = self.deadline
        self.is_waiting = True
        self.listening += 1
        self._attempt = made = Attempt(upstream, payload, deadline, tcp, edns, turn, now)
        return made

    def receive_reply(self, data: bytes, now: float, attempt: Attempt | None = None) -> Verdict:
        """Judge a message that came from the upstream of ``attempt``, the last one if None, with the id sent.

        Anything that is not a whole response to this question is IGNORED, and
        the wait goes on (RFC 5452 §9.1).
        """
        attempt = attempt or self._attempt
        if attempt is None:
            return _IGNORED
        end = wire.HEADER + len(self.question)
        if len(data) < end or not self._is_ours(data, end, attempt):
            return self._judge_header(data, attempt) if len(data) == wire.HEADER else _IGNORED
        upstream = attempt.upstream
        if data[2] & wire.TC_OCTET:
            upstream.record_response(now - attempt.sent_at, now)
            self._keep_partial(scan_cut(data, end), data)
            return self._retry_over_tcp(attempt)
        try:
            response = scan_response(data, end)
        except WireError as exc:
            # It may be forged, so the wait goes on; but the upstream is there.
            upstream.heard_at = now
            return self._fail_reply(attempt) if isinstance(exc, TooManyRecordsError) else _IGNORED
        upstream.record_response(now - attempt.sent_at, now)
        return self._judge_rcode(response, data, attempt, now)

    def receive_cut(self, data: bytes, now: float, attempt: Attempt | None = None) -> Verdict:
        """Judge a datagram larger than was asked for, whose end did not fit here: it counts as truncated."""
        attempt = attempt or self._attempt
        end = wire.HEADER + len(self.question)
        if attempt is None or not self._is_ours(data, end, attempt):
            return _IGNORED
        attempt.upstream.record_response(now - attempt.sent_at, now)
        self._keep_partial(scan_cut(data, end), data)
        return self._retry_over_tcp(attempt)

    def matches(self, data: bytes) -> bool:
        """Return whether ``data`` is a response with this question, in any case of the letters."""
        end = wire.HEADER + len(self.question)
        return self._attempt is not None and len(data) >= end and self._is_ours(data, end, self._attempt)

    def _is_ours(self, data: bytes, end: int, attempt: Attempt) -> bool:
        if data[2] & 0xF8 != 0x80 or data[4] or data[5] != 1:  # QR set, opcode QUERY, one question
            return False
        echoed = data[wire.HEADER : end]
        if echoed == self.question:
            return True
        # Case may differ in the name; type and class may not.
        same = echoed[-4:] == self.question[-4:] and echoed[:-4].lower() == self.question[:-4].lower()
        if same and self._exact_case and not attempt.tcp:
            # Forged, or from a server that does not keep the case: who it is shows when the wait ends.
            self._case_lost = True
            return False
        return same

    def _judge_header(self, data: bytes, attempt: Attempt) -> Verdict:
        """Judge a header without a question: of use as the error of a server without EDNS."""
        if (
            data[2] & 0xF8 != 0x80
            or data[3] & 0xF not in _NO_EDNS_RCODES
            or any(data[4:])
            or not attempt.edns
        ):
            return _IGNORED
        if self._plain >> attempt.turn % len(self._upstreams) & 1:
            return _IGNORED
        self._retry_without_edns(attempt)
        return _HINT

    def _retry_without_edns(self, attempt: Attempt) -> None:
        self._plain |= 1 << attempt.turn % len(self._upstreams)
        self._repeat(attempt, tcp=attempt.tcp and not attempt.upstream.tcp)

    def _repeat(self, attempt: Attempt, *, tcp: bool) -> None:
        """Let the next attempt be at the upstream of ``attempt``, whatever is under way."""
        self._turn = attempt.turn
        self._use_tcp = tcp
        self.is_waiting = False

    def _retry_over_tcp(self, attempt: Attempt) -> Verdict:
        if attempt.tcp:
            # TC over TCP cannot be true; another upstream may do better.
            return self._refuse(attempt)
        self.listening -= 1
        if attempt is not self._attempt and self.upstream is attempt.upstream and self.over_tcp:
            return _WAIT  # a late reply; the question is asked over TCP already
        self._repeat(attempt, tcp=True)
        return _NEXT

    def _judge_rcode(self, response: Response, data: bytes, attempt: Attempt, now: float) -> Verdict:
        rcode = response.rcode
        if response.edns and rcode != wire.BADVERS:
            attempt.upstream.edns_at = now
        if rcode == wire.NOERROR or rcode == wire.NXDOMAIN:  # noqa: PLR1714 - a set is made for each `in`
            if response.ttl is None and response.is_referral:
                # It does not resolve names for us (RFC 2308 §2.2).
                return self._fail_reply(attempt)
            if self._plain and not attempt.edns:
                self._remember_no_edns(attempt, now)
            # `_end` without a call of it, for nearly all replies.
            if attempt is self._attempt:
                self.response = response
                self.reply = data
                self.listening -= 1
                self.is_waiting = False
                return _DONE
            return self._end(response, data, attempt)
        if attempt.edns and (rcode == wire.BADVERS or (rcode in _NO_EDNS_RCODES and not response.edns)):
            # Perhaps it does not know EDNS (RFC 6891 §7): one that does sends an OPT, and knows version 0.
            self.listening -= 1
            if self._plain >> attempt.turn % len(self._upstreams) & 1:
                return _WAIT if self.is_waiting else _NEXT
            self._retry_without_edns(attempt)
            return _NEXT
        # A DNAME that makes the name too long (RFC 6672 §2.2). Other RCODEs say nothing of a name.
        is_final = rcode == wire.YXDOMAIN and response.counts[0] > 0
        if is_final or (rcode not in _FAILURE_RCODES and self._is_last(attempt)):
            return self._end(response, data, attempt)
        told = errors_told(data, response.opt)
        self.error = told[0] if told else self.error
        self._keep_partial(response, data)
        return self._fail_reply(attempt)

    def _is_last(self, attempt: Attempt) -> bool:
        """Return whether no upstream is left that may say something else than that of ``attempt``."""
        count = len(self._upstreams)
        refused = self._refused | 1 << attempt.turn % count
        return self._sends >= MAX_SENDS or refused == (1 << count) - 1

    def _end(self, response: Response, data: bytes, attempt: Attempt) -> Verdict:
        self.response = response
        self.reply = data
        self.listening -= 1
        self.is_waiting = False
        self._attempt = attempt
        self.upstream = attempt.upstream
        return _DONE

    def _remember_no_edns(self, attempt: Attempt, now: float) -> None:
        """Remember that an upstream does not do EDNS, now that it has answered without it.

        Not if it has lately: then it had something against one query (RFC 6891 §7 is about servers).
        """
        upstream = attempt.upstream
        refused = self._plain >> attempt.turn % len(self._upstreams) & 1
        if refused and now - upstream.edns_at >= EDNS_SEEN_FOR:
            upstream.no_edns_until = now + NO_EDNS_FOR

    def _fail_reply(self, attempt: Attempt) -> Verdict:
        attempt.upstream.stats.failures[Failure.RCODE] += 1
        return self._refuse(attempt)

    def _refuse(self, attempt: Attempt) -> Verdict:
        """End ``attempt``, whose upstream would only repeat what it has replied."""
        self.listening -= 1
        self._refused |= 1 << attempt.turn % len(self._upstreams)
        self.last_failure = Failure.RCODE
        if self.is_waiting and attempt is not self._attempt and self.upstream is not attempt.upstream:
            return _WAIT
        self._pass_on(Failure.RCODE)
        return _NEXT

    def time_out(self, attempt: Attempt, now: float) -> bool:
        """Take the end of the time of ``attempt``; return whether replies count until its new deadline.

        If the exchange is not waiting then, the next attempt is due.
        """
        if self.is_waiting and attempt is self._attempt:
            self._record_timeout(attempt, now)
        if self.ended or now >= self.deadline or self.purpose == SPENT or self.purpose == GIVEN_UP:  # noqa: PLR1714 - a set is made for each `in`
            self.listening -= 1
            if self.purpose == SPENT:
                self._sends = MAX_SENDS
            return False
        attempt.deadline = self.deadline
        return True

    def fail_attempt(self, reason: Failure, now: float, attempt: Attempt | None = None) -> None:
        """Record that ``attempt``, the last one if None, gave nothing, and that no reply can come to it."""
        attempt = attempt or self._attempt
        self.listening -= 1
        if attempt is None or not self.is_waiting or attempt is not self._attempt:
            return
        if reason is Failure.TIMEOUT:
            self._record_timeout(attempt, now)
            return
        if reason is not Failure.LOCAL:  # then the upstream was not asked
            if self._blame(attempt):
                attempt.upstream.record_failure(reason, now)
            else:
                attempt.upstream.stats.failures[reason] += 1
        self._pass_on(reason)

    def may_resend(self, now: float, *, is_answering: bool) -> bool:
        """Tell whether an attempt that was lost with its connection is sent again, which is not another send.

        ``is_answering`` tells that the upstream has answered other queries there since this one was sent.
        """
        if not is_answering:
            self._losses += 1
        return self._losses <= MAX_LOSSES and now < self.deadline and not self.ended

    def is_superseded(self, attempt: Attempt) -> bool:
        """Return whether ``attempt`` is late, and a reply to another one counts."""
        return self.listening > 1 and attempt is not self._attempt

    def drop_attempt(self, attempt: Attempt) -> bool:
        """Listen to ``attempt`` no longer, whatever may come; return whether another one is due for it."""
        self.listening -= 1
        if not self.is_waiting or attempt is not self._attempt:
            return False
        self.is_waiting = False
        return True

    def _record_timeout(self, attempt: Attempt, now: float) -> None:
        upstream = attempt.upstream
        if self._case_lost:
            self._case_lost = False
            self.is_waiting = False
            upstream.case_lost_until = now + CASE_LOST_FOR
            upstream.stats.failures[Failure.CASE] += 1
            return
        if self._blame(attempt):
            upstream.record_timeout(now, attempt.sent_at, is_probe=self.purpose == PROBE)
        else:
            upstream.stats.failures[Failure.TIMEOUT] += 1
        self._pass_on(Failure.TIMEOUT)

    def _blame(self, attempt: Attempt) -> bool:
        """Return whether this question blames the upstream for the first time: health counts questions."""
        bit = 1 << attempt.turn % len(self._upstreams)
        is_first = not self._blamed & bit
        self._blamed |= bit
        return is_first

    def _pass_on(self, reason: Failure) -> None:
        self.last_failure = reason
        self._use_tcp = False
        self._turn += 1
        self.is_waiting = False
