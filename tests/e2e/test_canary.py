"""New addresses tried on a share of the proxies first: two proxies, hosts that die, a restart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.digging import Server
from tests.e2e.processes import Process, dnsproxy_argv, run_command, wait_for
from tests.e2e.test_trust import ONE, THREE, TWO, Trial
from tests.e2e.world import REGISTRY, World, fetch

pytestmark = pytest.mark.e2e


class CanaryTrial(Trial):
    """A `Trial` whose proxy is outside the canary's share; ``leader`` is a second proxy, inside it."""

    leader: Leader

    def configured(self, *, workers: int = 1, **canary: Any) -> CanaryTrial:
        rule = {"share": "0%", "hold": "1h", "fall": 2} | canary
        learn = {**self.world.configuration()["learn"], "canary": rule}
        self.world.configure(learn=learn, serve={"workers": workers})
        self.leader = Leader(self.world)
        return self

    def begun(self) -> CanaryTrial:
        """Start with ONE, which works; then have the source region tell of TWO, which works too."""
        self.open(ONE, TWO)
        self.start(ONE)
        self.leader.start()
        self.wait_both(ONE, ONE)
        self.learn(TWO)
        return self

    def given(self) -> tuple[list[str], list[str]]:
        """Return what the proxy and the leader answer with."""
        return self.answered(), self.leader.answered()

    def wait_both(self, usual: str, leading: str) -> None:
        """Wait until the proxies answer with these; each several times, since workers take turns."""

        def settled() -> bool:
            for options in ((), ("+tcp",), (), ()):
                if (self.answered(*options), self.leader.answered(*options)) != ([usual], [leading]):
                    return False
            return True

        wait_for(settled, f"{usual} from the proxy, {leading} from the leader", deadline=20)

    def trials(self) -> list[dict[str, Any]]:
        document = json.loads(self.order("canary", "--json"))
        return list(document["canary"]["trials"])

    def restart(self) -> None:
        process = self.world.proxy
        process.stop()
        self.world.start_proxy()
        self.world.wait_ready()


class Leader:
    """A second proxy of the helper of ``world``, in the share; otherwise configured as the first is now."""

    def __init__(self, world: World) -> None:
        settings = world.configuration()
        folder = world.folder / "leader"
        folder.mkdir()
        dns_port, self.admin_port = world.take_port(), world.take_port()
        settings["serve"] |= {"listen": [f"127.0.0.1:{dns_port}"]}
        settings["admin"] |= {"listen": f"127.0.0.1:{self.admin_port}"}
        canary = settings["learn"]["canary"] | {"share": "100%"}
        settings["learn"] |= {"canary": canary, "state_file": str(folder / "learned.jws")}
        self._file = folder / "leader.yaml"
        self._file.write_text(json.dumps(settings))
        argv = dnsproxy_argv("serve", "--config", self._file)
        self._process = Process("leader", argv, folder / "leader.log")
        world.add_process(self._process)
        self._server = Server(dns_port)

    def start(self) -> None:
        """Start it and wait until it listens."""
        runs = len(self._process.events("proxy.started"))
        self._process.start(lambda: len(self._process.events("proxy.started")) > runs)

    def restart(self) -> None:
        self._process.stop()
        self.start()

    def answered(self, *options: str) -> list[str]:
        return sorted(self._server.short(REGISTRY, *options))

    def order(self, *arguments: str) -> str:
        done = run_command(*dnsproxy_argv(*arguments, "--config", self._file))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def metrics(self) -> list[str]:
        page = fetch(self.admin_port, "/metrics", {"Authorization": "Bearer a-token"})
        return page.body.decode().splitlines()


@pytest.fixture
def trial(world: World) -> Iterator[CanaryTrial]:
    with CanaryTrial(world) as made:
        yield made


def wait_trials(trial: CanaryTrial, condition: Callable[[list[dict[str, Any]]], object], what: str) -> None:
    wait_for(lambda: condition(trial.trials()), what, deadline=20)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_proxy_of_the_share_first_through_a_restart_until_an_operator_promotes(
    trial: CanaryTrial, workers: int
) -> None:
    trial.configured(workers=workers).begun().wait_both(ONE, TWO)
    (before,) = trial.trials()
    told = before["state"], before["served_to"], before["old"], before["new"]
    assert told == ("running", "none", [ONE], [TWO])
    trial.restart()
    trial.leader.restart()
    # At once, before anything has been probed again.
    assert trial.given() == ([ONE], [TWO])
    (after,) = trial.trials()
    assert (after["started_at"], after["ends_at"]) == (before["started_at"], before["ends_at"])
    path = trial.order("explain", REGISTRY)
    assert f"canary: {TWO} is on trial, answered by other proxies first" in path
    assert f"addresses: {ONE}; TTL" in path
    path = trial.leader.order("explain", REGISTRY)
    assert f"canary: {TWO} is on trial, and this proxy is one of those that answer with it" in path
    assert f"addresses: {TWO}; TTL" in path
    served = f'dnsproxy_canary_served{{name="{REGISTRY}."}}'
    assert f"{served} 0.0" in trial.metrics()
    assert f"{served} 1.0" in trial.leader.metrics()
    printed = trial.order("canary", "promote", REGISTRY)
    assert printed == f"promoted: new addresses of {REGISTRY}: {TWO} (before: {ONE})\n"
    trial.wait_both(TWO, TWO)
    assert 'dnsproxy_canary_promotions_total{reason="accepted"} 1.0' in trial.metrics()


def test_what_fails_is_rolled_back_for_good(trial: CanaryTrial) -> None:
    trial.configured().begun().wait_both(ONE, TWO)
    trial.close(TWO)
    wait_trials(trial, lambda found: found[0]["state"] == "rolled_back", "the new set is rolled back")
    trial.wait_both(ONE, ONE)
    trial.open(TWO)
    trial.restart()
    trial.wait_detail(TWO, probe={str(trial.port): "ok"})
    trial.wait_both(ONE, ONE)
    told = trial.order("canary")
    assert "rolled back at " in told
    assert f"{TWO} failed 2 times in a row" in told
    # A set that was refused is better than one that works no more.
    trial.close(ONE)
    trial.wait_both(TWO, TWO)
    assert trial.trials() == []


def test_what_held_is_kept_by_all(trial: CanaryTrial) -> None:
    trial.configured(hold="3s").begun().wait_both(TWO, TWO)
    wait_trials(trial, lambda found: found == [], "the trial has ended")
    held = 'dnsproxy_canary_promotions_total{reason="held"} 1.0'
    wait_for(lambda: held in trial.leader.metrics(), "the leader's trial has ended", deadline=20)
    assert held in trial.metrics()
    assert trial.given() == ([TWO], [TWO])


def test_an_operator_refuses_and_the_next_set_is_tried(trial: CanaryTrial) -> None:
    trial.configured(share="100%").begun()
    trial.wait_both(TWO, TWO)
    trial.order("canary", "rollback", REGISTRY)
    trial.wait_both(ONE, TWO)
    assert "refused already" in trial.order("canary", "rollback", REGISTRY, expected=1)
    trial.open(THREE)
    trial.learn(THREE)
    trial.wait_both(THREE, THREE)


def test_what_one_proxy_has_rolled_back_others_drop_without_waiting(trial: CanaryTrial) -> None:
    world = trial.world
    # The proxy outside the share would not look again for an hour.
    verify = {**world.configuration()["learn"]["verify"], "interval": "1h"}
    read_token = world.folder / "read.token"
    read_token.write_text("a-token-that-reads\n")
    world.configure(admin={"read_token_file": str(read_token)})
    trial.configured()
    world.configure(
        learn={"verify": verify},
        helper={
            "canary": {
                "proxies": [f"http://127.0.0.1:{trial.leader.admin_port}"],
                "read_token_file": str(read_token),
                "interval": "1s",
            }
        },
    )
    trial.begun().wait_both(ONE, TWO)
    trial.close(TWO)
    wait_trials(trial, lambda found: found[0]["reason"] == "fleet", "the refusal has come")
    trial.wait_both(ONE, ONE)
    (event,) = world.helper.events("helper.set_refused")
    assert (event["name"], event["new"]) == (f"{REGISTRY}.", [TWO])
