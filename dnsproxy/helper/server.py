"""``dnsproxy helper`` as an object: what one configuration makes, its HTTP endpoint, and its reload."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, TypeVar

import structlog
from aiohttp import web

from dnsproxy.certificate import Certificate, http_certificate
from dnsproxy.core.memory import MIB
from dnsproxy.core.totals import ReloadView
from dnsproxy.errors import StartError
from dnsproxy.files import remove_leftovers
from dnsproxy.helper import publish
from dnsproxy.helper.assemble import group_keys, make_election, make_helper
from dnsproxy.helper.jury import Jury
from dnsproxy.helper.outlets import Outlets, make_targets
from dnsproxy.helper.publish import HelperApi, app_of
from dnsproxy.helper.service import Helper
from dnsproxy.http_listener import HttpListener, Limits, make_runner, open_socket, spare_files
from dnsproxy.keys import read_private_key
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint
from dnsproxy.supervise import in_thread, supervise
from dnsproxy.system import expand_resolvers, raise_file_limit
from dnsproxy.tokens import read_token
from dnsproxy.transport.reasons import os_reason

# Connections of which no blocking query waits.
_OTHER_CONNECTIONS = 1000
# Descriptors that are left to the helper's own work: its resolvers, registries and targets.
_SPARE_FILES = 256
# One client may have this part of the connections: many proxies may share an address behind NAT.
_CLIENT_PART = 2
# Bytes of memory for requests and for what proxies have not read yet.
_BUFFERS = 32 * MIB
# Bytes of a snapshot that the kernel keeps for a proxy, which may be far away: 2.5 MB/s at 200 ms.
_SEND_BUFFER = 256 * 1024
# Seconds that responses under way get at the end.
SHUTDOWN = 5.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Generation:
    """What one configuration makes. Making it opens nothing and changes nothing."""

    settings: Settings
    helper: Helper
    token: str | None
    certificate: Certificate | None
    resolvers: tuple[Endpoint, ...]

    @property
    def guarded(self) -> bool:
        """Whether clients need a certificate."""
        return self.settings.helper.tls.client_ca_file is not None

    @classmethod
    def make(cls, settings: Settings) -> Generation:
        """Return it.

        Raises:
            StartError: a key, token or certificate cannot be had, or there is nothing to learn; with every
                reason.
        """
        options, tls = settings.helper, settings.helper.tls
        problems: list[str] = []

        def had(get: Callable[[], _T]) -> _T | None:
            try:
                return get()
            except StartError as exc:
                problems.extend(exc.reasons)
                return None

        resolvers = had(lambda: expand_resolvers(options.resolvers))
        token_file = options.token_file
        token = None if token_file is None else had(lambda: read_token(token_file))
        certificate = had(
            lambda: http_certificate("helper.tls", tls.cert_file, tls.key_file, tls.client_ca_file)
        )
        key = had(lambda: read_private_key(options.signing_key_file))
        targets = had(
            lambda: make_targets([target for target in options.publish if target != options.office])
        )
        peers = had(lambda: group_keys(options))
        jury = had(lambda: Jury(options.canary)) if options.canary.proxies else None
        if not any(not entry.addresses for entry in settings.wanted()) and not settings.sought():
            problems.append("the helper has no name to learn: list a registry, or names without addresses")
        if problems or resolvers is None or key is None or targets is None or peers is None:
            raise StartError(*problems)
        election = make_election(options, key, peers)
        helper = make_helper(
            settings, options.id, resolvers, key, options.publish_file, Outlets(targets), election, peers
        )
        helper.jury = jury
        return cls(settings, helper, token, certificate, tuple(resolvers))


class HelperServer:
    """The helper: `start`, `run` until told to stop; `change` puts other settings in force.

    ``sock`` listens already, in place of ``helper.listen``.
    """

    def __init__(self, settings: Settings, sock: socket.socket | None = None) -> None:
        self.settings = settings
        self.reloads = ReloadView(last_success=time.time())
        self._sock = sock
        self._current: Generation | None = None
        self._renewed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._listener: HttpListener | None = None
        self._api: HelperApi | None = None

    async def start(self) -> Endpoint:
        """Open the endpoint; return its address, with the real port when port 0 was asked for.

        Raises:
            StartError: as `Generation.make`, or the port cannot be had.
        """
        settings, options = self.settings, self.settings.helper
        made = await in_thread(Generation.make, settings)
        if options.publish_file is not None:
            remove_leftovers(options.publish_file, time.time())
        most = publish.MAX_WAITERS
        room = min(most + _OTHER_CONNECTIONS, max(2, raise_file_limit() - spare_files(_SPARE_FILES)))
        api = HelperApi(
            made.helper,
            made.token,
            time.time,
            guarded=made.guarded,
            most=min(most, max(1, room * 9 // 10)),
            first_wait=publish.FIRST_WAIT,
        )
        self._runner = make_runner(app_of(api), handler_cancellation=True, seconds=SHUTDOWN)
        await self._runner.setup()
        limits = Limits(room, max(1, room // _CLIENT_PART), spare_files(_SPARE_FILES), _BUFFERS, _SEND_BUFFER)
        try:
            self._listener = _listen(self._runner, options.listen, made.certificate, self._sock, limits)
        except StartError:
            await self._runner.cleanup()
            raise
        self._current, self._api = made, api
        endpoint = Endpoint(options.listen.host, self._listener.address[1], "tcp")
        _warn_when_open(endpoint, guarded=made.token is not None or made.guarded)
        shown = [str(resolver) for resolver in made.resolvers]
        log.info("helper.started", id=options.id, names=len(made.helper.wanted), resolvers=shown)
        return endpoint

    async def change(self, settings: Settings) -> None:
        """Go by ``settings`` from now on. Proxies get what was published last until it has looked.

        Raises:
            StartError: with every reason; everything is as it was.
        """
        made = await in_thread(Generation.make, settings)
        before, api, listener = self._current, self._api, self._listener
        if before is None or api is None or listener is None:
            raise StartError("the helper has not started")
        made.helper.take_over(before.helper)
        self._current, self.settings = made, settings
        api.use(made.helper, made.token, guarded=made.guarded)
        listener.use(made.certificate)
        before.helper.release()
        self._renewed.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Look and publish, by one configuration after another, until ``stop`` is set; then close."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            before: Helper | None = None
            while self._current is not None and not stop.is_set():
                self._renewed.clear()
                helper = self._current.helper
                if before is not None:
                    helper.take_over(before)  # it may have published until it ended
                await self._work(helper, stopping)
                before = helper
        finally:
            stopping.cancel()
            await self._close()
        log.info("helper.stopped")

    async def _work(self, helper: Helper, stopping: asyncio.Task[Literal[True]]) -> None:
        """Run ``helper`` until another one takes its place or the end comes."""
        running = asyncio.ensure_future(supervise("helper", helper.run))
        renewed = asyncio.ensure_future(self._renewed.wait())
        try:
            await asyncio.wait({renewed, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # The next one begins once this one has resigned and closed its targets.
            renewed.cancel()
            running.cancel()
            await asyncio.gather(running, renewed, return_exceptions=True)

    async def _close(self) -> None:
        if self._current is not None:
            self._current.helper.release()
        if self._listener is not None:
            await self._listener.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._listener is not None:
            await self._listener.close()


async def serve_helper(
    settings: Settings,
    stop: asyncio.Event,
    on_listening: Callable[[Endpoint], object] | None = None,
    *,
    sock: socket.socket | None = None,
) -> None:
    """Run the helper until ``stop`` is set; ``sock`` listens already, in place of ``helper.listen``.

    ``on_listening`` is called with the address in use once the server accepts connections.

    Raises:
        StartError: as `HelperServer.start`.
    """
    server = HelperServer(settings, sock)
    endpoint = await server.start()
    if on_listening is not None:
        on_listening(endpoint)
    await server.run(stop)


def _listen(
    runner: web.AppRunner,
    listen: Endpoint,
    certificate: Certificate | None,
    sock: socket.socket | None,
    limits: Limits,
) -> HttpListener:
    try:
        sock = sock or open_socket(listen.host, listen.port)
    except OSError as exc:
        reason = os_reason(exc)
        raise StartError(f"helper.listen: {listen.host} port {listen.port}: {reason}") from exc
    if runner.server is None:
        raise StartError("helper.listen: the HTTP server is not set up")
    listener = HttpListener("helper", sock, runner.server, limits, certificate)
    log.info("helper.listening", address=listen.host, port=listener.address[1], tls=certificate is not None)
    return listener


def _warn_when_open(endpoint: Endpoint, *, guarded: bool) -> None:
    if not guarded and not ip_address(endpoint.host).is_loopback:
        log.warning(
            "helper.open",
            address=endpoint.host,
            port=endpoint.port,
            detail="names and addresses are open to all who reach the port; set token_file or client_ca_file",
        )
