"""Signals, and what the service manager is told, from the start to the end of a daemon."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

import structlog

from dnsproxy.notify import Notifier

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# Seconds between two looks at how it goes, where the manager wants no sign of life.
STATUS_SECONDS = 5.0


class ServiceLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, which closes without waiting for the threads of its executor.

    Nobody answers queries by then, and one that waits for a disk or a store may take forever.
    """

    async def shutdown_default_executor(self, *limits: float | None) -> None:
        """Leave it to `close`, which takes no more work for the executor and does not wait."""


class Stop:
    """How far the end has come: ``asked`` for, then ``hurried``, which ends all waiting.

    SIGTERM asks; SIGINT, from a terminal, and any second signal hurry.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def ask(self) -> None:
        """Take a signal to end; the second one hurries."""
        (self.hurried if self.asked.is_set() else self.asked).set()

    def hurry(self) -> None:
        """Take a signal to end without delay."""
        self.asked.set()
        self.hurried.set()

    async def grace(self, seconds: float) -> None:
        """Return after ``seconds``, or as soon as it is hurried."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.hurried.wait()


def stop_on_signals() -> Stop:
    """Return what SIGTERM and SIGINT to this process set."""
    stop = Stop()
    call_on_signal(signal.SIGTERM, stop.ask)
    call_on_signal(signal.SIGINT, stop.hurry)
    return stop


def call_on_signal(number: signal.Signals, call: Callable[[], object]) -> None:
    """Have ``call`` called on the running loop at each signal ``number``."""
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(number, call)


async def report(notifier: Notifier, is_well: Callable[[], bool], status: Callable[[], str]) -> None:
    """Tell the service manager how it goes until cancelled: a sign of life only while all ``is_well``."""
    seconds = STATUS_SECONDS if notifier.watchdog is None else notifier.watchdog / 2
    was_well = True
    while True:
        if well := is_well():
            notifier.alive()
        elif was_well:
            log.error(
                "service.unwell", detail="the service manager is told nothing until queries are answered"
            )
        was_well = well
        notifier.status(status())
        await asyncio.sleep(seconds)
