from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from structlog.testing import capture_logs

from dnsproxy.lifecycle import ServiceLoop, Stop, report, stop_on_signals
from dnsproxy.net.loop import HotLoop
from dnsproxy.notify import Notifier


class Told(Notifier):
    """Keeps what it is told."""

    def __init__(self, watchdog: float | None = None) -> None:
        super().__init__("", watchdog)
        self.told: list[str] = []

    def _send(self, *lines: str) -> None:
        self.told += lines


@pytest.fixture
async def stop() -> AsyncIterator[Stop]:
    yield stop_on_signals()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


async def test_sigterm_asks_and_a_second_one_hurries(stop: Stop) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(stop.asked.wait(), 10)
    assert not stop.hurried.is_set()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(stop.hurried.wait(), 10)


async def test_sigint_hurries_at_once(stop: Stop) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(stop.hurried.wait(), 10)
    assert stop.asked.is_set()


async def test_grace_is_over_in_time_or_when_it_is_hurried() -> None:
    stop = Stop()
    await asyncio.wait_for(stop.grace(0.0), 10)
    waiting = asyncio.ensure_future(stop.grace(3600.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    stop.hurry()
    await asyncio.wait_for(waiting, 10)


async def test_no_sign_of_life_while_it_is_not_well() -> None:
    notifier = Told(watchdog=0.002)
    well = True
    with capture_logs() as logs:
        reporting = asyncio.ensure_future(report(notifier, lambda: well, lambda: "answering"))
        await until_told(notifier, 3)
        assert notifier.told[:3] == ["WATCHDOG=1", "STATUS=answering", "WATCHDOG=1"]
        well = False
        told = len(notifier.told)
        await asyncio.sleep(0.02)
        assert len(notifier.told) == told
        well = True
        await until_told(notifier, told + 1)
        reporting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reporting
    assert [entry["event"] for entry in logs] == ["service.unwell"]


async def until_told(notifier: Told, count: int) -> None:
    async with asyncio.timeout(10):
        while len(notifier.told) < count:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("make", [ServiceLoop, HotLoop])
def test_a_loop_closes_where_no_thread_can_be_started(
    make: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        await asyncio.to_thread(int)
        monkeypatch.setattr(threading.Thread, "start", start)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(work())
    monkeypatch.undo()
    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(asyncio.to_thread(int))


def test_a_daemon_ends_while_a_thread_waits_for_a_disk_or_a_store() -> None:
    code = """
import asyncio, sys, threading
from dnsproxy import cli, output
from dnsproxy.host_calls import open_service_loop
async def serve():
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    print("ended", file=sys.stderr)
def app():
    output.queue_standard_error()
    with asyncio.Runner(loop_factory=open_service_loop) as runner:
        runner.run(serve())
    raise SystemExit(3)
cli.app = app
cli.main()
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert (run.stderr, run.returncode) == ("ended\n", 3)
