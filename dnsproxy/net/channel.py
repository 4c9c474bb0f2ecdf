"""Connections to one upstream that carry many queries each: which one, how many, for how long.

RFC 7766 §6.2: connections are kept, and queries sent on without waiting for replies. What
goes over a connection is a matter of `Link`'s subclasses. Queries that were lost because the upstream
closed their connection are sent again on a fresh one (§6.2.4).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

import structlog

from dnsproxy.core.attempt import Attempt, Failure, Verdict
from dnsproxy.core.exchange import Exchange
from dnsproxy.core.text import printable
from dnsproxy.core.upstreams import Upstream
from dnsproxy.net.link import Ends, Link, Waiting
from dnsproxy.net.stream import UPSTREAMS, note_local
from dnsproxy.net.upstream_tls import ClientContext, name_failure
from dnsproxy.supervise import note_failure
from dnsproxy.transport.source_address import connect_socket

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Connections to one upstream at a time. More than one is opened only when each has `GROW_AT` queries
# waiting: a server that answers in order lets one slow name hold up all behind it.
MAX_LINKS = 4
GROW_AT = 32
# Queries that wait on one connection and are not late. With four this holds the default of
# `forward.max_in_flight`.
MAX_WAITING = 256
# Seconds for connecting and the TLS handshake. Longer than an attempt, so that a connection that is slow
# to come serves the queries after the one that gave it up.
CONNECT_SECONDS = 5.0
# The least time between two looks at what is late: an attempt may be given up this much late.
TICK = 0.025


class Channel:
    """All connections to ``upstream``, and their ends.

    ``resolve`` gives the addresses to connect to, or raises OSError.
    """

    def __init__(
        self,
        upstream: Upstream,
        ends: Ends,
        make_link: Callable[[Channel], Link],
        resolve: Callable[[], Awaitable[Sequence[str]]],
        context: ClientContext | None = None,
    ) -> None:
        self.upstream = upstream
        self.ends = ends
        self.context = context
        self._make_link = make_link
        self._resolve = resolve
        self._loop = asyncio.get_running_loop()
        self._links: list[Link] = []
        self._connecting: dict[Link, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._told = ""
        self._closed = False

    def ask(self, exchange: Exchange, attempt: Attempt) -> bool:
        """Send ``attempt``; False when too many queries wait already."""
        link = self._choose()
        if link is None:
            return False
        link.take(Waiting(exchange, attempt))
        self._turn_by(attempt.deadline)
        return True

    def close(self) -> None:
        """Give up everything, tell nobody."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._connecting.values():
            task.cancel()
        for link in self._links:
            link.take_all()
            link.abort()
        self._links.clear()

    # -- connections -----------------------------------------------------------------

    def _choose(self) -> Link | None:
        """Return the link with the fewest queries, a new one when each has many, None when all are full."""
        usable = [link for link in self._links if not link.retired]
        best = min(usable, key=lambda link: link.in_time, default=None)
        if best is None or (best.in_time >= GROW_AT and len(usable) < MAX_LINKS):
            return self._open()
        if best.in_time < MAX_WAITING:
            return best
        return next((link for link in usable if link.drop_given_up()), None)

    def _open(self) -> Link:
        link = self._make_link(self)
        self._links.append(link)
        task = self._loop.create_task(self._connect(link))
        self._connecting[link] = task
        task.add_done_callback(lambda _: self._connecting.pop(link, None))
        return link

    async def _connect(self, link: Link) -> None:
        failure, text = Failure.NETWORK, "no address"
        deadline = self._loop.time() + CONNECT_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                for address in await self._resolve():
                    failed = await self._try(link, address)
                    if failed is None:
                        return
                    failure, text = failed
        except TimeoutError:
            failure, text = Failure.TIMEOUT, "timed out while connecting"
        except OSError as exc:
            failure, text = name_failure(exc)
        except Exception as exc:  # noqa: BLE001 - a link that never connects would keep what is put on it
            note_failure("upstream connection", exc, detail=self.upstream.name)
            text = f"internal error: {type(exc).__name__}"
        self.lose(link, failure, text)

    async def _try(self, link: Link, address: str) -> tuple[Failure, str] | None:
        secure = self.upstream.secure
        try:
            sock = await connect_socket(
                socket.SOCK_STREAM, address, self.upstream.address[1], self.upstream.source
            )
            if self.context is None or secure is None:
                await self._loop.create_connection(lambda: link, sock=sock)
            else:
                await self._loop.create_connection(
                    lambda: link,
                    sock=sock,
                    ssl=self.context,
                    server_hostname=secure.server_name,
                    ssl_handshake_timeout=CONNECT_SECONDS,
                    ssl_shutdown_timeout=1.0,
                )
        except TimeoutError:  # the kernel's ETIMEDOUT
            return Failure.TIMEOUT, "timed out while connecting"
        except OSError as exc:
            note_local(UPSTREAMS, exc, self.ends.local_failures)
            return name_failure(exc)
        return None

    def proven(self, link: Link) -> None:
        """Note that ``link`` has given its first reply."""
        self._told = ""
        secured = link.transport.get_extra_info("ssl_object") if link.transport else None
        if self.context is not None and isinstance(secured, ssl.SSLObject):
            self.context.remember(secured)

    def lose(self, link: Link, failure: Failure, text: str) -> None:
        """Remove ``link``, which has ended: send its queries again, or fail them.

        They are sent again if the upstream has taken the connection and closed it: as idle, or after as many
        queries as it answers on one.
        """
        if self._closed or link not in self._links:
            return
        self._links.remove(link)
        # HTTP/2 and TLS errors quote the upstream.
        text = printable(text)
        now = monotonic()
        lost = link.take_all()
        if not link.has_replied and text != self._told and failure is not Failure.LOCAL:
            self._told = text
            log.warning(
                "upstream.unreachable", upstream=self.upstream.name, reason=failure.value, detail=text
            )
        is_usable = link.has_replied or (failure is Failure.NETWORK and link.transport is not None)
        again = [waiting for waiting in lost if is_usable and self._may_resend(waiting, now, link.replied_at)]
        self._resend(again)
        for waiting in lost:
            if waiting not in again:
                self.fail(waiting, failure, now)

    def fail(self, waiting: Waiting, failure: Failure, now: float) -> None:
        """See `link.Keeper.fail`."""
        waiting.exchange.fail_attempt(failure, now, waiting.attempt)
        self.ends.settle(waiting.exchange, Verdict.NEXT, now)

    def _may_resend(self, waiting: Waiting, now: float, replied_at: float) -> bool:
        is_answering = replied_at > waiting.sent_at
        return not waiting.is_given_up and waiting.exchange.may_resend(now, is_answering=is_answering)

    def send_again(self, waiting: Waiting, now: float) -> bool:
        """See `link.Keeper.send_again`."""
        if not self._may_resend(waiting, now, 0.0):
            return False
        self._resend([waiting])
        return True

    def _resend(self, again: Sequence[Waiting]) -> None:
        """Send these queries on a fresh connection: others may have been closed together with theirs."""
        if not again:
            return
        # One that has failed or been lost is still among those connecting until its task has ended.
        fresh = (
            link
            for link in self._connecting
            if link in self._links and not link.retired and link.load < MAX_WAITING
        )
        link = next(fresh, None) or self._open()
        for waiting in again:
            self.upstream.stats.sent += 1
            link.take(waiting)
            self._turn_by(waiting.attempt.deadline)

    # -- time ------------------------------------------------------------------------

    def ended(self, link: Link, now: float) -> None:
        """Note that ``link`` has done with a query."""
        if not link.load:
            link.idle_since = now
            if link.retired:
                link.close()
            else:
                self._turn_by(link.due)

    def _turn_by(self, at: float) -> None:
        """Have `_turn` run at ``at``, or earlier."""
        if self._timer is None or self._timer.when() > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._turn)

    def _turn(self) -> None:
        """Take the end of the time of queries, and close idle connections."""
        self._timer = None
        now = monotonic()
        for link in list(self._links):
            for waiting in link.time_out(now):
                self.ended(link, now)
                self.ends.settle(waiting.exchange, Verdict.NEXT, now)
            if not link.load and link not in self._connecting and now - link.idle_since >= link.idle_seconds:
                if link.retired:  # its other end has not taken what there was to be sent before
                    link.abort()
                else:
                    link.close()
                    link.idle_since = now
        if self._links and not self._closed:
            self._turn_by(max(min(link.due for link in self._links), now + TICK))
