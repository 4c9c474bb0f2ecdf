from __future__ import annotations

from typing import Any

import pytest

from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint
from tests.settings.mistakes import ACR, complaints


@pytest.mark.parametrize(
    ("registry", "complaint"),
    [
        ({"name": "hz", "region": "cn-hangzhou"}, "provider acr needs region and instance"),
        ({"name": "hz", "provider": "generic"}, "provider generic needs names"),
        ({**ACR, "instance": "a b"}, "white space"),
        ({**ACR, "region": "x" * 70}, "longer than 63"),
        ({**ACR, "auth": "a..b"}, "label"),
        ({**ACR, "name": ""}, "at least 1 character"),
        ({**ACR, "names": [{"name": "a.example", "addresses": ["10.0.0.1"], "cname": "b"}]}, "not both"),
        ({**ACR, "names": [{"name": "*.a.example", "cname": "b"}]}, "wildcard cannot have a cname"),
        ({**ACR, "names": [{"name": "a.example", "addresses": ["10.0.0.300"]}]}, "10.0.0.300"),
    ],
)
def test_registries_that_make_no_sense(registry: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(registries=[registry])


def test_names_become_canonical() -> None:
    read = Settings.model_validate({"forward": {"zones": {"Corp.Example": ["10.0.0.53", "system"]}}})
    assert read.forward.zones == {"corp.example.": [Endpoint("10.0.0.53", 53), "system"]}


def test_an_acr_registry_expands_with_its_overrides() -> None:
    pinned = {"name": "dockerauth-vpc.cn-hangzhou.aliyuncs.com", "role": "auth", "addresses": ["10.1.2.3"]}
    read = Settings.model_validate({"registries": [{**ACR, "chart": True, "names": [pinned]}]})
    wanted = {entry.name: entry for entry in read.wanted()}
    assert len(wanted) == 5
    assert wanted["dockerauth-vpc.cn-hangzhou.aliyuncs.com."].addresses == ("10.1.2.3",)
