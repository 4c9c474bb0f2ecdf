"""The data plane: listeners, and behind them what the configuration in force has made."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from dnsproxy import output
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.engine import Engine
from dnsproxy.core.inflight import CLIENT_WAIT
from dnsproxy.core.places import Places
from dnsproxy.core.question import zone_key
from dnsproxy.core.returns import Returns
from dnsproxy.core.totals import Traffic
from dnsproxy.net.bootstrap import Bootstrap
from dnsproxy.net.doors import Door, Doorkeeper, dns_doors
from dnsproxy.net.tcp import TcpListener
from dnsproxy.net.udp import UdpListener
from dnsproxy.net.upstream import Forwarder
from dnsproxy.outfit import Outfit
from dnsproxy.plane import Change
from dnsproxy.settings import Settings
from dnsproxy.supervise import in_thread

if TYPE_CHECKING:
    from dnsproxy.core.explain import Explanation, Question
    from dnsproxy.net.tls import TlsListener
    from dnsproxy.net.watch import Watch

# What the last attempt of a query may be late.
_SPARE_SECONDS = 0.5
# How often the end of what is under way is looked for.
_LOOK_SECONDS = 0.01
# Cached answers looked at before queries have their turn: 10 ms.
_FORGET_AT_ONCE = 5_000


class Server:
    """Listeners on every configured address, and the outfit behind them, which can be changed.

    ``watch`` is told of each query; workers share ``returns``.
    """

    def __init__(
        self,
        settings: Settings,
        watch: Watch | None = None,
        returns: Returns | None = None,
        keeper: Doorkeeper | None = None,
    ) -> None:
        """Make the outfit of ``settings``; sockets come from ``keeper``, or are given to `open`.

        Raises:
            StartError: as `Outfit`.
        """
        self._keeper = keeper or Doorkeeper()
        self._watch = watch
        self._returns = returns
        self._outfit = Outfit(settings, returns=returns)
        self._forwarder: Forwarder | None = None
        self._retired: dict[Forwarder, Engine] = {}
        self._left: list[UdpListener | TcpListener | TlsListener] = []
        serve = settings.serve
        self._places = Places(serve.max_tcp_clients, serve.max_tcp_per_client, self.engine.clients)
        self._udp: dict[Door, UdpListener] = {}
        self._streams: dict[Door, TcpListener | TlsListener] = {}

    @property
    def engine(self) -> Engine:
        """What decides at this time."""
        return self._outfit.engine

    @property
    def doors(self) -> list[Door]:
        """The doors that are served."""
        return [*self._udp, *self._streams]

    def swap_table(self, table: ServedTable) -> None:
        """Answer with the addresses of ``table`` from now on."""
        self._outfit.swap_table(table, self._outfit.engine)

    def update(self, table: ServedTable, names: Iterable[str]) -> None:
        """Answer ``names`` by ``table`` from now on; all others are as before."""
        self._outfit.update(table, names)

    @property
    def served(self) -> AbstractSet[Door]:
        """The doors that are listened on."""
        return self._udp.keys() | self._streams.keys()

    async def open(self, sockets: Mapping[Door, socket.socket] | None = None) -> None:
        """Start to answer on ``sockets``, which are this server's from now on; bind them when not given.

        Raises:
            StartError: an address cannot be bound; nothing is left open.
        """
        if sockets is None:
            doors = dns_doors(self._outfit.settings)
            self._keeper.open(doors)
            sockets = self._keeper.share(doors)
        if self._watch is not None:
            self._watch.open(self.engine.stats)
        self._forwarder = self._make_forwarder(self._outfit)
        await self._listen(sockets)

    def _make_forwarder(self, outfit: Outfit) -> Forwarder:
        forwarder = Forwarder(outfit.engine, outfit.dialer)
        if outfit.bootstrap:
            outfit.dialer.resolve = Bootstrap(forwarder, outfit.bootstrap, outfit.limits).resolve
        return forwarder

    async def _listen(self, sockets: Mapping[Door, socket.socket | None]) -> None:
        """Serve ``sockets``, and no others; those of doors that are served already are closed."""
        assert self._forwarder is not None  # noqa: S101 - both callers have made it
        forwarder = self._forwarder
        for door, sock in sockets.items():
            if sock is None:
                continue
            if door in self._udp or door in self._streams:
                sock.close()
            elif door.is_datagram:
                self._udp[door] = self._udp_listener(forwarder, sock)
            else:
                listener = self._stream_listener(door, forwarder)
                await listener.open(sock=sock)
                self._streams[door] = listener
        for left in [door for door in self._udp if door not in sockets]:
            self._leave(self._udp.pop(left))
        for left in [door for door in self._streams if door not in sockets]:
            self._leave(self._streams.pop(left))

    def _udp_listener(self, forwarder: Forwarder, sock: socket.socket) -> UdpListener:
        if self._watch is None:
            return UdpListener(self.engine, forwarder, sock=sock)
        from dnsproxy.net.watched import WatchedUdpListener  # noqa: PLC0415 - few proxies watch

        return WatchedUdpListener(self.engine, forwarder, "", 0, self._watch, sock=sock)

    def _stream_listener(self, door: Door, forwarder: Forwarder) -> TcpListener | TlsListener:
        outfit = self._outfit
        if door.kind == "tcp":
            return TcpListener(outfit.engine, forwarder, self._places, self._watch)
        # Most proxies have no such listener and do not need h2 and h11, which take 60 ms to import.
        from dnsproxy.net.tls import TlsListener  # noqa: PLC0415

        assert outfit.certificate is not None  # noqa: S101 - the settings ask for it where they listen
        path = outfit.settings.serve.tls.path
        return TlsListener(outfit.engine, forwarder, self._places, outfit.certificate, path, self._watch)

    # -- another configuration -------------------------------------------------------------

    async def prepare(self, settings: Settings) -> Change:
        """See `Plane.prepare`."""
        # In a thread: authorities take 20 ms to read, and queries are answered meanwhile.
        return _Refit(self, await in_thread(self.outfit, settings), self._keeper)

    def outfit(self, settings: Settings) -> Outfit:
        """Return what `refit` takes; nothing changes yet.

        Raises:
            StartError: as `Outfit`.
        """
        return Outfit(settings, self._outfit, self._returns, self._outfit.table)

    async def refit(self, outfit: Outfit, sockets: Mapping[Door, socket.socket | None]) -> None:
        """Answer by ``outfit`` on ``sockets`` from now on; what waits is answered by what was before.

        A door that is served already needs no socket.
        """
        before, forwarder = self._outfit, self._forwarder
        self._outfit = outfit
        outfit.engine.cache.take_over(before.engine.cache)
        if outfit.made_from is not before.table:  # it has changed since
            outfit.swap_table(before.table.managing(outfit.table.managed), before.engine)
        self._forwarder = self._make_forwarder(outfit)
        serve = outfit.settings.serve
        self._places.resize(serve.max_tcp_clients, serve.max_tcp_per_client, outfit.engine.clients)
        # Sockets and connections of addresses that are served no more answer until they are closed.
        for stream in (*self._udp.values(), *self._streams.values(), *self._left):
            if isinstance(stream, UdpListener | TcpListener):
                stream.refit(outfit.engine, self._forwarder)
            else:
                stream.refit(outfit.engine, self._forwarder, outfit.certificate, serve.tls.path)
        outfit.made_from = None
        before.engine.stats_now()  # what it has not counted yet is not lost
        await self._listen(sockets)
        if forwarder is not None:
            self._retire(forwarder, before)
        await self._forget_outdated(before)

    def _retire(self, forwarder: Forwarder, outfit: Outfit) -> None:
        """Let ``forwarder`` end what it has begun, and close it."""
        self._retired[forwarder] = outfit.engine

        def close() -> None:
            if self._retired.pop(forwarder, None) is not None:
                forwarder.close()

        asyncio.get_running_loop().call_later(outfit.limits.total + _SPARE_SECONDS, close)

    def _forwarders(self) -> tuple[Forwarder, ...]:
        return (*self._retired, *([self._forwarder] if self._forwarder else []))

    def _leave(self, listener: UdpListener | TcpListener | TlsListener) -> None:
        """Stop listening: over UDP after a while, over TCP at once but for open connections.

        A UDP socket that is open and not read would lose queries; of a closed one clients learn at once.
        """
        self._left.append(listener)
        if not isinstance(listener, UdpListener):
            listener.finish()
        self._release_later(listener)

    def _release_later(self, listener: UdpListener | TcpListener | TlsListener) -> None:
        seconds = self._outfit.limits.total + _SPARE_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._release, listener)

    def _release(self, listener: UdpListener | TcpListener | TlsListener) -> None:
        """Forget a listener that has been left, once it has no client."""
        if listener not in self._left:
            return
        if isinstance(listener, UdpListener):
            listener.finish()
            for forwarder in self._forwarders():
                forwarder.fail_waiters(listener)
            listener.close()
        elif listener.has_clients:
            self._release_later(listener)
            return
        self._left.remove(listener)

    async def _forget_outdated(self, before: Outfit) -> None:
        zones = self._outfit.outdated_zones(before)
        if not zones:
            return
        engine, rules = self._outfit.engine, before.engine.rules
        keys = list(engine.cache.keys())
        for start in range(0, len(keys), _FORGET_AT_ONCE):
            for key in keys[start : start + _FORGET_AT_ONCE]:
                name = zone_key(key[:-5], key[-5] << 8 | key[-4])
                if (rules.find_zone(name), engine.rules.find_zone(name)) in zones:
                    engine.cache.remove(key)
            engine.prepared.clear()
            # Queries come first.
            await asyncio.sleep(0)

    # -- the end -------------------------------------------------------------------------------

    async def finish(
        self,
        held: Iterable[Door] | None = None,
        quiet: float | None = None,
        most: float | None = None,
    ) -> None:
        """Answer what clients have sent, then close.

        The sockets of ``held`` (by default those that the keeper was given) stay open in another process,
        which reads their queues next: they are read to the end of the queue once, and not again. The queue of
        any other socket ends with it. So these are read until all clients have their answers, and are closed
        when the queue is empty and no client waits.

        Connections are closed when no client waits on any of them, and with ``quiet`` no client has asked for
        so many seconds. That is waited for up to ``most`` seconds, by default as long as clients
        wait for a stale answer. A client that still waits then gets a stale answer or SERVFAIL.
        """
        held = frozenset(self._keeper.given if held is None else held)
        self._keeper.close()
        for door, listener in (*self._udp.items(), *self._streams.items()):
            if door in held:
                listener.finish()
        deadline = monotonic() + (min(self._outfit.limits.total, CLIENT_WAIT) if most is None else most)
        accepts = True
        while monotonic() < deadline:
            if not self._is_busy(self._since(quiet)):
                if not accepts and self._has_drained():
                    break
                # First the connections that wait to be accepted, and what they have sent.
                accepts = False
                for stream in self._streams.values():
                    stream.finish()
            await asyncio.sleep(_LOOK_SECONDS)
        self._close_datagrams()
        await self.close()

    def _has_drained(self) -> bool:
        """Answer what has come over UDP; return whether no client waits for an upstream then."""
        for udp in self._udp.values():
            udp.drain()
        return not self._is_busy(inf)

    def _since(self, quiet: float | None) -> float:
        return inf if quiet is None else monotonic() - quiet

    def _close_datagrams(self) -> None:
        """Answer what has come over UDP, and close these sockets, with no other work in between."""
        for udp in self._udp.values():
            udp.finish()
        for forwarder in self._forwarders():
            forwarder.answer_waiters()
        for udp in self._udp.values():
            udp.close()

    def _is_busy(self, since: float) -> bool:
        engines = (self._outfit.engine, *self._retired.values())
        streams = [listener for listener in self._left if not isinstance(listener, UdpListener)]
        return any(engine.exchanges.waiters for engine in engines) or any(
            stream.is_busy(since) for stream in (*self._streams.values(), *streams)
        )

    async def close(self) -> None:
        """Stop answering at once."""
        self._keeper.close()
        for listener in (*self._udp.values(), *self._streams.values(), *self._left):
            if isinstance(listener, UdpListener):
                listener.close()
            else:
                await listener.close()
        for forwarder in self._forwarders():
            forwarder.close()
        self._retired.clear()
        self._left.clear()
        if self._watch is not None:
            await self._watch.close()

    # -- Plane: what one process answers without asking others --------------------------

    @property
    def is_well(self) -> bool:
        """Whether queries are answered: who can ask this runs on the loop that answers them."""
        return True

    async def run(self) -> None:
        """Nothing: the event loop serves the sockets."""
        await asyncio.get_running_loop().create_future()

    async def restart_workers(self) -> str | None:
        """Nothing: there are none."""
        return "serve.workers is 1: there are none"

    async def gather(self) -> None:
        """Nothing: the figures are always up to date."""

    def traffic(self) -> Traffic:
        """Return what was asked and answered since the start."""
        engine = self.engine
        upstreams = {upstream.name: upstream.stats for upstream in engine.upstreams()}
        stats = engine.stats_now()
        stats.records["program"], stats.records_lost["program"] = output.counts()
        return Traffic(stats, upstreams, len(engine.cache), engine.in_flight)

    async def flush(self, name_key: bytes | None) -> int:
        """Forget the cached answers of a name, or all; return how many."""
        return self.engine.flush(name_key)

    async def explain(self, question: Question) -> Explanation:
        """Return the path that a query would take, without taking it."""
        from dnsproxy.core.explain import explain  # noqa: PLC0415 - not needed to answer queries

        return explain(self.engine, question, monotonic())


class _Refit:
    """See `Change`."""

    def __init__(self, server: Server, outfit: Outfit, keeper: Doorkeeper) -> None:
        self._server = server
        self._outfit = outfit
        self._keeper = keeper

    async def commit(self) -> None:
        """See `Change.commit`."""
        doors = dns_doors(self._outfit.settings)
        # What is served already needs no descriptor, and perhaps none is left.
        sockets: dict[Door, socket.socket | None] = dict.fromkeys(self._keeper.numbered(doors))
        sockets |= self._keeper.share(doors, served=self._server.served)
        await self._server.refit(self._outfit, sockets)
