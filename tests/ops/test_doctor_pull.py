from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dnsproxy.ops.doctor_findings import Finding
from dnsproxy.ops.doctor_ground import Ground
from dnsproxy.ops.doctor_pull import Pull
from tests.fakes.nameserver import Nameserver
from tests.fakes.registry import AUTH, REGISTRY, STORAGE, FakeRegistry
from tests.ops.doctor_world import LOOPBACK, Host, failures


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeRegistry]:
    with FakeRegistry(tmp_path) as made:
        yield made


@pytest.fixture
async def ground(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[Ground]:
    """Names that have been answered rightly; the proxy answers on."""
    host = Host(tmp_path, registry)
    async with Nameserver(host.answer) as server:
        made = Ground(host.settings(), host.known(), "", host.site(server.endpoint))
        made.servers = [server.endpoint]
        for target in made.targets:
            target.answered = (LOOPBACK,)
        yield made


def of(ground: Ground, hop: str) -> list[Finding]:
    return [finding for finding in ground.findings if finding.hop == hop]


async def test_the_whole_way(ground: Ground) -> None:
    pull = Pull(ground)
    pull.look_for_routes()
    await pull.connect()
    await pull.shake_hands()
    await pull.follow_registries()
    await pull.visit_storage()
    assert failures(ground.findings) == []
    assert [f.subject for f in of(ground, "TLS")] == [REGISTRY, AUTH, STORAGE]
    assert [f.subject for f in of(ground, "TCP 80")] == [STORAGE]
    assert [f.seen for f in of(ground, "realm")] == [f"{AUTH} → {LOOPBACK}"]
    assert [f.seen for f in of(ground, "token service")] == ["200, an anonymous token"]


async def test_a_registry_that_gives_out_its_own_tokens(ground: Ground, registry: FakeRegistry) -> None:
    registry.realm = f"https://{REGISTRY}:{registry.port}/auth?account=x"
    await Pull(ground).follow_registries()
    assert failures(ground.findings) == []
    assert registry.asked[-1] == (REGISTRY, "/auth?account=x&service=pull.example")


@pytest.mark.parametrize(("auth", "expected"), [("discover", "OK"), ("none", "FAIL")])
async def test_a_discovered_auth_host_is_not_known_without_the_proxy(
    tmp_path: Path, registry: FakeRegistry, auth: str, expected: str
) -> None:
    host = Host(tmp_path, registry)
    settings = host.settings()
    (only,) = settings.registries
    names = tuple(entry for entry in settings.names.names if entry.role != "auth")
    changed = replace(only, discovers_auth=auth == "discover")
    async with Nameserver(host.answer) as server:
        ground = Ground(
            replace(settings, registries=(changed,), names=replace(settings.names, names=names)),
            None,
            "no proxy",
            host.site(server.endpoint),
        )
        ground.servers = [server.endpoint]
        for target in ground.targets:
            target.answered = (LOOPBACK,)
        await Pull(ground).follow_registries()
    assert [f.result.value for f in of(ground, "realm")] == [expected]
    tokens = ["200, an anonymous token"] if auth == "discover" else ["the realm is broken"]
    assert [f.seen for f in of(ground, "token service")] == tokens


async def test_a_registry_that_asks_for_nothing(ground: Ground, registry: FakeRegistry) -> None:
    registry.statuses["/v2/"] = 200
    await Pull(ground).follow_registries()
    assert [f.result.value for f in ground.findings] == ["OK", "SKIP", "SKIP"]


@pytest.mark.parametrize(("provider", "told"), [("ecr", "passwords come from api.ecr"), ("generic", "")])
async def test_a_registry_without_token_service_is_in_order(
    ground: Ground, registry: FakeRegistry, provider: str, told: str
) -> None:
    registry.challenge = f'Basic realm="https://{REGISTRY}/",service="ecr.amazonaws.com"'
    (only,) = ground.settings.registries
    ground.settings = replace(ground.settings, registries=(replace(only, provider=provider),))
    await Pull(ground).follow_registries()
    assert [f.result.value for f in ground.findings] == ["OK", "SKIP", "SKIP"]
    (realm,) = of(ground, "realm")
    assert realm.seen.startswith("no Bearer challenge: no token service is needed")
    assert ("api.ecr" in realm.seen) == bool(told)
    assert told in realm.seen


async def test_what_is_broken_before_is_not_visited(ground: Ground, registry: FakeRegistry) -> None:
    for target in ground.targets:
        target.broken = "gone"
    pull = Pull(ground)
    pull.look_for_routes()
    await pull.connect()
    await pull.shake_hands()
    await pull.follow_registries()
    await pull.visit_storage()
    assert {(f.result.value, f.seen) for f in ground.findings} == {("SKIP", "gone")}
    assert registry.asked == []


async def test_a_token_service_that_was_found_broken_is_not_visited_again(ground: Ground) -> None:
    ground.targets[1].broken = "port 443 is closed"
    await Pull(ground).follow_registries()
    (token,) = of(ground, "token service")
    assert (token.subject, token.result.value, token.seen) == (AUTH, "SKIP", "port 443 is closed")


async def test_an_authority_on_another_host_is_not_checked(ground: Ground, registry: FakeRegistry) -> None:
    assert ground.settings.ca_file == registry.authority.file
    ground.settings = replace(ground.settings, ca_file=Path("/nowhere/ca.pem"), is_remote=True)
    pull = Pull(ground)
    await pull.shake_hands()
    await pull.visit_storage()
    reason = "the authority is in /nowhere/ca.pem of the proxy's host; give --config"
    assert {f.seen for f in of(ground, "TLS")} == {reason}
    assert [f.result.value for f in of(ground, "storage")] == ["OK"]
