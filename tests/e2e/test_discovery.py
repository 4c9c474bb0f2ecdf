"""A registry tells its other names to the helper, or to a proxy that looks itself, and clients get them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.e2e.processes import wait_for
from tests.e2e.world import AUTH, BUCKET, OTHER, OTHER_ADDRESS, REGISTRY, STORAGE, World
from tests.fakes.hooked_registry import Registry, Threaded, unauthorized
from tests.netns.authority import Authority

pytestmark = pytest.mark.e2e

# Not of the registry's region, as with real instances.
FAR_AUTH, FAR_ADDRESS = "dockerauth.cn-shanghai.aliyuncs.com", "100.103.7.180"
TOLD_BUCKET = f"cri-example123-registry.{STORAGE}"
SERVICE = "registry.aliyuncs.com:cn-hangzhou:china:cri-example123:2a"


class Teller:
    """A registry on loopback that sends clients to ``realm`` for a token, and a front end before it."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder / "ca")
        self.ca_file = authority.file
        self.realm = f"https://{FAR_AUTH}/auth"
        self.front_end_answers = False
        self.registry = Registry(authority.issue(REGISTRY), self._handle)

    async def _handle(self, _request: web.Request) -> web.StreamResponse:
        if self.front_end_answers:
            return unauthorized('Basic realm="restricted"')
        return unauthorized(f'Bearer realm="{self.realm}",service="{SERVICE}"')


@pytest.fixture
def teller(tmp_path: Path) -> Teller:
    return Teller(tmp_path)


@pytest.fixture
def telling(world: World, teller: Teller) -> Iterator[World]:
    """A source region whose resolver knows the far auth host, and a registry that can be asked there."""
    with Threaded(teller.registry) as registry:
        discover = {"port": registry.port, "ca_file": str(teller.ca_file)}
        # The registry is on loopback here, which no proxy would answer with unasked.
        names = [{"name": REGISTRY, "role": "registry", "allowed": ["127.0.0.0/8"]}]
        world.configure_registry(auth="discover", storage="discover", discover=discover, names=names)
        world.source.start()
        world.source.replace(REGISTRY, "A 127.0.0.1")
        world.source.replace(FAR_AUTH, f"A {FAR_ADDRESS}")
        world.source.replace(TOLD_BUCKET, "A 100.118.28.43")
        world.upstream.start()
        yield world


def roles(world: World) -> dict[str, str]:
    return {n["name"].removesuffix("."): n["role"] for n in world.admin("/api/v1/status").json()["names"]}


def test_what_the_registry_tells_is_owned_by_the_proxy(telling: World) -> None:
    telling.start_helper()
    telling.start_proxy()
    telling.wait_ready()
    assert telling.server.short(FAR_AUTH) == [FAR_ADDRESS]
    assert telling.server.short(TOLD_BUCKET) == ["100.118.28.43"]
    assert roles(telling) == {REGISTRY: "registry", FAR_AUTH: "auth", TOLD_BUCKET: "storage"}
    # Never the host that the region would suggest, nor another bucket.
    upstream = telling.server.dig("no.such.aliyuncs.com").rcode
    assert telling.server.dig(AUTH).rcode == telling.server.dig(BUCKET).rcode == upstream
    telling.source.replace(FAR_AUTH, "A 100.103.7.199")
    wait_for(lambda: telling.server.short(FAR_AUTH) == ["100.103.7.199"], "a change is followed")


def test_found_names_outlive_registry_helper_and_a_restart(
    world: World, teller: Teller, telling: World
) -> None:
    telling.start_helper()
    telling.start_proxy()
    telling.wait_ready()
    # From here on the realm is somebody else's: what was known stays, and it is said once.
    teller.realm = "https://dockerauth.aliyuncs.com.attacker.example/auth"
    (event,) = [
        event
        for event in wait_for(lambda: telling.helper.events("helper.discover_failed"), "the helper objects")
        if event["role"] == "auth"
    ]
    assert (event["reason"], event["kept"]) == ("foreign", [f"{FAR_AUTH}."])
    assert telling.server.short(FAR_AUTH) == [FAR_ADDRESS]
    telling.helper.kill()
    assert telling.proxy.stop() == 0
    telling.source.process.kill()
    telling.start_proxy()
    assert telling.server.short(FAR_AUTH) == [FAR_ADDRESS]
    assert telling.admin("/ready").status == 200


def test_a_front_end_that_answers_in_place_of_the_registry_withdraws_no_name(
    teller: Teller, telling: World
) -> None:
    telling.start_helper()
    telling.start_proxy()
    telling.wait_ready()
    teller.front_end_answers = True
    (event,) = wait_for(lambda: telling.helper.events("helper.discover_inconclusive"), "the helper logs it")
    assert (event["role"], event["reason"], event["kept"]) == ("auth", "no_bearer", [f"{FAR_AUTH}."])
    telling.source.replace(FAR_AUTH, "A 100.103.7.199")
    wait_for(lambda: telling.server.short(FAR_AUTH) == ["100.103.7.199"], "the name is learned still")
    assert roles(telling) == {REGISTRY: "registry", FAR_AUTH: "auth", TOLD_BUCKET: "storage"}


def test_before_the_registry_has_told_the_proxy_is_not_ready(teller: Teller, telling: World) -> None:
    teller.realm = "https://dockerauth.aliyuncs.com@attacker.example/auth"
    telling.start_helper()
    telling.start_proxy()
    wait_for(lambda: telling.server.short(REGISTRY) == ["127.0.0.1"], "the registry itself is learned")
    ready = telling.admin("/ready")
    assert ready.status == 503
    assert "hangzhou: auth (not discovered yet)" in ready.body.decode()
    assert {event["reason"] for event in telling.helper.events("helper.discover_failed")} == {"userinfo"}
    assert telling.command("status").returncode == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_p42_before_the_registry_has_told_its_hosts_are_not_forwarded(
    teller: Teller, telling: World, workers: int
) -> None:
    telling.configure(serve={"workers": workers})
    telling.start_proxy()
    hosts = [AUTH, "dockerauth-ee-vpc.cn-shanghai.aliyuncs.com", BUCKET]
    for host in hosts:
        reply = telling.server.dig(host)
        assert (reply.rcode, reply.extended_errors) == ("SERVFAIL", (14,))
    telling.start_helper()
    telling.wait_ready()
    upstream = telling.server.dig("no.such.aliyuncs.com").rcode
    assert [telling.server.dig(host).rcode for host in hosts] == [upstream] * 3


def test_auth_that_was_taken_over_needs_no_name(teller: Teller, telling: World) -> None:
    teller.realm = f"https://{REGISTRY}:{teller.registry.port}/auth"
    telling.start_helper()
    telling.start_proxy()
    telling.wait_ready()
    assert roles(telling) == {REGISTRY: "registry", TOLD_BUCKET: "storage"}


# -- without a helper -----------------------------------------------------------------


def learn_from(world: World, *sources: dict[str, str]) -> None:
    world.configure(learn={"sources": list(sources), "trusted_keys": []})


def test_a_proxy_asks_a_resolver_of_the_source_region_itself(telling: World) -> None:
    learn_from(telling, {"url": f"dns://{telling.source.endpoint}"})
    telling.start_proxy()
    telling.wait_ready()
    # It discovers too: all that a helper does happens in the proxy.
    assert telling.server.short(FAR_AUTH) == [FAR_ADDRESS]
    assert telling.server.short(OTHER) == [OTHER_ADDRESS]
    (source,) = telling.admin("/api/v1/status").json()["sources"]
    assert (source["url"], source["issuer"]) == (f"dns://{telling.source.endpoint}",) * 2
    telling.source.replace(FAR_AUTH, "A 100.103.7.199")
    wait_for(lambda: telling.server.short(FAR_AUTH) == ["100.103.7.199"], "a change is followed")
    key = telling.state_file.with_name(f"{telling.state_file.name}.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600

    telling.source.process.kill()
    assert telling.proxy.stop() == 0
    telling.start_proxy()
    assert telling.server.short(FAR_AUTH) == ["100.103.7.199"]
    assert telling.admin("/ready").status == 200
    wait_for(lambda: telling.proxy.events("helper.resolver_failed"), "the proxy finds the resolver gone")
    assert telling.server.short(FAR_AUTH) == ["100.103.7.199"]


def test_refresh_has_the_proxy_ask_the_resolver_at_once(telling: World) -> None:
    """Nothing else has it look again: the records have a TTL of an hour."""
    for name, address in ((REGISTRY, "127.0.0.1"), (FAR_AUTH, FAR_ADDRESS), (TOLD_BUCKET, "100.118.28.43")):
        telling.source.replace(name, f"A {address}", ttl=3600)
    telling.configure(helper={"interval": "3600s"})
    learn_from(telling, {"url": f"dns://{telling.source.endpoint}"})
    telling.start_proxy()
    telling.wait_ready()
    telling.source.replace(FAR_AUTH, "A 100.103.7.199", ttl=3600)
    done = telling.command("refresh")
    assert (done.returncode, done.stderr) == (0, "")
    assert telling.server.short(FAR_AUTH) == ["100.103.7.199"]
    telling.source.process.kill()
    done = telling.command("refresh")
    assert done.returncode == 1
    assert done.stderr.startswith(f"dns://{telling.source.endpoint}: not resolved: ")


def test_private_names_aliases_and_pins_come_through_a_resolver(world: World) -> None:
    vpc = world.add_unbound(
        "vpc",
        ["aliyuncs.com", "corp.internal"],
        [
            f"{REGISTRY} 5 IN A 10.94.205.198",
            "files.corp.internal 5 IN A 10.1.0.7",
            "ep-x.oss.cn-hangzhou.privatelink.aliyuncs.com 5 IN A 10.2.0.9",
        ],
    )
    names = [
        {"name": "files.corp.internal"},
        {"name": BUCKET, "role": "storage", "cname": "ep-x.oss.cn-hangzhou.privatelink.aliyuncs.com"},
        {"name": AUTH, "role": "auth", "addresses": ["10.1.2.3"]},
    ]
    world.configure_registry(auth="none", storage="none", names=names)
    learn_from(world, {"url": f"dns://{vpc.endpoint}"})
    vpc.start()
    world.upstream.start()
    world.start_proxy()
    world.wait_ready()
    assert world.server.short(REGISTRY) == ["10.94.205.198"]
    assert world.server.short("files.corp.internal") == ["10.1.0.7"]
    alias = "ep-x.oss.cn-hangzhou.privatelink.aliyuncs.com."
    assert sorted(world.server.short(BUCKET)) == ["10.2.0.9", alias]
    assert world.server.short(AUTH) == ["10.1.2.3"]


def test_a_proxy_embeds_the_helper_of_its_configuration(world: World) -> None:
    learn_from(world, {"type": "embedded"})
    world.source.start()
    world.upstream.start()
    world.start_proxy()
    world.wait_ready()
    assert world.server.short(REGISTRY) == ["10.94.205.198"]
    assert world.server.short(BUCKET) == ["100.118.28.43"]


def test_a_proxy_that_would_learn_from_itself_does_not_start(world: World) -> None:
    learn_from(world, {"url": f"dns://127.0.0.1:{world.dns_port}"})
    done = world.command("serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert "own listening address" in done.stderr
