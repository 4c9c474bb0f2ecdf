"""The UDP listener: drain the socket, ask the engine, answer; forwarded queries are answered later."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from typing import Final

from dnsproxy.core.engine import Engine, Forward
from dnsproxy.core.pacing import BURST, Late, Pacer
from dnsproxy.core.wire import Query
from dnsproxy.errors import DropReason
from dnsproxy.net.datagrams import DatagramSocket, Token, bind_socket, fast_side
from dnsproxy.net.loop import Readiness
from dnsproxy.net.mmsg import BatchSocket
from dnsproxy.net.msghdr import BATCH
from dnsproxy.net.proxied import ProxiedSocket
from dnsproxy.net.upstream import Forwarder

# Full batches taken per wake-up before other sockets and timers get their turn.
BATCHES_PER_WAKE = 4
# Messages taken one by one per wake-up, before they are taken in batches: those of a moderate load. What the
# kernel does for one message is 3.4 us in a batch and 1 us alone.
FEW: Final = 8
# Final, that it is not looked up by its name: 100 instructions each time.
_clock: Final = time.monotonic
# Batches taken at the end: more messages than a full receive buffer holds, and no more under any load.
LAST_BATCHES: Final = 200


class UdpListener:
    """One bound socket, read by the running event loop until `close`."""

    def __init__(
        self,
        engine: Engine,
        forwarder: Forwarder,
        host: str = "",
        port: int = 0,
        *,
        sock: socket.socket | None = None,
    ) -> None:
        """Bind, or take ``sock``, which is bound and prepared, and start reading.

        Raises:
            StartError: the address cannot be bound.
        """
        self._engine = engine
        self._forwarder = forwarder
        self._sock = bind_socket(host, port) if sock is None else sock
        self._bare: DatagramSocket = fast_side(self._sock)
        self._datagrams = self._bare
        # The usual kind under its own type: the compiler then calls it directly.
        self._batch: BatchSocket | None = None
        # Once made it stays: late responses may be for clients behind a peer.
        self._proxied: ProxiedSocket | None = None
        self._expect_proxies(engine)
        self._ready = Readiness()
        self._flush_planned = False
        self._late: list[Late] = []
        self._late_bytes = 0
        self._pacer = Pacer(engine.clients, _clock())
        self._release: asyncio.TimerHandle | None = None
        self._calm = True
        self._reads = True
        self._closed = False
        self._ready.add(self._sock.fileno(), self._receive)

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are really bound."""
        name = self._sock.getsockname()
        return str(name[0]), int(name[1])

    def refit(self, engine: Engine, forwarder: Forwarder) -> None:
        """Have these answer from the next query on; what waits is answered by those before."""
        self._engine = engine
        self._forwarder = forwarder
        self._pacer.clients = engine.clients
        self._expect_proxies(engine)

    def _expect_proxies(self, engine: Engine) -> None:
        """Take headers of PROXY protocol from now on if ``engine`` has peers that send them, else none."""
        bare = self._bare
        if engine.features.proxies is None:
            self._datagrams = bare
            self._batch = bare if isinstance(bare, BatchSocket) else None
            if self._proxied is not None:
                self._proxied.engine = engine
            return
        if self._proxied is None:
            self._proxied = ProxiedSocket(bare, engine)
        self._proxied.engine = engine
        self._datagrams = self._proxied
        self._batch = None

    def _sender(self) -> DatagramSocket:
        """Return what sends late responses, whether their queries had a header or not."""
        return self._bare if self._proxied is None else self._proxied

    def finish(self) -> None:
        """Answer what has come until now, and read no more. What waits is still answered, until `close`."""
        if not self._reads:
            return
        self.drain()
        self._reads = False
        self._ready.remove(self._sock.fileno())

    def drain(self) -> None:
        """Answer what has come until now."""
        if not self._reads:
            return
        for _ in range(LAST_BATCHES):
            messages, sources = self._datagrams.receive()
            if not messages:
                break
            self._answer(messages, sources)
        self._forwarder.flush()

    def close(self) -> None:
        """Stop reading, send what is queued, and close."""
        if self._closed:
            return
        self._closed = True
        if self._reads:
            self._reads = False
            self._ready.remove(self._sock.fileno())
        self._flush()
        if self._release is not None:
            self._release.cancel()
        self._send_late(self._pacer.take_all())
        self._sock.close()

    def _receive(self) -> None:
        batch = self._batch
        if batch is not None and self._calm:
            self._calm = self._receive_few(batch)
        else:
            self._receive_batches()
        self._forwarder.flush()

    def _receive_few(self, batch: BatchSocket) -> bool:
        """Answer one message after the other; return whether there were few."""
        engine = self._engine
        now = _clock()
        answered = failed = 0
        calm = False
        for _ in range(FEW):
            message = batch.receive_one()
            if message is None:
                calm = True
                break
            step = engine.receive(message, batch.source(), now)
            if isinstance(step, bytes):
                failed += batch.answer_one(step)
                answered += 1
            elif isinstance(step, Forward):
                self._forwarder.submit(step, self._respond, batch.token(0), now)
        # One clock reading for all: each waited this long inside, at the most.
        engine.times.record(_clock() - now, answered)
        if failed:
            self._count_failed(failed)
        return calm

    def _receive_batches(self) -> None:
        for _ in range(BATCHES_PER_WAKE):
            batch = self._batch
            messages, sources = self._datagrams.receive() if batch is None else batch.receive()
            if not messages:
                break
            self._answer(messages, sources)
            if len(messages) < BATCH:
                break
        self._calm = len(messages) < FEW

    def _answer(self, messages: list[bytes], sources: Sequence[bytes]) -> None:
        now = _clock()
        steps = self._engine.receive_batch(messages, sources, now)
        answered = len(steps)
        for index, step in enumerate(steps):
            if not isinstance(step, bytes):
                answered -= 1
                if isinstance(step, Forward):
                    self._forwarder.submit(step, self._respond, self._datagrams.token(index), now)
        if answered:
            batch = self._batch
            self._count_failed(self._datagrams.answer(steps) if batch is None else batch.answer(steps))
        # As in `_receive_few`.
        self._engine.times.record(_clock() - now, answered)

    def _respond(self, token: Token, response: bytes, _query: Query) -> None:
        if self._closed:
            return  # the number of our descriptor may be another socket's by now
        if self._pacer.passes(len(response)):
            batch = self._batch
            if batch is not None and self._proxied is None:
                batch.queue(token, response)
            else:
                self._sender().queue(token, response)
        else:
            self._late.append((token, response))
            self._late_bytes += len(response)
            if self._late_bytes >= BURST:
                self._flush()  # what one round releases is not kept until its end
                return
        if not self._flush_planned:
            self._flush_planned = True
            self._ready.after(self._flush)

    def _flush(self) -> None:
        """Send responses that have waited for upstreams; not too much at once to one client."""
        self._flush_planned = False
        now = _clock()
        self._pacer.refill(now)
        self._send_late(self._pace(now) if self._late else [])

    def _pace(self, now: float) -> list[Late]:
        """Return those of the late responses that are sent now."""
        late, self._late = self._late, []
        self._late_bytes = 0
        pacer, address = self._pacer, self._sender().address
        dropped = pacer.dropped
        late = [one for one in late if pacer.passes(len(one[1])) or pacer.offer(address(one[0]), one, now)]
        if pacer.dropped != dropped:
            self._engine.stats.drops[DropReason.PACED] += pacer.dropped - dropped
        self._plan_release(now)
        return late

    def _send_late(self, late: list[Late]) -> None:
        datagrams = self._sender()
        for token, response in late:
            datagrams.queue(token, response)
        self._count_failed(datagrams.flush())

    def _plan_release(self, now: float) -> None:
        wake_at = self._pacer.wake_at
        if wake_at is not None and self._release is None:
            self._release = asyncio.get_running_loop().call_later(max(wake_at - now, 0.0), self._release_due)

    def _release_due(self) -> None:
        self._release = None
        now = _clock()
        self._send_late(self._pacer.due(now))
        self._plan_release(now)

    def _count_failed(self, failed: int) -> None:
        # The kernel refuses a response to source port 0, and to a peer without a route.
        if failed:
            self._engine.stats.drops[DropReason.SEND_FAILED] += failed
