from __future__ import annotations

from ipaddress import ip_network
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from dnsproxy.core.addresses.filter import Limits
from dnsproxy.core.provider import PARAMETERS
from dnsproxy.core.providers import PROVIDERS
from dnsproxy.core.registry import Sought
from dnsproxy.settings import Settings
from dnsproxy.settings.registries import RegistrySettings
from dnsproxy.settings.values import Endpoint
from tests.settings.mistakes import ACR, complaints

PUBLIC = {"allow_public": True}


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
        ({**ACR, "names": [{"name": "a.example", "allowed": ["10.0.0.1/8"]}]}, "has host bits set"),
        ({**ACR, "names": [{"name": "a.example", "ports": [0]}]}, "greater than or equal to 1"),
        ({**ACR, "network": {"routed": ["10.0.0.0"], "conflicts": ["here"]}}, "not a range"),
        ({**ACR, "network": {"allow_public": True}}, "acr names are internal"),
    ],
)
def test_registries_that_make_no_sense(registry: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(registries=[registry])


GENERIC = {"name": "harbor", "provider": "generic", "names": [{"name": "a.example", "role": "registry"}]}


@pytest.mark.parametrize(
    ("registry", "complaint"),
    [
        ({**GENERIC, "auth": "regional"}, "generic makes no auth names here"),
        ({**GENERIC, "storage": "regional"}, "generic makes no storage names here"),
        ({**GENERIC, "names": [{"name": "a.example"}], "auth": "discover"}, "discover needs a name"),
        (
            {**GENERIC, "names": [{"name": "*.a.example", "role": "registry"}], "auth": "discover"},
            "discover needs a name",
        ),
        ({**GENERIC, "discover": []}, "valid dictionary"),
    ],
)
def test_what_a_generic_registry_cannot_be_asked(registry: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(registries=[registry])


def registry(**keys: Any) -> RegistrySettings:
    return RegistrySettings.model_validate(keys)


def test_acr_is_asked_for_its_auth_host_unless_told_otherwise() -> None:
    asked = registry(**ACR)
    assert asked.sought() == [Sought("hz", "auth", ("aliyuncs.com.",))]
    assert asked.host == "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
    assert registry(**ACR, auth="regional").sought() == []
    both = registry(**ACR, storage="discover", discover={"storage_suffixes": ["oss.example"]})
    assert [(entry.role, entry.suffixes) for entry in both.sought()] == [
        ("auth", ("aliyuncs.com.",)),
        ("storage", ("oss.example.",)),
    ]


def test_a_generic_registry_is_asked_only_when_told_to_and_by_its_first_registry_name() -> None:
    assert registry(**GENERIC).sought() == []
    asked = registry(**GENERIC, auth="discover")
    assert (asked.host, asked.sought()) == ("a.example.", [Sought("harbor", "auth", ())])
    named = registry(**GENERIC, auth="discover", discover={"host": "b.example"})
    assert named.host == "b.example."


def test_hosts_of_a_generic_registry_are_names_to_learn() -> None:
    wanted = registry(**GENERIC, auth="auth.example", storage="s3.example").wanted()
    assert [(entry.name, entry.role) for entry in wanted] == [
        ("auth.example.", "auth"),
        ("s3.example.", "storage"),
        ("a.example.", "registry"),
    ]


def test_names_become_canonical() -> None:
    read = Settings.model_validate({"forward": {"zones": {"Corp.Example": ["10.0.0.53", "system"]}}})
    assert read.forward.zones == {"corp.example.": [Endpoint("10.0.0.53", 53), "system"]}


def test_an_acr_registry_expands_with_its_overrides() -> None:
    pinned = {"name": "dockerauth-vpc.cn-hangzhou.aliyuncs.com", "role": "auth", "addresses": ["10.1.2.3"]}
    read = Settings.model_validate({"registries": [{**ACR, "chart": True, "names": [pinned]}]})
    wanted = {entry.name: entry for entry in read.wanted()}
    assert len(wanted) == 5
    assert wanted["dockerauth-vpc.cn-hangzhou.aliyuncs.com."].addresses == ("10.1.2.3",)


def test_limits_are_those_of_the_registry_and_of_the_name() -> None:
    listed = {"name": "a.example", "allowed": ["47.97.0.0/16"], "ports": [443, 80, 443]}
    network = {"routed": ["10.0.0.0/8"], "conflicts": ["10.1.0.0/16"]}
    (registry,) = Settings.model_validate(
        {"registries": [{**ACR, "network": network, "names": [listed]}]}
    ).registries
    assert registry.limits() == Limits((ip_network("10.0.0.0/8"),), (ip_network("10.1.0.0/16"),))
    (name,) = registry.names
    assert registry.limits(name.allowed).allowed == (ip_network("47.97.0.0/16"),)
    assert name.ports == [80, 443]


def test_only_a_generic_registry_has_public_names() -> None:
    generic = {"name": "g", "provider": "generic", "names": [{"name": "a.example"}]}
    read = Settings.model_validate({"registries": [generic, {**generic, "name": "p", "network": PUBLIC}]})
    assert [registry.limits().internal for registry in read.registries] == [True, False]


# --- providers

ECR = {"name": "f", "provider": "ecr", "region": "eu-central-1", "account": "123456789012"}
TCR = {"name": "t", "provider": "tcr", "region": "ap-guangzhou", "instance": "demo"}
REPOSITORY = {"repository": "team/app"}


def test_every_provider_can_be_written() -> None:
    assert get_args(RegistrySettings.model_fields["provider"].annotation) == tuple(PROVIDERS)
    assert set(PARAMETERS) <= set(RegistrySettings.model_fields)


def test_defaults_are_those_of_the_provider() -> None:
    ecr = registry(**ECR)
    assert (ecr.auth, ecr.storage) == ("regional", "regional")
    assert ecr.discover.storage_suffixes == [
        "s3.eu-central-1.amazonaws.com.",
        "s3.dualstack.eu-central-1.amazonaws.com.",
    ]
    assert ecr.sought() == []
    tcr = registry(**TCR, discover=REPOSITORY)
    assert [(entry.role, entry.suffixes) for entry in tcr.sought()] == [
        ("auth", ("tencentcloudcr.com.",)),
        ("storage", ("cos.ap-guangzhou.myqcloud.com.", "cos.ap-guangzhou.tencentcos.cn.")),
    ]
    given = registry(**TCR, discover={**REPOSITORY, "storage_suffixes": ["example"]})
    assert (given.discover.realm_suffixes, given.discover.storage_suffixes) == (
        ["tencentcloudcr.com."],
        ["example."],
    )


@pytest.mark.parametrize(
    ("keys", "place", "complaint"),
    [
        ({**ECR, "account": None}, (), "provider ecr needs region and account"),
        ({**ECR, "account": 123456789012}, ("account",), "put it in quotes"),
        ({**ECR, "account": "1"}, ("account",), "'1' is not an account id of 12 digits"),
        ({**ECR, "instance": "x"}, ("instance",), "provider ecr has no such key"),
        ({**ECR, "variant": "ipv6"}, ("variant",), "it has standard, fips, dual-stack"),
        ({**ECR, "chart": True}, ("chart",), "no names of their own for charts"),
        ({**ECR, "variant": "fips", "storage": "regional"}, ("storage",), "ecr makes no storage names here"),
        ({**ECR, "variant": "fips"}, ("storage",), "storage discover needs discover.repository"),
        (TCR, ("storage",), "storage discover needs discover.repository"),
        ({**TCR, "storage": "none", "auth": "regional"}, ("auth",), "tcr makes no auth names here"),
        ({"name": "h", "provider": "harbor"}, (), "provider harbor needs hostname"),
        ({"name": "s", "provider": "swr", "variant": "enterprise"}, (), "swr needs region and instance"),
        ({"name": "a", "provider": "aws"}, ("provider",), "Input should be 'acr', 'ecr'"),
        ({**ACR, "account": "123456789012"}, ("account",), "provider acr has no such key"),
        ({**ACR, "variant": "public"}, ("variant",), "it has vpc"),
    ],
)
def test_keys_that_do_not_fit_the_provider(
    keys: dict[str, Any], place: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"registries": [keys]})
    found = {error["loc"][2:]: error["msg"] for error in caught.value.errors()}
    assert complaint in found[place]


def test_all_that_does_not_fit_is_told_at_once() -> None:
    text = complaints(registries=[{**ECR, "account": "1", "region": "x", "bucket": "b", "chart": True}])
    for part in ("12 digits", "not a region of AWS", "no such key", "for charts"):
        assert part in text


def test_public_addresses_of_other_clouds_may_be_answered_where_asked_for() -> None:
    assert registry(**ECR).limits().internal
    assert not registry(**ECR, network=PUBLIC).limits().internal


def test_a_host_by_hand_is_asked_in_place_of_the_providers() -> None:
    assert registry(**ECR).host == "123456789012.dkr.ecr.eu-central-1.amazonaws.com."
    custom = registry(**TCR, storage="none", discover={"host": "images.example"})
    assert custom.host == "images.example."
