from __future__ import annotations

from pathlib import Path

import pytest

from dnsproxy import config
from dnsproxy.core.providers import PROVIDERS
from dnsproxy.settings import Settings
from tests.e2e.processes import ROOT, dnsproxy_argv, run_command

EXAMPLES = sorted((ROOT / "deploy" / "examples").glob("*.yaml"))


def load(name: str) -> Settings:
    return config.load(ROOT / "deploy" / "examples" / f"{name}.yaml")


def test_every_provider_has_an_example() -> None:
    assert {path.stem for path in EXAMPLES} == (set(PROVIDERS) - {"generic"}) | {"clouds"}
    for key in set(PROVIDERS) - {"generic"}:
        assert [registry.provider for registry in load(key).registries] == [key]


@pytest.mark.deploy
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_program_finds_nothing_wrong(path: Path) -> None:
    done = run_command(*dnsproxy_argv("check", path))
    assert done.returncode == 0
    # Its files are on the hosts that it is for.
    wrong = [line for line in done.stderr.splitlines() if "warning" not in line or "No such file" not in line]
    assert wrong == []
    assert f"{path}: ok, " in done.stdout


def test_what_the_examples_own() -> None:
    assert [entry.name for entry in load("ecr").wanted()] == [
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com.",
        "api.ecr.eu-central-1.amazonaws.com.",
        "prod-eu-central-1-starport-layer-bucket.s3.eu-central-1.amazonaws.com.",
    ]
    assert [entry.name for entry in load("azure").wanted()] == [
        "contoso.azurecr.io.",
        "contoso.westeurope.data.azurecr.io.",
        "contoso.northeurope.data.azurecr.io.",
    ]
    assert [(entry.role, entry.registry) for entry in load("tcr").sought()] == [
        ("auth", "guangzhou"),
        ("storage", "guangzhou"),
    ]


def test_several_clouds_have_disjoint_names_and_networks_of_their_own() -> None:
    clouds = load("clouds")
    assert len({registry.provider for registry in clouds.registries}) >= 4
    names = [entry.name for registry in clouds.registries for entry in registry.wanted()]
    assert len(set(names)) == len(names)
    assert all(registry.network.routed for registry in clouds.registries)
