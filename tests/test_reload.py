"""When the file is read again, and what is told of it; tests/e2e has the whole program."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dnsproxy import config
from dnsproxy.core.totals import Outcome, ReloadView
from dnsproxy.errors import ReloadError
from dnsproxy.reload import FIXED, HELPER_FIXED, HELPER_SECTIONS, Reloader
from dnsproxy.settings import Settings
from tests.test_lifecycle import Told

FIRST = "serve: {lameduck: 1s}\n"


class Proxy:
    """Takes every configuration, unless there is a ``refusal``."""

    def __init__(self, file: Path) -> None:
        self.settings = config.load(file)
        self.reloads = ReloadView()
        self.refusal: Exception | None = None
        self.taken: list[Settings] = []

    async def change(self, settings: Settings) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.settings = settings
        self.taken.append(settings)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(FIRST)
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)


def swap(path: Path, text: str) -> None:
    """Put a link to another file in place of ``path``, as Kubernetes does."""
    other, link = path.with_name("other.yaml"), path.with_name("link")
    other.write_text(text)
    link.symlink_to(other)
    link.replace(path)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def running(reloader: Reloader) -> AsyncIterator[None]:
    task = asyncio.ensure_future(reloader.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_changed_is_named_and_the_manager_is_told(file: Path) -> None:
    proxy, notifier = Proxy(file), Told()
    reloader = Reloader(file, proxy, notifier)
    write(file, "serve: {lameduck: 2s, max_tcp_clients: 7}\nreload: watch\n")
    with capture_logs() as logs:
        assert await reloader.reload() == Outcome(("reload", "serve.lameduck", "serve.max_tcp_clients"))
    assert [entry["event"] for entry in logs] == ["config.reloaded"]
    assert proxy.reloads.success
    assert proxy.reloads.last_success > 0
    assert [line for line in notifier.told if "USEC" not in line] == [
        *("RELOADING=1", "STATUS=reloading"),
        *("READY=1", "STATUS=reloaded"),
    ]


async def test_every_mistake_is_told_and_nothing_changes(file: Path) -> None:
    proxy, notifier = Proxy(file), Told()
    reloader = Reloader(file, proxy, notifier)
    before = proxy.settings
    write(file, "serve: {lameduck: no}\nforward: {policy: best}\n")
    with capture_logs() as logs:
        outcome = await reloader.reload()
    assert [problem.partition(": ")[0] for problem in outcome.problems] == [f"{file}:1", f"{file}:2"]
    assert [entry["problem"] for entry in logs] == list(outcome.problems)
    assert (proxy.settings, proxy.taken, proxy.reloads) == (before, [], ReloadView(success=False))
    assert notifier.told[-2] == "READY=1"
    assert notifier.told[-1] == f"STATUS=the configuration was not taken: {outcome.problems[0]}"
    proxy.refusal = ReloadError(["admin.listen: no", "serve.tls: no"])
    write(file, FIRST)
    assert (await reloader.reload()).problems == ("admin.listen: no", "serve.tls: no")
    proxy.refusal = None
    assert await reloader.reload() == Outcome()
    assert proxy.reloads.success


async def test_an_error_of_ours_is_none_of_the_queries(file: Path) -> None:
    proxy = Proxy(file)
    proxy.refusal = RuntimeError("a mistake")
    with capture_logs() as logs:
        outcome = await Reloader(file, proxy, Told()).reload()
    assert outcome.problems == ("an error of this program; the log has it",)
    assert [entry["event"] for entry in logs] == ["config.reload_crashed"]


async def test_what_needs_a_restart_is_named_and_stays(file: Path) -> None:
    proxy = Proxy(file)
    write(file, "serve: {lameduck: 2s, workers: 4}\nuser: root\ngroup: root\n")
    with capture_logs() as logs:
        outcome = await Reloader(file, proxy, Told()).reload()
    assert outcome == Outcome(("serve.lameduck",), ("serve.workers", "user", "group"))
    told = [(entry["key"], entry["reason"]) for entry in logs if entry["event"] == "config.needs_restart"]
    keys = ("serve.workers", "user", "group")
    assert told == [(key, FIXED[key]) for key in keys]
    assert (proxy.settings.serve.workers, proxy.settings.user, proxy.settings.group) == (1, None, None)


async def test_a_signal_is_enough_and_a_change_of_the_file_is_not(file: Path) -> None:
    proxy = Proxy(file)
    reloader = Reloader(file, proxy, Told(), watch=0.001)
    async with running(reloader):
        write(file, "serve: {lameduck: 2s}\n")
        await asyncio.sleep(0.05)
        assert proxy.taken == []
        reloader.ask()
        await until(lambda: [taken.serve.lameduck for taken in proxy.taken] == [2.0])


async def test_a_change_is_enough_where_the_settings_say_so(file: Path) -> None:
    write(file, "reload: watch\n")
    proxy = Proxy(file)
    async with running(Reloader(file, proxy, Told(), watch=0.005)):
        write(file, "reload: watch\nserve: {lameduck: 2s}\n")
        await until(lambda: len(proxy.taken) == 1)
        # A mistake is told once, and not at each look.
        write(file, "reload: watch\nserve: {lameduck: no}\n")
        with capture_logs() as logs:
            await until(lambda: not proxy.reloads.success)
            await asyncio.sleep(0.05)
        assert [entry["event"] for entry in logs] == ["config.not_taken"]
        # Kubernetes swaps a link.
        swap(file, "reload: watch\nserve: {lameduck: 3s}\n")
        await until(lambda: [taken.serve.lameduck for taken in proxy.taken] == [2.0, 3.0])


async def test_a_helper_keeps_its_address_and_reports_its_own_sections(file: Path) -> None:
    proxy = Proxy(file)
    reloader = Reloader(file, proxy, Told(), fixed=HELPER_FIXED, sections=HELPER_SECTIONS)
    write(
        file, "serve: {lameduck: 2s, workers: 4}\nhelper: {listen: '127.0.0.1:1', interval: 7s}\nuser: root\n"
    )
    outcome = await reloader.reload()
    assert outcome == Outcome(("helper.interval",), ("helper.listen", "user"))
    assert (proxy.settings.helper.listen.port, proxy.settings.helper.interval) == (8953, 7.0)
    assert (proxy.settings.user, proxy.settings.serve.workers) == (None, 4)
