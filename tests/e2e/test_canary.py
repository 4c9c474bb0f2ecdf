"""New addresses tried on some clients first: dig from two addresses, real hosts that die, a restart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.digging import Server
from tests.e2e.processes import Process, dnsproxy_argv, wait_for
from tests.e2e.test_trust import ONE, THREE, TWO, Trial
from tests.e2e.world import REGISTRY, World

pytestmark = pytest.mark.e2e

USUAL, CANARY = "127.0.0.1", "127.0.9.1"


class CanaryTrial(Trial):
    """A `Trial` whose proxy tries new addresses on clients of 127.0.9.0/24."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.canary: dict[str, Any] = {"share": "0%", "clients": ["127.0.9.0/24"], "hold": "1h", "fall": 2}

    def configured(self, *, workers: int = 1, **canary: Any) -> CanaryTrial:
        self.canary |= canary
        learn = {**self.world.configuration()["learn"], "canary": self.canary}
        self.world.configure(learn=learn, serve={"workers": workers})
        return self

    def begun(self) -> CanaryTrial:
        """Start with ONE, which works; then have the source region tell of TWO, which works too."""
        self.open(ONE, TWO)
        self.start(ONE)
        self.wait_both(ONE, ONE)
        self.learn(TWO)
        return self

    def given(self, client: str, *options: str) -> str:
        return " ".join(sorted(self.world.server.short(REGISTRY, "-b", client, *options)))

    def wait_both(self, usual: str, canary: str) -> None:
        """Wait until clients get these; each several times, since workers take turns."""

        def settled() -> bool:
            for options in ((), ("+tcp",), (), ()):
                if (self.given(USUAL, *options), self.given(CANARY, *options)) != (usual, canary):
                    return False
            return True

        wait_for(settled, f"{usual} for usual clients, {canary} for those of the canary", deadline=20)

    def trials(self) -> list[dict[str, Any]]:
        document = json.loads(self.order("canary", "--json"))
        return list(document["canary"]["trials"])

    def other_proxy(self) -> OtherProxy:
        """Make one more proxy of the same helper, which is of the share."""
        return OtherProxy(self.world, self.canary | {"share": "100%"})

    def restart(self) -> None:
        process = self.world.proxy
        process.stop()
        self.world.start_proxy()
        self.world.wait_ready()


class OtherProxy:
    """A second proxy of the helper of ``world``, whose configuration is as it is at this time."""

    def __init__(self, world: World, canary: dict[str, Any]) -> None:
        settings = world.configuration()
        dns_port, self.admin_port = world.take_port(), world.take_port()
        settings["serve"] |= {"listen": [f"127.0.0.1:{dns_port}"]}
        settings["admin"] |= {"listen": f"127.0.0.1:{self.admin_port}"}
        settings["learn"] |= {"canary": canary, "state_file": str(world.folder / "other" / "learned.jws")}
        (world.folder / "other").mkdir()
        file = world.folder / "other.yaml"
        file.write_text(json.dumps(settings))
        log = world.folder / "other.log"
        self._process = Process("other", dnsproxy_argv("serve", "--config", file), log)
        world.add_process(self._process)
        self.server = Server(dns_port)

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process.start(lambda: bool(self._process.events("proxy.started")))


@pytest.fixture
def trial(world: World) -> Iterator[CanaryTrial]:
    with CanaryTrial(world) as made:
        yield made


def wait_trials(trial: CanaryTrial, condition: Callable[[list[dict[str, Any]]], object], what: str) -> None:
    wait_for(lambda: condition(trial.trials()), what, deadline=20)


@pytest.mark.parametrize("workers", [1, 2])
def test_some_clients_first_through_a_restart_until_an_operator_promotes(
    trial: CanaryTrial, workers: int
) -> None:
    trial.configured(workers=workers).begun().wait_both(ONE, TWO)
    (before,) = trial.trials()
    assert (before["state"], before["served_to"], before["old"], before["new"]) == (
        "running",
        "some",
        [ONE],
        [TWO],
    )
    trial.restart()
    # At once, before anything has been probed again.
    assert (trial.given(USUAL), trial.given(CANARY)) == (ONE, TWO)
    (after,) = trial.trials()
    assert (after["started_at"], after["ends_at"]) == (before["started_at"], before["ends_at"])
    told = trial.order("explain", REGISTRY, "--client", CANARY)
    assert f"canary: {TWO} is on trial, and this client is one of those that get it" in told
    assert f"addresses: {TWO}; TTL" in told
    assert f"addresses: {ONE}; TTL" in trial.order("explain", REGISTRY, "--client", USUAL)
    served = f'dnsproxy_canary_served{{clients="some",name="{REGISTRY}."}} 1.0'
    assert served in trial.metrics()
    assert trial.order("canary", "promote", REGISTRY) == "no new addresses are on trial\n"
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


def test_a_proxy_of_the_share_goes_first_and_keeps_what_held(trial: CanaryTrial) -> None:
    trial.configured(share="100%", hold="3s").begun().wait_both(TWO, TWO)
    wait_trials(trial, lambda found: found == [], "the trial has ended")
    assert trial.given(USUAL) == TWO
    assert 'dnsproxy_canary_promotions_total{reason="held"} 1.0' in trial.metrics()


def test_an_operator_refuses_and_the_next_set_is_tried(trial: CanaryTrial) -> None:
    trial.configured().begun().wait_both(ONE, TWO)
    trial.order("canary", "rollback", REGISTRY)
    trial.wait_both(ONE, ONE)
    assert "refused already" in trial.order("canary", "rollback", REGISTRY, expected=1)
    trial.open(THREE)
    trial.learn(THREE)
    trial.wait_both(ONE, THREE)


def test_what_one_proxy_has_rolled_back_others_drop_without_waiting(trial: CanaryTrial) -> None:
    world = trial.world
    # This one would not look again for an hour.
    verify = {**world.configuration()["learn"]["verify"], "interval": "1h"}
    trial.configured()
    own = world.configuration()
    other = trial.other_proxy()
    world.configure(
        learn={"verify": verify},
        helper={
            "canary": {
                "proxies": [f"http://127.0.0.1:{other.admin_port}"],
                "token_file": own["admin"]["token_file"],
                "interval": "1s",
            }
        },
    )
    trial.open(ONE, TWO)
    trial.start(ONE)
    other.start()
    trial.wait_both(ONE, ONE)
    wait_for(lambda: other.server.short(REGISTRY) == [ONE], "the other proxy answers", deadline=20)
    trial.learn(TWO)
    trial.wait_both(ONE, TWO)
    wait_for(lambda: other.server.short(REGISTRY) == [TWO], "the proxy of the share goes first", deadline=20)
    trial.close(TWO)
    wait_trials(trial, lambda found: found[0]["reason"] == "fleet", "the refusal has come")
    trial.wait_both(ONE, ONE)
    wait_for(lambda: other.server.short(REGISTRY) == [ONE], "the other one has gone back", deadline=20)
    (event,) = world.helper.events("helper.set_refused")
    assert (event["name"], event["new"]) == (f"{REGISTRY}.", [TWO])
