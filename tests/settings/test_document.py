from __future__ import annotations

import json
import math
from ipaddress import ip_network
from typing import Any

import pytest
from pydantic import ValidationError

from dnsproxy import settings
from dnsproxy.core.addresses.filter import Limits
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


def test_of_two_registries_that_use_a_service_the_first_owns_its_name() -> None:
    shared = {"name": "files.example", "allowed": ["10.0.0.0/8"], "ports": [443]}
    read = Settings.model_validate(
        {
            "registries": [
                {**ACR, "auth": "regional", "names": [shared]},
                {**ACR, "name": "two", "auth": "regional", "instance": "other", "names": [shared]},
            ]
        }
    )
    owners = {entry.name: entry.registry for entry in read.wanted()}
    assert owners.pop("other-registry-vpc.cn-hangzhou.cr.aliyuncs.com.") == "two"
    assert len(owners) == 5
    assert set(owners.values()) == {"hz"}


LISTED = {"name": "a.example", "addresses": ["10.0.0.1"]}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (LISTED, {"name": "A.example"}),
        (LISTED, {**LISTED, "addresses": ["10.0.0.2"]}),
        (LISTED, {**LISTED, "role": "storage"}),
        ({"name": "a.example"}, {"name": "a.example", "cname": "b.example"}),
        ({"name": "a.example"}, {"name": "a.example", "allowed": ["10.0.0.0/8"]}),
        ({"name": "a.example"}, {"name": "a.example", "ports": [80]}),
        # A registry has one owner, whoever says the same of it.
        ({"name": "a.example", "role": "registry"}, {"name": "a.example", "role": "registry"}),
    ],
)
def test_two_registries_cannot_say_different_things_of_a_name(
    one: dict[str, Any], two: dict[str, Any]
) -> None:
    registries = [
        {"name": "first", "provider": "generic", "names": [{"name": "x.example"}, one]},
        {"name": "second", "provider": "generic", "names": [two]},
    ]
    assert complaints(registries=registries) == "a.example is a name of registry first already"


def test_one_instance_in_two_registries() -> None:
    twice = complaints(registries=[ACR, {**ACR, "name": "again"}])
    assert twice == "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com is a name of registry hz already"


def test_one_service_by_its_name_and_as_another_ones_host() -> None:
    generic = {"name": "g", "provider": "generic", "names": [{"name": "g.example"}]}
    auth = "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com"
    assert "is a name of registry hz already" in complaints(registries=[ACR, {**generic, "auth": auth}])


def test_schema_is_json_and_lists_the_sections() -> None:
    document = settings.schema()
    assert json.loads(json.dumps(document)) == document
    assert set(document["properties"]) == set(Settings.model_fields)


def test_limits_and_ports_are_those_of_the_registry_that_owns_the_name() -> None:
    mine = {"name": "a.example", "allowed": ["10.1.0.0/16"], "ports": [80]}
    network = {"routed": ["10.0.0.0/8"]}
    read = Settings.model_validate(
        {
            "registries": [
                {**ACR, "names": [mine], "network": network},
                {"name": "two", "provider": "generic", "names": [mine, {"name": "b.example", "ports": []}]},
            ]
        }
    )
    routed = (ip_network("10.0.0.0/8"),)
    table = read.limits()
    assert table.of("a.example.", "hz") == Limits(routed, allowed=(ip_network("10.1.0.0/16"),))
    assert table.of("dockerauth-vpc.cn-hangzhou.aliyuncs.com.", "hz") == Limits(routed)
    assert table.of("b.example.", "two") == Limits()
    assert read.probed_ports() == {"a.example.": (80,), "b.example.": ()}


# --- limits


def limited(*registries: str) -> dict[str, Any]:
    return {"file": "k.pub", "registries": list(registries)}


OTHER = {**ACR, "name": "sh", "region": "cn-shanghai"}
NARROW = ({"realm_suffixes": [f"{region}.aliyuncs.com"]} for region in ("cn-hangzhou", "cn-shanghai"))


def test_limits_name_registries_that_there_are() -> None:
    source = {"url": "dns://10.0.0.1", "registries": ["hz", "here"]}
    told = complaints(registries=[ACR], learn={"trusted_keys": [limited("nowhere")], "sources": [source]})
    assert told == "there is no registry nowhere; there is no registry here"


def test_keys_cannot_be_kept_apart_where_two_registries_are_told_names_of_one_domain() -> None:
    keys = {"trusted_keys": [limited("hz"), limited("sh")]}
    told = complaints(registries=[ACR, OTHER], learn=keys)
    assert "registries hz and sh both believe hosts below aliyuncs.com" in told
    assert "registries sh and hz both believe hosts below aliyuncs.com" in told
    below = {**OTHER, "discover": {"realm_suffixes": ["cn-shanghai.aliyuncs.com"]}}
    assert "below cn-shanghai.aliyuncs.com, so this key could tell names of sh" in complaints(
        registries=[ACR, below], learn=keys
    )


def test_keys_are_kept_apart_by_domains_hosts_or_one_key_for_both() -> None:
    one, two = NARROW
    keys = {"trusted_keys": [limited("hz"), limited("sh")]}
    for registries, learn in (
        ([{**ACR, "discover": one}, {**OTHER, "discover": two}], keys),
        ([ACR, {**OTHER, "auth": "regional"}], keys),
        ([ACR, OTHER], {"trusted_keys": [limited("hz", "sh")]}),
        ([ACR, OTHER], {"trusted_keys": ["k.pub"]}),
    ):
        assert Settings.model_validate({"registries": registries, "learn": learn}).registries


def test_settings_of_some_registries() -> None:
    read = Settings.model_validate({"registries": [ACR, OTHER]})
    assert read.of_registries(None) is read
    assert {entry.registry for entry in read.of_registries(["sh"]).wanted()} == {"sh"}


@pytest.mark.parametrize(
    ("learn", "complaint"),
    [
        ({"trusted_keys": [{"file": "k"}]}, "Field required"),
        ({"trusted_keys": [{"file": "k", "registries": []}]}, "at least 1 item"),
        ({"trusted_keys": ["k"], "sources": [{"url": "http://h/x", "registries": ["hz"]}]}, "limit the key"),
        ({"sources": [{"url": "dns://10.0.0.1", "registries": []}]}, "at least 1 item"),
    ],
)
def test_limits_that_make_no_sense(learn: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(registries=[ACR], learn=learn)
