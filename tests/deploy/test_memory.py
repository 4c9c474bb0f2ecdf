"""The memory that units and manifests allow a proxy is what its configuration may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dnsproxy.commands.memory import proxy_shape
from dnsproxy.config import load
from dnsproxy.core.memory import MIB, proxy_limits, service_limit
from tests.deploy.files import DEPLOY
from tests.deploy.manifests import ours, pods
from tests.e2e.processes import ROOT

KUBERNETES = {"base": "deployment.yaml", "node": "daemonset.yaml", "sidecar": "pod.yaml"}


def wanted(config: Path) -> int:
    """The limit in MiB that follows from a configuration."""
    return service_limit(proxy_limits(proxy_shape(load(config)))) // MIB


def test_the_unit_allows_what_the_defaults_may_take() -> None:
    unit = (DEPLOY / "systemd" / "dnsproxy.service").read_text(encoding="utf-8")
    assert f"MemoryMax={wanted(ROOT / 'config.example.yaml')}M\n" in unit


@pytest.mark.parametrize("folder", KUBERNETES)
def test_a_manifest_allows_what_its_configuration_may_take(folder: str) -> None:
    path = DEPLOY / "kubernetes" / folder
    objects = list(yaml.safe_load_all((path / KUBERNETES[folder]).read_text(encoding="utf-8")))
    ((_, pod),) = pods(objects)
    (container,) = ours(pod)
    assert container["resources"]["limits"]["memory"] == f"{wanted(path / 'config.yaml')}Mi"


@pytest.mark.parametrize(("section", "folder"), [("proxy", "base"), ("node", "node")])
def test_the_chart_allows_the_same(section: str, folder: str) -> None:
    values: dict[str, Any] = yaml.safe_load(
        (DEPLOY / "helm" / "dnsproxy" / "values.yaml").read_text(encoding="utf-8")
    )
    limit = values[section]["resources"]["limits"]["memory"]
    assert limit == f"{wanted(DEPLOY / 'kubernetes' / folder / 'config.yaml')}Mi"
