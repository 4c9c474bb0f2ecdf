"""Carry out exchanges with upstreams: UDP by shared sockets, all else by channels (see `channel`).

No task, future or timer per query on the UDP path.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from errno import ENOBUFS
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final

import structlog

from dnsproxy.core import answers
from dnsproxy.core.attempt import Attempt, Failure, Verdict
from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.exchange import PROBE, SPENT, Exchange
from dnsproxy.core.stats import Ignored
from dnsproxy.core.upstreams import Upstream
from dnsproxy.core.wire import SERVFAIL, Query
from dnsproxy.net.channel import Channel
from dnsproxy.net.datagrams import open_mover
from dnsproxy.net.dial import Dialer
from dnsproxy.net.loop import Readiness
from dnsproxy.net.stream import UPSTREAMS, note_local
from dnsproxy.net.syscalls import LONGEST
from dnsproxy.net.upstream_udp import MANY_SOCKETS, Ids, UpstreamSocket

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# The least time between two looks at what is late: an attempt may be given up this much late.
TICK: Final = 0.025
# The most time between two looks for questions that were given up, while attempts are late.
LATE_TICK: Final = 0.5

# Reading a member of an Enum costs 80 ns each time, and a flood reads one per datagram.
_UNKNOWN_ID = Ignored.UNKNOWN_ID
_NOT_OURS = Ignored.NOT_OURS
_DONE: Final = Verdict.DONE

Respond = Callable[[Any, bytes, Query], None]
"""Called with the token and query of a waiter and the response to it."""


class Forwarder:
    """Drives every exchange of one engine to its end and tells its waiters.

    ``dialer`` makes the channels; one that knows no names is made when it is not given.
    """

    def __init__(self, engine: Engine, dialer: Dialer | None = None) -> None:
        self._engine = engine
        self._dialer = dialer or Dialer()
        self._loop = asyncio.get_running_loop()
        self._ready = Readiness()
        self._current: dict[Upstream, UpstreamSocket] = {}
        # Where attempts wait whose time is over.
        self._late: dict[Exchange, list[tuple[UpstreamSocket, bytes]]] = {}
        self._sockets: set[UpstreamSocket] = set()
        self._turn_at = inf
        self._timer: asyncio.Handle = self._loop.call_soon(self._turn)
        self._channels: dict[Upstream, Channel] = {}
        self._mover = open_mover()
        self._unsent: list[UpstreamSocket] = []
        self._ids = Ids()
        self._work = engine.exchanges
        self._wake_at = inf
        self._waker = self._loop.call_soon(self._wake)

    @property
    def local_failures(self) -> Counter[str]:
        """See `link.Ends`."""
        return self._engine.stats.local_failures

    def submit(self, forward: Forward, respond: Respond, token: object, now: float) -> bool:
        """Add a waiter to the exchange of ``forward``, and start it if it is new; `flush` sends.

        False for a copy of a query that waits already; it gets no answer of its own.
        """
        exchange = forward.exchange
        if not forward.is_new and self._work.is_copy(forward, token):
            return False
        exchange.waiters.append((forward.query, respond, token, now))
        if forward.is_new:
            self._advance(exchange, now)
        return True

    def flush(self) -> None:
        """Send the queries gathered since the last flush: one system call per socket, not per query."""
        work = self._work
        if work.begun or work.late or work.wake_at < self._wake_at:
            self._do_work()
        while self._unsent:
            used = self._unsent.pop()
            messages, used.outbox = used.outbox, []
            try:
                while messages:
                    sent = self._mover.send(used.sock, messages)
                    if not sent:
                        # As good as lost: their time runs out, which is no failure of the upstream.
                        used.unsent.update(message[:2] for message in messages)
                        note_local(UPSTREAMS, OSError(ENOBUFS, ""), self.local_failures)
                        break
                    messages = messages[sent:]
            except OSError as exc:
                self._fail_all(used, exc, monotonic())

    def answer_waiters(self) -> None:
        """Answer all clients that wait with what is known: a stale answer or SERVFAIL."""
        now = monotonic()
        # Of two exchanges that race, the other one takes the waiters over.
        while waited := self._work.waited():
            for exchange in waited:
                exchange.give_up()
                self._finish(exchange, now)
        self._do_work()

    def fail_waiters(self, listener: object) -> None:
        """Answer the clients of ``listener``, which is to close, with SERVFAIL; others continue to wait."""
        for exchange in self._work.waited():
            for index, (query, respond, token, arrived) in enumerate(exchange.waiters):
                if getattr(respond, "__self__", None) is listener:
                    respond(token, answers.error(query, SERVFAIL, answers.EDE_NO_REACHABLE_AUTHORITY), query)
                    exchange.waiters[index] = query, _pass, token, arrived

    def close(self) -> None:
        """Give up everything in flight and close all sockets."""
        self._waker.cancel()
        self._timer.cancel()
        for channel in self._channels.values():
            channel.close()
        for used in list(self._sockets):
            self._close_socket(used)

    # -- what the engine wants done beside queries ---------------------------------

    def _wake(self) -> None:
        """Let the engine do what time has brought."""
        self._wake_at = inf
        for state, name in self._work.tick(monotonic()):
            if state == "up":
                log.info("upstream.up", upstream=name)
            elif state == "down":
                log.warning("upstream.down", upstream=name)
            else:
                log.warning("upstream.loop", upstream=name)
        self.flush()

    def _do_work(self) -> None:
        work = self._work
        now = monotonic()
        late, work.late = work.late, []
        for (query, respond, token, arrived), response in late:
            respond(token, response, query)
            self._engine.stats.record_duration(now - arrived)
        while work.begun:
            self._advance(work.begun.pop(), now)
        if work.wake_at < self._wake_at:
            self._waker.cancel()
            self._wake_at = work.wake_at
            self._waker = self._loop.call_later(max(work.wake_at - now, 0.0), self._wake)

    # -- one exchange ------------------------------------------------------------

    def _advance(self, exchange: Exchange, now: float) -> None:
        """Carry out the next attempts until one is under way or none is left.

        Then the exchange ends, unless replies to late attempts may come.
        """
        while (attempt := exchange.next_attempt(now)) is not None:
            if attempt.tcp:
                if self._ask_channel(exchange, attempt):
                    return
                exchange.fail_attempt(Failure.BUSY, now)
                continue
            try:
                self._send_udp(exchange, attempt, now)
            except OSError as exc:
                exchange.fail_attempt(self._failure(exc), now)
            else:
                return
        if not exchange.listening:
            self._finish(exchange, now)

    def resume(self, exchange: Exchange, now: float) -> None:
        """Make the next attempt of ``exchange`` if one is due, or end it (see `link.Ends`)."""
        if not (exchange.is_waiting or exchange.ended):
            self._advance(exchange, now)

    def _finish(self, exchange: Exchange, now: float) -> None:
        responses = self._engine.complete(exchange, now)
        stats = self._engine.stats
        for index, response in enumerate(responses):
            query, respond, token, arrived = exchange.waiters[index]
            respond(token, response, query)
            stats.record_duration(now - arrived)
        if self._late:
            self._drop_late(exchange)
        if exchange.listening:  # a channel has it until its time is over
            exchange.waiters = []
            exchange.response, exchange.reply = None, b""

    def _drop_late(self, exchange: Exchange) -> None:
        """Listen no longer to the attempts of ``exchange`` whose time is over."""
        for used, message_id in self._late.pop(exchange, ()):
            found = used.pending.get(message_id)
            if found is not None and found[0] is exchange:
                del used.pending[message_id]
                exchange.drop_attempt(found[1])

    # -- UDP -----------------------------------------------------------------------

    def _send_udp(self, exchange: Exchange, attempt: Attempt, now: float) -> None:
        used = self._socket(attempt.upstream, now)
        message_id = self._ids.draw()
        while message_id in used.pending:
            message_id = self._ids.draw()
        if not used.outbox:
            self._unsent.append(used)
        used.outbox.append(message_id + attempt.payload)
        used.left -= 1
        used.pending[message_id] = exchange, attempt
        self._turn_by(attempt.deadline)

    def _socket(self, upstream: Upstream, now: float) -> UpstreamSocket:
        """Return the socket that carries the next query.

        Raises:
            OSError: there is none, and none can be opened.
        """
        held = self._current.get(upstream)
        if held is not None and held.takes_more(now, many=len(self._sockets) >= MANY_SOCKETS):
            return held
        try:
            used = UpstreamSocket(upstream, now)
        except OSError as exc:  # no descriptor or port is free
            if held is None:
                raise
            if held.left > 0 and now < held.last_until:
                note_local(UPSTREAMS, exc, self.local_failures)
                return held
            if held.pending:
                raise
            note_local(UPSTREAMS, exc, self.local_failures)
            # Its port has been used for long enough; its descriptor may be all that there is.
            del self._current[upstream]
            self._close_socket(held)
            used = UpstreamSocket(upstream, now)
        self._ready.add(used.sock.fileno(), partial(self._receive, used))
        self._current[upstream] = used
        self._sockets.add(used)
        self._turn_by(used.close_at)
        if held is not None and not held.pending:
            self._close_socket(held)
        return used

    def _close_socket(self, used: UpstreamSocket) -> None:
        if used in self._sockets:
            self._sockets.discard(used)
            self._ready.remove(used.sock.fileno())
            used.sock.close()

    def _receive(self, used: UpstreamSocket) -> None:
        now = monotonic()
        pending = used.pending
        try:
            replies = self._mover.receive(used.sock, len(pending) or 1)
        except OSError as exc:  # ICMP says that nobody listens there
            replies = []
            self._fail_all(used, exc, now)
        for data in replies:
            found = pending.get(data[:2])
            if found is None or found[0].ended:
                pending.pop(data[:2], None)  # its question has been answered by another reply
                used.ignore(_UNKNOWN_ID)
                continue
            exchange, attempt = found
            if len(data) < LONGEST:
                verdict = exchange.receive_reply(data, now, attempt)
            else:
                verdict = exchange.receive_cut(data, now, attempt)
            if verdict is _DONE:
                del pending[data[:2]]
                self._finish(exchange, now)
            elif verdict is Verdict.IGNORED:
                used.ignore(_NOT_OURS)
            else:
                if verdict is not Verdict.HINT:
                    del pending[data[:2]]
                self.resume(exchange, now)
        if used.strays and used.is_guessed_at:
            self._leave(used, now)
        self.flush()
        if not pending and used is not self._current.get(used.upstream):
            self._close_socket(used)

    def _leave(self, used: UpstreamSocket, now: float) -> None:
        """Ask over TCP what waits on ``used``, whose port has been found by somebody, and use it no more."""
        upstream = used.upstream
        if self._current.get(upstream) is used:
            del self._current[upstream]
            log.warning("upstream.replies_guessed", upstream=upstream.name, count=used.strays)
        # Nothing can be gained by answering a probe, and it must not go over TCP.
        for message_id, (exchange, attempt) in list(used.pending.items()):
            if exchange.purpose != PROBE:
                del used.pending[message_id]
                if exchange.drop_attempt(attempt):
                    exchange.distrust_datagrams()
                self.resume(exchange, now)

    def _failure(self, exc: OSError) -> Failure:
        """Return what ``exc`` counts as; log and count what is a failure of this host."""
        is_local = note_local(UPSTREAMS, exc, self.local_failures)
        return Failure.LOCAL if is_local else Failure.NETWORK

    def _fail_all(self, used: UpstreamSocket, exc: OSError, now: float) -> None:
        """Fail what waits on ``used``; not on other ports: a balancer may have them answered elsewhere."""
        failure = self._failure(exc)
        failed = list(used.pending.values())
        used.pending.clear()
        used.left = 0
        for exchange, attempt in failed:
            exchange.fail_attempt(failure, now, attempt)
            self.resume(exchange, now)

    def _turn_by(self, at: float) -> None:
        """Have `_turn` run at ``at``, or earlier."""
        if at >= self._turn_at:
            return
        self._timer.cancel()
        self._turn_at = at
        self._timer = self._loop.call_at(at, self._turn)

    def _turn(self) -> None:
        """Take the end of the time of attempts, close sockets that are not needed, and plan the next turn.

        Every attempt to which a reply may come is looked at. That costs less than a wheel of deadlines,
        which keeps answered exchanges in memory until their tick: 32,000 of them at 40,000
        queries per second and 0.8 s, where about 100 are in flight.
        """
        now = monotonic()
        self._turn_at = inf
        for exchange in [one for one in self._late if one.purpose >= SPENT]:
            self._drop_late(exchange)
            exchange.give_up()
            self.resume(exchange, now)
        for used in list(self._sockets):
            late = [item for item in used.pending.items() if item[1][1].deadline <= now]
            for message_id, (exchange, attempt) in late:
                if message_id in used.unsent:
                    del used.pending[message_id]
                    exchange.fail_attempt(Failure.LOCAL, now, attempt)
                elif exchange.time_out(attempt, now):
                    self._late.setdefault(exchange, []).append((used, message_id))
                else:
                    del used.pending[message_id]
                self.resume(exchange, now)
            if late and used.upstream.probe_at <= now:
                self._work.wake_at = now  # it is probed, to see whether it is down
        self.flush()
        for used in [used for used in self._sockets if not used.pending]:
            if self._current.get(used.upstream) is not used:
                self._close_socket(used)
            elif now >= used.close_at:
                del self._current[used.upstream]
                self._close_socket(used)
        self._turn_by(max(self._next_due(), now + TICK))

    def _next_due(self) -> float:
        """Return when the next attempt in flight is late, or the next idle socket to be closed."""
        due = monotonic() + LATE_TICK if self._late else inf
        for used in self._sockets:
            if not used.pending:
                due = min(due, used.close_at)
            for _, attempt in used.pending.values():
                due = min(due, attempt.deadline)
        return due

    # -- channels --------------------------------------------------------------------

    def _ask_channel(self, exchange: Exchange, attempt: Attempt) -> bool:
        channel = self._channels.get(attempt.upstream)
        if channel is None:
            channel = self._dialer.open(attempt.upstream, self, self._ids.draw)
            self._channels[attempt.upstream] = channel
        return channel.ask(exchange, attempt)

    def settle(self, exchange: Exchange, verdict: Verdict, now: float) -> None:
        """Continue after a reply that came over a channel, or an attempt that ended (see `link.Ends`)."""
        if verdict is Verdict.DONE:
            self._finish(exchange, now)
        else:
            self.resume(exchange, now)
        self.flush()


def _pass(_token: object, _response: bytes, _query: Query) -> None:
    """Take the answer for a client that has one."""
