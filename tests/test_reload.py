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
from dnsproxy.reload import HELPER, PROXY, Reloader
from dnsproxy.settings import Settings
from dnsproxy.system import ResolvConf
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


async def test_what_may_be_a_mistake_is_logged_and_taken(file: Path) -> None:
    proxy = Proxy(file)
    write(file, "registries: [{name: a, instance: x, region: cn-hangzou}]\n")
    with capture_logs() as logs:
        assert (await Reloader(file, proxy, Told()).reload()).problems == ()
    (doubt,) = [entry["problem"] for entry in logs if entry["event"] == "config.doubtful"]
    assert doubt.startswith(f"{file}:1: registries[0].region: ")
    # One that is being written is refused as a whole.
    write(file, "")
    assert (
        (await Reloader(file, proxy, Told()).reload())
        .problems[0]
        .endswith("the file is empty; {} means all defaults")
    )
    assert len(proxy.settings.registries) == 1


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
    write(file, "serve: {lameduck: 3s}\n")
    assert (await reloader.reload()).problems == ("admin.listen: no", "serve.tls: no")
    proxy.refusal = None
    assert await reloader.reload() == Outcome(("serve.lameduck",))
    assert proxy.reloads.success


async def test_equal_settings_change_nothing(file: Path) -> None:
    proxy, notifier = Proxy(file), Told()
    reloader = Reloader(file, proxy, notifier)
    before = proxy.settings
    proxy.reloads = ReloadView(success=False)
    write(file, f"# The same, written in another way.\n{FIRST}\n")
    with capture_logs() as logs:
        assert await reloader.reload() == Outcome()
    assert (proxy.taken, [entry["event"] for entry in logs]) == ([], ["config.unchanged"])
    assert proxy.settings is before
    assert proxy.reloads.success
    assert notifier.told[-2:] == ["READY=1", "STATUS=reloaded: nothing has changed"]


async def test_a_changed_file_that_equal_settings_name_is_read_again(file: Path) -> None:
    token = file.with_name("token")
    token.write_text("before")
    write(file, f"{FIRST}admin: {{token_file: {token}}}\n")
    proxy = Proxy(file)
    reloader = Reloader(file, proxy, Told())
    token.write_text("behind")
    for refusal in (ReloadError(["not now"]), None):
        # A reload that fails leaves the change to the next one.
        proxy.refusal = refusal
        outcome = await reloader.reload()
    assert (outcome, len(proxy.taken)) == (Outcome(files=(str(token),)), 1)
    assert await reloader.reload() == Outcome()
    assert len(proxy.taken) == 1


async def test_an_error_of_ours_is_none_of_the_queries(file: Path) -> None:
    proxy = Proxy(file)
    proxy.refusal = RuntimeError("a mistake")
    write(file, "serve: {lameduck: 2s}\n")
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
    assert told == [(key, PROXY.fixed[key]) for key in keys]
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
        # The view is replaced last, after the log.
        await until(lambda: proxy.reloads.last_success > 0)
        assert len(proxy.taken) == 1
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
    reloader = Reloader(file, proxy, Told(), part=HELPER)
    write(
        file, "serve: {lameduck: 2s, workers: 4}\nhelper: {listen: '127.0.0.1:1', interval: 7s}\nuser: root\n"
    )
    outcome = await reloader.reload()
    assert outcome == Outcome(("helper.interval",), ("helper.listen", "user"))
    assert (proxy.settings.helper.listen.port, proxy.settings.helper.interval) == (8953, 7.0)
    assert (proxy.settings.user, proxy.settings.serve.workers) == (None, 4)


async def test_other_nameservers_of_resolv_conf_are_put_in_force(file: Path, tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    write(conf, "nameserver 10.0.0.2\n")
    proxy = Proxy(file)
    reloader = Reloader(file, proxy, Told(), watch=0.001, resolv_conf=ResolvConf(conf))
    with capture_logs() as logs:
        async with running(reloader):
            write(conf, "")
            await until(lambda: len(logs) > 0)
            assert {entry["event"] for entry in logs} == {"resolvers.not_followed"}
            assert proxy.taken == []
            # The file of the configuration is not read for this.
            write(file, "serve: {lameduck: no}\n")
            write(conf, "nameserver 10.0.0.3\n")
            await until(lambda: len(proxy.taken) == 1)
    assert proxy.taken == [proxy.settings]
    assert [entry["resolvers"] for entry in logs if entry["event"] == "resolvers.changed"] == [
        ["10.0.0.3:53"]
    ]
    assert proxy.reloads == ReloadView()


def test_a_helper_follows_resolv_conf_for_its_own_resolvers() -> None:
    for resolvers, follows in (("[10.0.0.2]", False), ("[10.0.0.2, system]", True)):
        settings = config.parse(f"helper: {{resolvers: {resolvers}}}\nforward: {{upstreams: [system]}}\n")
        assert HELPER.follows(settings) is follows


async def test_nameservers_that_are_refused_are_not_tried_again_at_once(file: Path, tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    write(conf, "nameserver 10.0.0.2\n")
    proxy = Proxy(file)
    reloader = Reloader(file, proxy, Told(), watch=0.001, resolv_conf=ResolvConf(conf))
    proxy.refusal = ReloadError(["upstream 127.0.0.1:53 is this proxy's own listening address"])
    with capture_logs() as logs:
        async with running(reloader):
            write(conf, "nameserver 127.0.0.1\n")
            await until(lambda: len(logs) > 0)
            proxy.refusal = None
            # The same again is refused until later; a reload puts it in force.
            assert (await reloader.reload()).files == (str(conf),)
            assert len(proxy.taken) == 1
            assert await reloader.reload() == Outcome()
    assert [entry["event"] for entry in logs] == [
        "resolvers.not_followed",
        "config.reloaded",
        "config.unchanged",
    ]


async def test_resolv_conf_does_not_matter_where_no_list_names_it(file: Path, tmp_path: Path) -> None:
    write(file, "forward: {upstreams: [10.0.0.2], zones: {corp.example: [10.0.0.3]}}\n")
    assert not config.load(file).uses_system_resolvers()
    for text in ("", "forward: {upstreams: [10.0.0.2], zones: {corp.example: [system]}}\n"):
        assert config.parse(text or FIRST).uses_system_resolvers()
    embedded = "learn: {sources: [{type: embedded}]}\nforward: {upstreams: [10.0.0.2]}\n"
    assert config.parse(embedded).uses_system_resolvers()
