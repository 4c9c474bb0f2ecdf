from __future__ import annotations

import json
import math
from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from dnsproxy import settings
from dnsproxy.core.guard import Limits
from dnsproxy.core.registry import Wanted
from dnsproxy.settings import Settings
from dnsproxy.settings.values import Endpoint
from tests.settings.mistakes import ACR, complaints


def test_two_registries_of_one_name() -> None:
    assert "two have the same name" in complaints(registries=[ACR, ACR])


def test_an_unknown_section() -> None:
    assert "Extra inputs" in complaints(unknown={})


def test_defaults() -> None:
    default = Settings()
    assert default.serve.listen == [Endpoint("0.0.0.0", 53), Endpoint("::", 53)]
    assert ip_network("100.64.0.0/10") in default.serve.allow
    assert default.forward.upstreams == ["system"]
    assert default.learn.max_stale == math.inf
    assert default.admin.listen == Endpoint("127.0.0.1", 9153)
    assert default.wanted() == []


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().log.level = "debug"  # type: ignore[misc]  # what the test is about


def test_the_first_registry_that_lists_a_name_owns_it() -> None:
    listed = [{"name": "a.example", "addresses": ["10.0.0.1"]}, {"name": "b.example"}]
    read = Settings.model_validate(
        {
            "registries": [
                {"name": "one", "provider": "generic", "names": listed[:1]},
                {"name": "two", "provider": "generic", "names": [{"name": "A.example"}, listed[1]]},
            ]
        }
    )
    assert read.wanted() == [
        Wanted("a.example.", "other", "one", addresses=("10.0.0.1",)),
        Wanted("b.example.", "other", "two"),
    ]


def test_schema_is_json_and_lists_the_sections() -> None:
    document = settings.schema()
    assert json.loads(json.dumps(document)) == document
    assert set(document["properties"]) == set(Settings.model_fields)


def test_limits_and_ports_are_those_of_the_registry_that_owns_the_name() -> None:
    mine = {"name": "a.example", "allowed": ["10.1.0.0/16"], "ports": [80]}
    other = {"name": "a.example", "allowed": ["10.2.0.0/16"], "ports": [8443]}
    network = {"routed": ["10.0.0.0/8"]}
    read = Settings.model_validate(
        {
            "registries": [
                {**ACR, "names": [mine], "network": network},
                {"name": "two", "provider": "generic", "names": [other, {"name": "b.example", "ports": []}]},
            ]
        }
    )
    routed = (ip_network("10.0.0.0/8"),)
    table = read.limits()
    assert table.of("a.example.", "hz") == Limits(routed, allowed=(ip_network("10.1.0.0/16"),))
    assert table.of("dockerauth-vpc.cn-hangzhou.aliyuncs.com.", "hz") == Limits(routed)
    assert table.of("b.example.", "two") == Limits()
    assert read.probed_ports() == {"a.example.": (80,), "b.example.": ()}
