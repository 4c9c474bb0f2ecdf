from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dnsproxy.core.registry import Wanted
from dnsproxy.errors import ResolveError
from dnsproxy.helper.assemble import Directory, make_helper, targets
from dnsproxy.settings import Settings
from tests.fakes.nameserver import Nameserver, zone
from tests.settings.mistakes import ACR

HOST = "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
ZONE = """
registry.example. 60 A 10.0.0.1
registry.example. 60 AAAA fd00::1
ep.privatelink.example. 60 A 10.0.0.9
"""


def settings(*registries: Mapping[str, Any]) -> Settings:
    return Settings.model_validate({"registries": list(registries), "helper": {"interval": "7s"}})


async def test_a_directory_asks_its_resolvers_for_both_families() -> None:
    async with Nameserver(zone(ZONE)) as server:
        directory = Directory([], [server.endpoint])
        assert await directory.addresses_of("registry.example.") == ("10.0.0.1", "fd00::1")


async def test_a_directory_knows_pins_and_aliases() -> None:
    wanted = [
        Wanted("pinned.example.", "registry", "r", addresses=("10.1.2.3",)),
        Wanted("bucket.example.", "storage", "r", cname="ep.privatelink.example."),
    ]
    async with Nameserver(zone(ZONE)) as server:
        directory = Directory(wanted, [server.endpoint])
        assert await directory.addresses_of("pinned.example.") == ("10.1.2.3",)
        assert await directory.addresses_of("bucket.example.") == ("10.0.0.9",)
    assert {name for name, _, _ in server.queries} == {"ep.privatelink.example."}


async def test_a_directory_says_what_every_resolver_said() -> None:
    async with Nameserver(zone(ZONE)) as server:
        with pytest.raises(ResolveError, match="NXDOMAIN"):
            await Directory([], [server.endpoint]).addresses_of("absent.example.")


def test_targets_are_the_registries_that_can_tell() -> None:
    generic = {"provider": "generic", "names": [{"name": "a.example", "role": "registry"}]}
    other = {**generic, "names": [{"name": "b.example", "role": "registry"}]}
    read = settings(
        {**ACR, "storage": "discover", "discover": {"port": 5000}},
        {**ACR, "name": "regional", "instance": "other", "auth": "regional"},
        {**other, "name": "plain"},
        {**generic, "name": "asked", "auth": "discover"},
    )
    assert [(target.label, target.host, sorted(target.roles)) for target in targets(read)] == [
        ("hz", HOST, ["auth", "storage"]),
        ("asked", "a.example.", ["auth"]),
    ]
    assert targets(read)[0].options.port == 5000


async def test_the_helper_looks_at_what_is_configured() -> None:
    read = settings(
        {"name": "r", "provider": "generic", "names": [{"name": "registry.example", "role": "registry"}]}
    )
    async with Nameserver(zone(ZONE)) as server:
        helper = make_helper(read, "me", [server.endpoint], Ed25519PrivateKey.generate())
        snapshot = await helper.round()
    assert [(entry.name, entry.addresses) for entry in snapshot.names] == [
        ("registry.example.", ("10.0.0.1", "fd00::1"))
    ]
    assert (snapshot.issuer, snapshot.found, helper.failing) == ("me", (), False)
