"""Two source regions of two clouds in one proxy, each with its own resolver, helper, key and names."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from dnsproxy.core import seal
from dnsproxy.core.learned import LearnedName, Snapshot
from dnsproxy.core.registry import Found
from dnsproxy.keys import read_private_key, write_key_pair
from tests.e2e.nameservers import Unbound
from tests.e2e.processes import Process, dnsproxy_argv, wait_for
from tests.e2e.world import AUTH, REGISTRY, World

pytestmark = pytest.mark.e2e

ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
API = "api.ecr.eu-central-1.amazonaws.com"
LAYERS = "prod-eu-central-1-starport-layer-bucket.s3.eu-central-1.amazonaws.com"
FAR = {ECR: "10.20.1.11", API: "10.20.1.12", LAYERS: "10.20.1.13"}
MOVED = "10.20.1.99"


class Regions:
    """``world`` has the proxy and Hangzhou's helper, which read one file; Frankfurt's helper has its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hangzhou = world.configuration()["registries"][0]
        frankfurt = {
            "name": "frankfurt",
            "provider": "ecr",
            "region": "eu-central-1",
            "account": "123456789012",
        }
        self.frankfurt = world.add_unbound(
            "frankfurt", ["amazonaws.com"], [f"{name} 5 IN A {address}" for name, address in FAR.items()]
        )
        self.key, self.public_key = write_key_pair(world.folder / "frankfurt-keys")
        self.stolen = world.folder / "stolen.jws"
        port = world.take_port()
        helper = {
            "id": "helper-frankfurt",
            "listen": f"127.0.0.1:{port}",
            "resolvers": [self.frankfurt.endpoint],
            "signing_key_file": str(self.key),
        }
        self.helper = self._helper(
            {"registries": [frankfurt], "helper": {**world.configuration()["helper"], **helper}}
        )
        (own,) = world.configuration()["learn"]["sources"]
        world.configure_registries(self.hangzhou, frankfurt)
        world.configure(
            learn={
                "sources": [
                    own,
                    {"url": f"http://127.0.0.1:{port}/v1/snapshot"},
                    {"url": f"file://{self.stolen}"},
                ],
                "trusted_keys": [
                    {"file": str(world.public_key), "registries": ["hangzhou"]},
                    {"file": str(self.public_key), "registries": ["frankfurt"]},
                ],
                "refresh": "300ms",
            }
        )

    def _helper(self, settings: dict[str, object]) -> Process:
        config = self.world.folder / "frankfurt.yaml"
        config.write_text(json.dumps({**settings, "log": {"format": "json"}}))
        argv = dnsproxy_argv("helper", "--config", config)
        process = Process("frankfurt-helper", argv, self.world.folder / "frankfurt-helper.log")
        self.world.add_process(process)
        return process

    def start(self) -> None:
        for source in (self.world.source, self.frankfurt, self.world.upstream):
            assert isinstance(source, Unbound)
            source.start()
        self.world.start_helper()
        self.helper.start(lambda: bool(self.helper.events("helper.started")))
        self.world.start_proxy()
        self.world.wait_ready()

    def forge(self, *entries: LearnedName, issuer: str, found: tuple[Found, ...] = ()) -> None:
        """Publish as ``issuer`` with the key of Hangzhou's helper, a little ahead of everybody else."""
        at = int(time.time()) + 120
        token = seal.sign(
            Snapshot(issuer, at * 1000, at, at + 86_400, entries, found), read_private_key(self.world.key)
        )
        replacement = Path(f"{self.stolen}.new")
        replacement.write_text(token)
        replacement.replace(self.stolen)

    def owners(self) -> dict[str, str]:
        names = self.world.admin("/api/v1/status").json()["names"]
        return {entry["name"].removesuffix("."): entry["source"] for entry in names}


@pytest.fixture
def regions(world: World) -> Regions:
    made = Regions(world)
    made.start()
    return made


def names_in(token: bytes) -> list[dict[str, Any]]:
    """Return the names in a signed snapshot, unverified."""
    payload = token.split(b".")[1]
    names: list[dict[str, Any]] = json.loads(urlsafe_b64decode(payload + b"=="))["names"]
    return names


def forged(name: str, registry: str) -> LearnedName:
    at = int(time.time()) + 120
    return LearnedName(f"{name}.", "registry", registry, ("10.66.66.66",), None, 5, at, ("10.0.0.1",), "ok")


def test_each_region_is_answered_by_what_its_own_helper_sees(regions: Regions) -> None:
    server = regions.world.server
    assert server.short(REGISTRY) == ["10.94.205.198"]
    assert {name: server.short(name) for name in FAR} == {name: [address] for name, address in FAR.items()}
    owners = regions.owners()
    assert (owners[REGISTRY], owners[AUTH]) == ("hangzhou/helper-e2e",) * 2
    assert {owners[name] for name in FAR} == {"frankfurt/helper-frankfurt"}
    # Hangzhou's helper looks for Frankfurt's names as well, in vain; that takes nothing from who knows them.
    failing = {n["name"] for n in names_in(regions.world.snapshot().body) if n["status"] == "failed"}
    assert failing == {f"{name}." for name in FAR}
    regions.frankfurt.replace(ECR, f"A {MOVED}")
    wait_for(lambda: server.short(ECR) == [MOVED], "a change in one region is followed")
    assert server.short(REGISTRY) == ["10.94.205.198"]


def test_a_stolen_key_speaks_for_its_own_region_only(regions: Regions) -> None:
    world = regions.world
    # As the other region's helper, ahead of it in serial and time, about its names.
    regions.forge(forged(ECR, "frankfurt"), forged(LAYERS, "frankfurt"), issuer="helper-frankfurt")
    wait_for(lambda: world.proxy.events("learned.rejected"), "the forgery is refused")
    assert {event["reason"] for event in world.proxy.events("learned.rejected")} == {"not_ours"}
    # With names of its own as well, and with theirs as what its own registry has told.
    told = (Found("hangzhou", "auth", (f"{ECR}.",), int(time.time())),)
    regions.forge(
        forged("no.such.aliyuncs.com", "hangzhou"),
        forged(ECR, "hangzhou"),
        forged(REGISTRY, "hangzhou"),
        issuer="frankfurt/helper-frankfurt",
        found=told,
    )
    wait_for(lambda: world.proxy.events("learned.foreign_names"), "what is not its own is left out")
    assert world.server.short(ECR) == [FAR[ECR]]
    # The other helper is still heard: nothing of the forger's stands in its way.
    regions.frankfurt.replace(ECR, f"A {MOVED}")
    wait_for(lambda: world.server.short(ECR) == [MOVED], "the other region's changes are followed")
    assert regions.owners()[ECR] == "frankfurt/helper-frankfurt"
    # After a restart, from the state file, the same holds.
    assert world.proxy.stop() == 0
    world.helper.kill()
    regions.helper.kill()
    world.start_proxy()
    assert world.server.short(ECR) == [MOVED]
    assert regions.owners()[LAYERS] == "frankfurt/helper-frankfurt"


def test_one_region_that_is_gone_leaves_the_other_as_it_is(regions: Regions) -> None:
    world = regions.world
    regions.helper.kill()
    regions.frankfurt.process.kill()
    wait_for(lambda: world.proxy.events("learned.source_failed"), "the source is found gone")
    world.source.replace(REGISTRY, "A 10.94.205.200")
    wait_for(lambda: world.server.short(REGISTRY) == ["10.94.205.200"], "the other region goes on")
    assert world.server.short(ECR) == [FAR[ECR]]
