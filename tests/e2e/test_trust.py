"""Whether a learned address is answered: listeners that die and return, orders, the operator's program."""

from __future__ import annotations

import json
import socketserver
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.e2e.processes import wait_for
from tests.e2e.world import REGISTRY, World, fetch
from tests.fakes.threaded import Threaded

pytestmark = pytest.mark.e2e

ONE, TWO, THREE = "127.0.0.2", "127.0.0.3", "127.0.0.4"
# Inside the loopback range, outside what the name is allowed.
FORBIDDEN = "127.0.0.9"


class Listener(Threaded):
    """Takes TCP connections at ``address`` while its context lasts."""

    def __init__(self, address: str, port: int) -> None:
        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        super().__init__(Server((address, port), socketserver.BaseRequestHandler))


class Trial:
    """A world with one name, whose addresses are hosts of this machine."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.port = world.take_port()
        self._listeners: dict[str, ExitStack] = {}
        world.configure_registries(
            {
                "name": "loopback",
                "provider": "generic",
                "network": {"routed": ["127.0.0.2/31"]},
                "names": [{"name": REGISTRY, "role": "registry", "allowed": ["127.0.0.0/29"]}],
            }
        )
        token = world.folder / "admin.token"
        token.write_text("a-token\n")
        verify = {"ports": [self.port], "tls": False, "interval": "200ms", "timeout": "1s"}
        world.configure(learn={"verify": verify}, admin={"token_file": str(token)})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*tuple(self._listeners))

    def start(self, *addresses: str) -> None:
        self.world.source.start()
        self.world.upstream.start()
        self.learn(*addresses)
        self.world.start_helper()
        self.world.start_proxy()
        self.world.wait_ready()

    def learn(self, *addresses: str) -> None:
        """Have the source region give these addresses."""
        self.world.source.replace(REGISTRY, *(f"A {address}" for address in addresses))

    def open(self, *addresses: str) -> None:
        for address in addresses:
            stack = self._listeners[address] = ExitStack()
            stack.enter_context(Listener(address, self.port))

    def close(self, *addresses: str) -> None:
        for address in addresses:
            self._listeners.pop(address).close()

    def answered(self, *options: str) -> list[str]:
        return sorted(self.world.server.short(REGISTRY, *options))

    def wait_answered(self, *addresses: str) -> None:
        wait_for(lambda: self.answered() == list(addresses), f"{addresses} are answered", deadline=15)

    def status(self) -> dict[str, Any]:
        document = json.loads(self.world.command("status", "--json").stdout)
        assert isinstance(document, dict)
        return document

    def detail(self, address: str) -> dict[str, Any] | None:
        (name,) = self.status()["names"]
        return next((detail for detail in name["details"] if detail["address"] == address), None)

    def wait_detail(self, address: str, **facts: Any) -> dict[str, Any]:
        """Wait until the status tells these facts of ``address``; return all that it tells."""

        def matching() -> dict[str, Any] | None:
            found = self.detail(address)
            return found if found and found.items() >= facts.items() else None

        return wait_for(matching, f"{address} is {facts}", deadline=15)

    def order(self, *arguments: str, expected: int = 0) -> str:
        done = self.world.command(*arguments)
        assert done.returncode == expected, done.stderr
        return done.stdout + done.stderr

    def metrics(self) -> list[str]:
        page = fetch(self.world.admin_port, "/metrics", {"Authorization": "Bearer a-token"})
        assert page.status == 200
        return page.body.decode().splitlines()


@pytest.fixture
def trial(world: World) -> Iterator[Trial]:
    with Trial(world) as made:
        yield made


def labels(address: str) -> str:
    return f'{{address="{address}",name="{REGISTRY}."}}'


# -- what works is answered -----------------------------------------------------------------------


def test_listener_that_dies_is_left_out_and_returns(trial: Trial) -> None:
    trial.open(ONE, TWO)
    trial.start(ONE, TWO)
    trial.wait_detail(TWO, state="serving", probe={str(trial.port): "ok"})
    assert trial.answered() == [ONE, TWO]
    trial.close(TWO)
    trial.wait_answered(ONE)
    dead = trial.wait_detail(TWO, state="held_back")
    assert dead["reason"] == f"port {trial.port}: Connection refused"
    assert f"dnsproxy_learned_unreachable{labels(TWO)} 1.0" in trial.metrics()
    assert f"dnsproxy_learned_unreachable{labels(ONE)} 0.0" in trial.metrics()
    trial.open(TWO)
    trial.wait_answered(ONE, TWO)
    (event,) = trial.world.proxy.events("learned.unreachable")
    assert (event["address"], event["name"]) == (TWO, f"{REGISTRY}.")


def test_changed_address_whose_port_is_closed_is_not_switched_to(trial: Trial) -> None:
    trial.open(ONE)
    trial.start(ONE)
    trial.learn(TWO)
    held = trial.wait_detail(TWO, state="held_back", probe={str(trial.port): "Connection refused"})
    assert held["routed"] is True
    assert trial.answered() == [ONE]
    # Not even after a restart, and without the helper.
    trial.world.helper.kill()
    assert trial.world.proxy.stop() == 0
    trial.world.start_proxy()
    assert trial.answered() == [ONE]
    trial.wait_detail(TWO, state="held_back", probe={str(trial.port): "Connection refused"})
    assert trial.answered() == [ONE]
    trial.open(TWO)
    trial.wait_answered(TWO)


def test_when_everything_is_dead_the_newest_set_is_answered(trial: Trial) -> None:
    trial.open(ONE)
    trial.start(ONE)
    trial.learn(TWO, THREE)
    trial.wait_detail(TWO, state="held_back")
    trial.close(ONE)
    trial.wait_answered(TWO, THREE)
    trial.open(ONE)
    trial.wait_answered(ONE)


def test_address_outside_the_allowed_ranges_is_refused_and_counted(trial: Trial) -> None:
    trial.open(ONE)
    trial.start(ONE)
    trial.learn(ONE, FORBIDDEN)
    refused = trial.wait_detail(FORBIDDEN, state="refused")
    assert refused["reason"] == f"loopback: {FORBIDDEN} is in 127.0.0.0/8"
    before = trial.status()["serial"]
    trial.learn(FORBIDDEN)
    wait_for(lambda: trial.status()["serial"] > before, "the proxy learns of nothing else")
    assert trial.answered() == [ONE]
    assert 'dnsproxy_learned_refused_total{reason="loopback"} 1.0' in trial.metrics()
    (event,) = trial.world.proxy.events("learned.refused")
    assert event["addresses"] == {FORBIDDEN: "loopback"}


def test_address_without_a_route_is_told_and_answered(trial: Trial) -> None:
    trial.open(ONE, THREE)
    trial.start(ONE, THREE)
    trial.wait_detail(THREE, state="serving", routed=False)
    trial.wait_detail(ONE, state="serving", routed=True)
    assert trial.answered() == [ONE, THREE]
    assert f"dnsproxy_learned_unrouted{labels(THREE)} 1.0" in trial.metrics()


# -- orders ----------------------------------------------------------------------------------------


def test_pin_holds_over_a_restart_until_unpin(trial: Trial) -> None:
    trial.open(ONE)
    trial.start(ONE)
    assert trial.order("pin", REGISTRY, "10.9.8.7") == f"pinned: {REGISTRY} to 10.9.8.7\n"
    assert trial.answered() == ["10.9.8.7"]
    assert trial.world.proxy.stop() == 0
    trial.world.start_proxy()
    assert trial.answered() == ["10.9.8.7"]
    (name,) = trial.status()["names"]
    assert (name["pinned"], name["source"], name["age"]) == (True, "pinned", None)
    trial.order("unpin", REGISTRY)
    assert trial.answered() == [ONE]
    told = trial.order("unpin", REGISTRY, expected=1)
    assert told.endswith(f": {REGISTRY}. is not pinned by an order\n")
    assert "www.example. is no name of" in trial.order("pin", "www.example", "10.9.8.7", expected=1)


def test_freeze_and_roll_back(trial: Trial) -> None:
    trial.open(ONE, TWO, THREE)
    trial.start(ONE)
    trial.learn(TWO)
    trial.wait_answered(TWO)
    trial.order("freeze")
    trial.learn(THREE)
    history = wait_for(
        lambda: found if len(found := json.loads(trial.order("history", "--json"))["history"]) == 3 else None,
        "three sets were learned",
    )
    assert trial.answered() == [TWO]
    assert [record["changes"][0]["new"] for record in history] == [[THREE], [TWO], [ONE]]
    assert [record["changes"][0]["held"] for record in history] == ["frozen", None, None]
    assert f"{TWO} → {THREE} (held: frozen)\n" in trial.order("history")
    page = fetch(trial.world.admin_port, "/", {"Authorization": "Bearer a-token", "Accept": "text/html"})
    assert page.body.decode().count(">frozen</span>") == 1
    told = trial.order("rollback", str(history[-1]["serial"]))
    assert told.startswith(f"frozen: rolled back to {history[-1]['serial']}, ")
    assert trial.answered() == [ONE]
    assert trial.world.proxy.stop() == 0
    trial.world.start_proxy()
    assert trial.answered() == [ONE]
    frozen = trial.status()["frozen"]
    assert frozen["rolled_back_to"] == history[-1]["serial"]
    assert trial.order("unfreeze") == "unfrozen: 1 names follow what is learned\n"
    trial.wait_answered(THREE)


def test_orders_need_the_token(trial: Trial) -> None:
    trial.start(ONE)
    url = f"http://127.0.0.1:{trial.world.admin_port}"
    told = trial.order("freeze", "--admin", url, expected=1)
    assert "status 401 Unauthorized: a bearer token is needed" in told
    assert trial.status()["frozen"] is None


# -- reload ----------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_after_every_reload_commands_probes_and_the_program_act_on_what_is_answered(
    trial: Trial, workers: int
) -> None:
    world, folder = trial.world, trial.world.folder
    program = write_program(folder, "cat >> told")
    world.configure(serve={"workers": workers}, learn={"on_change": str(program)})
    trial.open(ONE, TWO)
    trial.start(ONE)
    other = {"name": "other", "provider": "generic", "names": [{"name": "added.example"}]}
    registries = world.configuration()["registries"]
    steps: list[tuple[str, Callable[[], None]]] = [
        ("forward", lambda: world.configure(forward={"policy": "sequential"})),
        ("registries", lambda: world.configure_registries(*registries, other)),
        ("admin", lambda: world.configure(admin={"identity": "proxy-9"}, learn={"ttl": 7})),
    ]

    def told() -> list[Any]:
        path = folder / "told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    for number, (section, change) in enumerate(steps):
        current, following = (ONE, TWO) if number % 2 == 0 else (TWO, ONE)
        trial.order("freeze")
        change()
        assert f"changed: {section}" in trial.order("reload")
        if world.configuration()["registries"] != registries:
            assert world.server.dig("added.example").rcode == "SERVFAIL", "never forwarded"
        assert trial.answered() == [current]
        assert "frozen" in trial.order("unfreeze")
        address = f"10.9.8.{number}"
        trial.order("pin", REGISTRY, address)
        assert trial.answered() == [address]
        assert address in trial.order("explain", REGISTRY)
        wait_for(
            lambda address=address: [address] in [n["new"] for d in told() for n in d["names"]],  # type: ignore[misc]
            "the program gets the pin",
        )
        trial.order("unpin", REGISTRY)
        assert trial.answered() == [current]
        trial.learn(following)
        trial.wait_answered(following)
        newest = json.loads(trial.order("history", "--json"))["history"][0]
        assert {change["name"]: change["new"] for change in newest["changes"]} == {
            f"{REGISTRY}.": [following]
        }
    # Both are members, and one dies.
    trial.learn(ONE, TWO)
    trial.wait_answered(ONE, TWO)
    world.configure(forward={"policy": "fastest"})
    trial.order("reload")
    trial.close(TWO)
    trial.wait_answered(ONE)


# -- the operator's program ------------------------------------------------------------------------


def write_program(folder: Path, body: str) -> Path:
    path = folder / "on-change"
    path.write_text(f"#!/bin/sh\ncd {folder}\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_program_is_told_what_changes(trial: Trial) -> None:
    folder = trial.world.folder
    program = write_program(folder, "cat >> told")
    trial.world.configure(learn={"on_change": str(program)})
    trial.open(ONE)
    trial.start(ONE)

    def told() -> list[Any]:
        path = folder / "told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    wait_for(told, "the first address is told")
    trial.learn(THREE)
    wait_for(lambda: len(told()) == 2, "the change is told")
    (name,) = told()[-1]["names"]
    assert (name["old"], name["new"], name["learned"]) == ([ONE], [ONE], [THREE])
    assert told()[-1]["routes_needed"] == [THREE]
    assert trial.answered() == [ONE]


def test_a_program_that_hangs_holds_up_neither_answers_nor_the_end(trial: Trial) -> None:
    folder = trial.world.folder
    program = write_program(folder, "echo $$ > pid.new; mv pid.new pid; exec sleep 1000")
    trial.world.configure(learn={"on_change": str(program)})
    trial.open(ONE, TWO)
    trial.start(ONE)
    wait_for((folder / "pid").exists, "the program runs")
    trial.learn(TWO)
    trial.wait_answered(TWO)
    assert trial.world.proxy.stop(deadline=10) == 0
    pid = int((folder / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_a_program_that_cannot_be_run_is_one_line_at_start(trial: Trial) -> None:
    trial.world.configure(learn={"on_change": str(trial.world.folder)})
    done = trial.world.command("serve")
    assert done.returncode == 1
    assert done.stderr == f"dnsproxy: learn.on_change: {trial.world.folder}: not a file\n"
