"""Tasks that fail are started again, and the proxy that they belong to answers all the time."""

from __future__ import annotations

import ast
import asyncio
import functools
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from dnsproxy import config, daemon, supervise
from dnsproxy.address_service import AddressService
from dnsproxy.app import Proxy
from dnsproxy.core import seal
from dnsproxy.core.registry import Wanted
from dnsproxy.embedded import EmbeddedHelpers
from dnsproxy.helper.discover import Report, Target
from dnsproxy.helper.election import Election
from dnsproxy.helper.jury import Jury
from dnsproxy.helper.observe import Look
from dnsproxy.helper.outlets import Outlets, _Outlet
from dnsproxy.helper.seek import Seeker
from dnsproxy.helper.service import Helper
from dnsproxy.keys import write_key_pair
from dnsproxy.learning import LearningPipeline
from dnsproxy.net.doors import proxy_doors
from dnsproxy.net.hook import Hook
from dnsproxy.net.probe import ProbeLoop
from dnsproxy.net.puller import SnapshotPuller
from dnsproxy.reload import Reloader
from dnsproxy.settings.discovery import DiscoverSettings
from dnsproxy.settings.jury import JurySettings
from tests.fakes.etcd import Member, Store
from tests.fakes.etcd import target as etcd_target
from tests.fakes.upstream import Client
from tests.messages import addresses, query
from tests.test_server import free_port

SECONDS = 30.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(supervise, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(supervise, "LONGEST_SECONDS", 0.01)
    yield
    supervise.failures.clear()


def failed(logs: list[Any]) -> list[dict[str, Any]]:
    return [entry for entry in logs if entry["event"] == "task.failed"]


# --- the function


async def test_one_that_fails_is_started_again_and_logged_each_time() -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise RuntimeError(f"number {runs}")

    with capture_logs() as logs:
        await asyncio.wait_for(supervise.supervise("name", work, detail="more"), SECONDS)
    assert runs == 4
    assert [(entry["task"], entry["detail"], entry["log_level"]) for entry in failed(logs)] == [
        ("name", "more", "error")
    ] * 3
    assert [str(entry["exc_info"]) for entry in failed(logs)] == ["number 1", "number 2", "number 3"]
    assert supervise.failures["name"] == 3


async def test_pauses_grow_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "FIRST_SECONDS", 1.0)
    monkeypatch.setattr(supervise, "LONGEST_SECONDS", 60.0)
    monkeypatch.setattr(random, "random", lambda: 0.999)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            raise asyncio.CancelledError

    async def work() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await supervise.supervise("name", work)
    assert [round(pause) for pause in pauses] == [3, 9, 27, 60, 60, 60]


async def test_one_that_is_cancelled_from_within_is_started_again() -> None:
    """A `TaskGroup` takes a task that ends so for one that was to end, and says nothing."""
    again = asyncio.Event()
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            again.set()
            await asyncio.Event().wait()
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    task = asyncio.ensure_future(supervise.supervise("name", work))
    await asyncio.wait_for(again.wait(), SECONDS)
    assert supervise.failures["name"] == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
async def test_one_that_is_to_end_ends_even_if_that_fails(error: type[Exception] | None) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            if error is not None:
                raise error

    task = asyncio.ensure_future(supervise.supervise("name", work))
    await asyncio.wait_for(begun.wait(), SECONDS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert supervise.failures["name"] == (error is not None)


async def test_an_attempt_is_not_repeated() -> None:
    async def work() -> None:
        raise OSError("no")

    async def good() -> None:
        pass

    with capture_logs() as logs:
        assert not await supervise.attempt("name", work)
        assert await supervise.attempt("name", good)
    (entry,) = failed(logs)
    assert (entry["task"], entry["restart_in"]) == ("name", None)


async def test_what_must_be_done_is_done_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await supervise.in_thread(threading.get_ident) != threading.get_ident()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    with monkeypatch.context() as limited:
        no_threads(limited)
        assert await supervise.in_thread(threading.get_ident) == threading.get_ident()

    def fails() -> None:
        raise RuntimeError("another reason")

    with pytest.raises(RuntimeError, match="another reason"):
        await supervise.in_thread(fails)


def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


# --- a running proxy

OWNED, ADDRESS = "files.example.internal.", "10.1.2.3"
Task = tuple[str, object, str]
# The name under which it is supervised, and what is made to raise.
TASKS: list[Task] = [
    ("proxy", Proxy, "_learn"),
    ("sampling", Proxy, "_sample"),
    ("learning", LearningPipeline, "run"),
    ("sources", SnapshotPuller, "run"),
    ("sources", SnapshotPuller, "_follow"),
    ("addresses", AddressService, "run"),
    ("publication of addresses", AddressService, "_keep_published"),
    ("probes", ProbeLoop, "run"),
    ("hook", Hook, "run"),
    ("embedded helpers", EmbeddedHelpers, "run"),
    ("embedded helper", Helper, "run"),
    ("publishing", Outlets, "run"),
    ("rounds", Helper, "_look_again"),
    ("reload", Reloader, "run"),
    ("service manager", daemon, "report"),
    ("worker restarts", Proxy, "renew_workers"),
]


class Broken:
    """Raises in place of a coroutine function ``failures`` times; `again` is set when it is let through."""

    def __init__(self, work: Callable[..., Awaitable[object]], failures: int = 2) -> None:
        self._work = work
        self.left = failures
        self.again = asyncio.Event()

    async def __call__(self, *arguments: Any) -> object:
        if self.left:
            self.left -= 1
            raise RuntimeError("can't start new thread")
        self.again.set()
        return await self._work(*arguments)


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = (signal.SIGHUP, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
async def running(tmp_path: Path, handlers: None) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    """Return what starts a proxy and returns a client of it; the proxy must still run at the end."""
    write_key_pair(tmp_path)
    program = tmp_path / "changed"
    program.write_text("#!/bin/sh\nexec cat >/dev/null\n")
    program.chmod(0o755)
    file = tmp_path / "config.yaml"
    port = free_port()
    file.write_text(f"""
registries:
- name: here
  provider: generic
  names: [{{name: {OWNED}, addresses: [{ADDRESS}]}}, {{name: learned.example}}]
learn:
  sources: [{{url: "file://{tmp_path}/snapshot"}}, {{url: "dns://127.0.0.1:9"}}]
  trusted_keys: [{tmp_path}/helper.pub]
  state_file: {tmp_path}/state/learned.jws
  on_change: {program}
  verify: {{ports: []}}
serve: {{listen: ["127.0.0.1:{port}"], lameduck: 0}}
forward: {{upstreams: ["127.0.0.1:9"]}}
admin: {{listen: "127.0.0.1:{free_port()}"}}
""")
    tasks: list[asyncio.Task[None]] = []
    clients: list[Client] = []

    async def start() -> Client:
        settings = config.load(file)
        service = daemon.Service(settings, file)
        tasks.append(asyncio.ensure_future(daemon.run_proxy(service, service.open(proxy_doors(settings)))))
        clients.append(Client("127.0.0.1", port))
        await is_answered(clients[-1])
        return clients[-1]

    yield start
    for client in clients:
        await is_answered(client)
        client.__exit__()
    (task,) = tasks
    assert not task.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, SECONDS)


async def is_answered(client: Client) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                assert addresses(await client.ask(query(OWNED))) == [ADDRESS]
            except ConnectionRefusedError:  # not bound yet
                await asyncio.sleep(0.01)
            else:
                return


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize(("name", "owner", "attribute"), TASKS, ids=[f"{n}-{a}" for n, _, a in TASKS])
async def test_a_task_that_fails_is_started_again_while_queries_are_answered(
    running: Callable[[], Awaitable[Client]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    owner: Any,
    attribute: str,
) -> None:
    broken = Broken(getattr(owner, attribute))

    # A function, so that it is bound to its object.
    @functools.wraps(broken._work)
    async def replaced(*arguments: Any) -> object:
        return await broken(*arguments)

    monkeypatch.setattr(owner, attribute, replaced)
    with capture_logs() as logs:
        client = await running()
        while not broken.again.is_set():
            await is_answered(client)
            await asyncio.sleep(0)
    of_it = [entry for entry in failed(logs) if entry["task"] == name]
    assert of_it
    assert broken.left == 0
    assert {entry["task"] for entry in failed(logs)} == {name}
    assert supervise.failures[name] == len(of_it)


@pytest.mark.usefixtures("collector")
async def test_at_the_limit_of_tasks_it_starts_and_answers(
    running: Callable[[], Awaitable[Client]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The hook, the state file, sources and the admin endpoint take threads; Python 3.11 for each process."""
    with monkeypatch.context() as limited, capture_logs() as logs:
        no_threads(limited)
        client = await running()
        for _ in range(200):
            await is_answered(client)
            await asyncio.sleep(0.001)
    # What starts a process or a thread fails by itself, and no task with it.
    assert "can't start new thread" in {e["reason"] for e in logs if e["event"] == "learned.hook_failed"}
    assert all("can't start new thread" in repr(entry["exc_info"]) for entry in failed(logs))
    file = tmp_path / "config.yaml"
    file.write_text(file.read_text() + "cache: {size: 1000}\n")
    with capture_logs() as logs:
        os.kill(os.getpid(), signal.SIGHUP)
        await until_logged(logs, "config.reloaded")


async def until_logged(logs: list[Any], event: str) -> None:
    async with asyncio.timeout(SECONDS):
        while not any(entry["event"] == event for entry in logs):
            await asyncio.sleep(0.01)


# --- a running helper

HELPER_TASKS: list[Task] = [
    ("rounds", Helper, "_look_again"),
    ("publishing", Outlets, "run"),
    ("target", _Outlet, "run"),
    ("discovery", Seeker, "run"),
    ("registry", Seeker, "_follow"),
    ("canary votes", Jury, "run"),
    ("election", Election, "run"),
    ("election: published", Election, "_inform"),
    ("election: office", Election, "_stand"),
]


class Kept:
    """A target of snapshots in memory."""

    name = "kept"

    def __init__(self) -> None:
        self.token: str | None = None

    async def write(self, token: str) -> None:
        self.token = token

    async def read(self) -> str | None:
        return self.token

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("name", "owner", "attribute"), HELPER_TASKS, ids=[f"{n}-{a}" for n, _, a in HELPER_TASKS]
)
async def test_a_task_of_the_helper_that_fails_is_started_again_while_it_publishes(
    monkeypatch: pytest.MonkeyPatch, name: str, owner: Any, attribute: str
) -> None:
    broken = Broken(getattr(owner, attribute))

    @functools.wraps(broken._work)
    async def replaced(*arguments: Any) -> object:
        return await broken(*arguments)

    monkeypatch.setattr(owner, attribute, replaced)
    key = Ed25519PrivateKey.generate()
    looks = 0

    async def look(_wanted: Wanted) -> tuple[Look, ...]:
        nonlocal looks
        looks += 1
        return (Look("10.0.0.2:53", (f"10.0.0.{looks % 200}",), 60),)

    async def ask(_target: Target) -> Report:
        return Report({"auth": ()})

    target = Kept()
    async with Member(Store()) as member:
        helper = Helper(
            "helper-a",
            [Wanted("auth.example.", "auth", "r")],
            look,
            key,
            interval=30,
            outlets=Outlets([target]),
            election=Election(
                etcd_target(member, elect=True, lease="3s"),
                "helper-a",
                {seal.key_id(key.public_key()): key.public_key()},
            ),
            seeker=Seeker(
                [Target("r", "registry.example.", frozenset({"auth"}), DiscoverSettings())], ask, interval=30
            ),
            jury=Jury(JurySettings(proxies=["http://127.0.0.1:9"])),
        )
        running = asyncio.ensure_future(helper.run())
        with capture_logs() as logs:
            async with asyncio.timeout(SECONDS):
                await broken.again.wait()
                await helper.wait_first()
                # It looks and publishes on.
                while looks < 5 or target.token is None:
                    helper.look_now()
                    await asyncio.sleep(0.001)
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])
    assert {entry["task"] for entry in failed(logs)} == {name}
    assert broken.left == 0


async def test_a_look_that_fails_is_that_of_one_name() -> None:
    async def look(wanted: Wanted) -> tuple[Look, ...]:
        if wanted.name == "bad.example.":
            raise ZeroDivisionError
        return (Look("10.0.0.2:53", ("10.0.0.1",), 60),)

    names = [Wanted(f"{label}.example.", "auth", "r") for label in ("bad", "good")]
    helper = Helper("helper-a", names, look, Ed25519PrivateKey.generate(), interval=30)
    with capture_logs() as logs:
        snapshot = await helper.round()
    assert {entry.name: entry.status for entry in snapshot.names} == {
        "bad.example.": "failed",
        "good.example.": "ok",
    }
    (entry,) = failed(logs)
    assert (entry["task"], entry["detail"]) == ("look", "bad.example.")


# --- all of them

# Names of other tasks, and the test that has them fail.
ELSEWHERE = {
    "orphans": "tests/test_children.py",
    "workers": "tests/workers/test_fleet.py",
    "TLS listener": "tests/net/test_tls.py",
    "helper": "tests/helper/test_publish.py",
}


def test_each_supervised_task_has_its_test() -> None:
    package = Path(supervise.__file__).parent
    names: set[str] = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "supervise":
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    names.add(str(first.value))
    names |= {
        "addresses",
        "orphans",
        "proxy",
        "reload",
        "service manager",
        "worker restarts",
    }  # given to `Proxy.run`
    assert names == {name for name, _, _ in (*TASKS, *HELPER_TASKS)} | set(ELSEWHERE)
    for name, test in ELSEWHERE.items():
        assert f'"{name}"' in (package.parent / test).read_text(encoding="utf-8"), f"{name}: {test}"


def test_the_first_thread_needs_no_descriptor() -> None:
    """asyncio loads a module with its first thread."""
    code = """
import asyncio, resource
from dnsproxy.supervise import in_thread
async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    print(await in_thread(len, "four"))
asyncio.run(main())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("4\n", 0), run.stderr
