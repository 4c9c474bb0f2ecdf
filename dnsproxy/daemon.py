"""``dnsproxy serve`` and ``dnsproxy helper`` as services: sockets and rights, then all that runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from dnsproxy import children, logs
from dnsproxy.activation import match_doors, take_descriptors
from dnsproxy.lifecycle import call_on_signal, report, stop_on_signals
from dnsproxy.net.doors import ADMIN, HELPER, Door, Doorkeeper, helper_doors
from dnsproxy.notify import Notifier
from dnsproxy.settings import Settings
from dnsproxy.supervise import supervise
from dnsproxy.system import ResolvConf

if TYPE_CHECKING:
    from dnsproxy.plane import Plane
    from dnsproxy.privileges import Account

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Service:
    """What a daemon has before it does anything: the manager's wishes, and who it is to be.

    Made before any thread and any other process is. With ``expects_sockets`` it is a fault that the manager
    gives none, as when a socket unit has failed.

    Raises:
        StartError: there is no such user, or this process may not become it.
    """

    def __init__(self, settings: Settings, file: Path, *, expects_sockets: bool = False) -> None:
        # One that comes before the start is over would end the program.
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        self.file = file
        self._settings: Settings | None = settings
        self.notifier = Notifier.from_environment()
        # Read before the resolvers are used, so that no later change is missed.
        self.resolv_conf = ResolvConf()
        self.descriptors = take_descriptors()
        self._expects_sockets = expects_sockets
        self.account: Account | None = None
        if settings.user is not None:
            from dnsproxy.privileges import find_account  # noqa: PLC0415 - few configurations ask for it

            self.account = find_account(settings.user, settings.group)

    def take_settings(self) -> Settings:
        """Return the settings, once: this object lives as long as the process, and they until a reload."""
        assert self._settings is not None  # noqa: S101 - a second call would be a bug
        settings, self._settings = self._settings, None
        return settings

    @property
    def settings(self) -> Settings:
        """The settings of the start, until they are taken."""
        assert self._settings is not None  # noqa: S101 - the same
        return self._settings

    def leave_to_others(self) -> None:
        """Give up sockets and rights, in a process that is made for work on what clients send."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        if self.account is not None:
            from dnsproxy.privileges import become  # noqa: PLC0415 - as above

            become(self.account)

    def open(self, doors: list[Door], *, shares: int = 1) -> Doorkeeper:
        """Bind all ``doors`` but those that were given, then give up the rights that this took.

        Raises:
            StartError: with every reason.
        """
        given = match_doors(self.descriptors, doors)
        missing: list[Door] = []
        if given or self._expects_sockets:
            missing = [door for door in doors if door.kind not in {ADMIN, HELPER} and door not in given]
        for door in missing:
            log.warning("service.socket_missing", listen=str(door))
        keeper = Doorkeeper(given, shares=shares, missing=len(missing))
        keeper.open(doors)
        if self.account is not None:
            from dnsproxy.privileges import BIND_SERVICE, become, give_folders  # noqa: PLC0415 - as above

            keeper.give_to(self.account.uid, self.account.gid)
            if self.settings.learn.sources:
                give_folders(self.account, [self.settings.learn.state_file.parent])
            become(self.account, keep=[BIND_SERVICE])
            log.info("service.user", user=self.account.name, uid=self.account.uid, gid=self.account.gid)
        return keeper


async def run_proxy(service: Service, keeper: Doorkeeper, plane: Plane | None = None) -> None:
    """Run ``dnsproxy serve`` until SIGTERM or SIGINT; ``plane`` answers queries, by default this process.

    Raises:
        StartError: the proxy cannot start.
        WorkerError: nobody answers queries any more.
    """
    from dnsproxy.app import Proxy  # noqa: PLC0415 - the helper does not need it
    from dnsproxy.referenced import referenced  # noqa: PLC0415 - the same
    from dnsproxy.reload import Reloader  # noqa: PLC0415 - the same

    notifier = service.notifier
    stop = stop_on_signals()
    # Before the files are read: one that changes while they are is read again by the next reload.
    references = referenced(service.settings)
    proxy = Proxy(service.take_settings(), plane, keeper)
    await proxy.start()
    reloader = Reloader(service.file, proxy, notifier, references=references, resolv_conf=service.resolv_conf)
    proxy.reloader = reloader.reload
    call_on_signal(signal.SIGHUP, reloader.ask)

    async def grace() -> None:
        seconds = 0.0 if stop.hurried.is_set() else proxy.settings.serve.lameduck
        notifier.stopping(f"draining for {seconds:g} s")
        log.info("proxy.draining", seconds=seconds)
        await stop.grace(seconds)

    call_on_signal(signal.SIGUSR2, proxy.restart_workers)
    besides: dict[str, Callable[[], Awaitable[object]]] = {
        "reload": reloader.run,
        "service manager": lambda: report(notifier, lambda: proxy.plane.is_well, proxy.status),
        "worker restarts": proxy.renew_workers,
    }
    if children.adopts_orphans():
        besides["orphans"] = children.reap_orphans
    notifier.ready(proxy.status())
    try:
        with logs.reporting():
            await proxy.run(stop.asked, grace, besides)
    finally:
        await proxy.close()


async def run_helper(service: Service, keeper: Doorkeeper) -> None:
    """Run ``dnsproxy helper`` until SIGTERM or SIGINT.

    Raises:
        StartError: the helper cannot start.
    """
    from dnsproxy import reload_socket  # noqa: PLC0415 - the proxy does not need these
    from dnsproxy.helper.server import HelperServer  # noqa: PLC0415
    from dnsproxy.referenced import referenced  # noqa: PLC0415
    from dnsproxy.reload import HELPER, Reloader  # noqa: PLC0415

    notifier = service.notifier
    stop = stop_on_signals()
    # Before the files are read, as in `run_proxy`.
    references = referenced(service.settings, HELPER.sections)
    (door,) = helper_doors(service.settings)
    helper = HelperServer(service.take_settings(), keeper.one(door))
    reloader = Reloader(
        service.file,
        helper,
        notifier,
        part=HELPER,
        references=references,
        resolv_conf=service.resolv_conf,
    )
    works: dict[str, Callable[[], Awaitable[object]]] = {
        "reload": reloader.run,
        "reload socket": lambda: reload_socket.serve(service.file, reloader.reload),
        "service manager": lambda: report(notifier, lambda: True, lambda: "publishing"),
    }
    if children.adopts_orphans():
        works["orphans"] = children.reap_orphans
    background: list[asyncio.Task[None]] = []
    try:
        with logs.reporting():
            await helper.start()
            call_on_signal(signal.SIGHUP, reloader.ask)
            background += [asyncio.ensure_future(supervise(name, work)) for name, work in works.items()]
            notifier.ready("publishing")
            await helper.run(stop.asked)
    finally:
        notifier.stopping("ending")
        keeper.close()
        for task in background:
            task.cancel()
