from __future__ import annotations

import json
import math
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dnsproxy import settings
from dnsproxy.core.registry import Wanted
from dnsproxy.settings import Endpoint, Settings, parse_duration, parse_endpoint
from tests import strategies


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("800ms", 0.8),
        ("30s", 30),
        ("1.5s", 1.5),
        ("5m", 300),
        ("1h", 3600),
        ("2d", 172_800),
        ("0s", 0),
        (15, 15),
        (0.25, 0.25),
        ("forever", math.inf),
        (math.inf, math.inf),
        (10**400, math.inf),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "30",
        "s",
        "30 s",
        "30S",
        "-1s",
        "1h30m",
        "1e3s",
        ".5s",
        "٣s",
        "never",
        None,
        True,
        [],
        -1,
        math.nan,
    ],
)
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        ("10.0.0.2", Endpoint("10.0.0.2", 53)),
        ("10.0.0.2:5353", Endpoint("10.0.0.2", 5353)),
        ("fd00::2", Endpoint("fd00::2", 53)),
        ("FD00:0::2", Endpoint("fd00::2", 53)),
        ("[fd00::2]", Endpoint("fd00::2", 53)),
        ("[fd00::2]:5353", Endpoint("fd00::2", 5353)),
        ("[::]:1", Endpoint("::", 1)),
        ("tcp://10.0.0.2", Endpoint("10.0.0.2", 53, "tcp")),
        ("udp://[::1]:65535", Endpoint("::1", 65535)),
    ],
)
def test_endpoints(value: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(value, 53) == endpoint


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("", "not an IP address"),
        ("dns.example", "'dns.example' is not an IP address"),
        ("dns.example:53", "'dns.example' is not an IP address"),
        ("10.0.0.256", "not an IP address"),
        ("10.0.0.2:0", "'0' is not a port"),
        ("10.0.0.2:65536", "'65536' is not a port"),
        ("10.0.0.2:dns", "'dns' is not a port"),
        ("10.0.0.2:٥٣", "is not a port"),
        ("10.0.0.2:" + "9" * 5000, "is not a port"),
        ("10.0.0.2:", "not an IP address"),
        ("[::1", "not an IP address"),
        ("[::1]53", "not an IP address"),
        ("[]:53", "not an IP address"),
        ("tls://10.0.0.2", "unknown transport 'tls'"),
        ("10.0.0.0/8", "not an IP address"),
        (53, "not an address"),
        (None, "not an address"),
    ],
)
def test_no_endpoints(value: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_endpoint(value, 53)


def test_a_port_is_asked_for_where_there_is_no_default() -> None:
    assert parse_endpoint("0.0.0.0:53", None) == Endpoint("0.0.0.0", 53)
    with pytest.raises(ValueError, match=r"no port; write for example 0\.0\.0\.0:53"):
        parse_endpoint("0.0.0.0", None)


@given(st.ip_addresses().map(str), st.integers(1, 65535), st.sampled_from(["udp", "tcp"]))
def test_an_endpoint_is_read_back_from_its_text(host: str, port: int, transport: str) -> None:
    endpoint = Endpoint(host, port, transport)
    assert parse_endpoint(str(endpoint), None) == endpoint


@given(st.one_of(st.text(max_size=30), strategies.json_values))
def test_anything_is_a_value_or_a_value_error(value: object) -> None:
    for parse in (parse_duration, lambda given_value: parse_endpoint(given_value, 53)):
        try:
            parse(value)
        except ValueError as exc:
            assert str(exc)  # noqa: PT017 - both outcomes are allowed


def complaints(**sections: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(sections)
    return "; ".join(error["msg"] for error in caught.value.errors())


ACR = {"name": "hz", "region": "cn-hangzhou", "instance": "corp"}


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


def test_two_registries_of_one_name() -> None:
    assert "two have the same name" in complaints(registries=[ACR, ACR])


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"helper": {"tls": {"cert_file": "c.pem"}}}, "cert_file and key_file together"),
        ({"helper": {"tls": {"client_ca_file": "ca.pem"}}}, "client_ca_file needs"),
        ({"helper": {"interval": "100ms"}}, "greater than or equal to 1"),
        ({"helper": {"resolvers": []}}, "at least 1 item"),
        ({"learn": {"sources": [{"url": "https://h:1/v1/snapshot"}]}}, "sources need trusted_keys"),
        ({"learn": {"sources": [{"url": "ftp://h/x"}], "trusted_keys": ["k"]}}, "match pattern"),
        ({"learn": {"ttl": 0}}, "greater than or equal to 1"),
        ({"serve": {"listen": ["127.0.0.1"]}}, "no port"),
        ({"serve": {"listen": []}}, "at least 1 item"),
        ({"serve": {"allow": ["10.0.0.1/8"]}}, "has host bits set"),
        ({"serve": {"allow": [10]}}, "not a range"),
        ({"forward": {"upstreams": ["dns.example"]}}, "not an IP address"),
        ({"forward": {"timeout": {"attempt": "0s"}}}, "greater than or equal to 0.01"),
        ({"cache": {"size": -1}}, "greater than or equal to 0"),
        ({"cache": {"max_ttl": "forever"}}, "less than or equal to 604800"),
        ({"log": {"format": "xml"}}, "'auto', 'console' or 'json'"),
        ({"unknown": {}}, "Extra inputs"),
    ],
)
def test_values_out_of_range(sections: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(**sections)


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


def test_names_become_canonical() -> None:
    read = Settings.model_validate({"forward": {"zones": {"Corp.Example": ["10.0.0.53", "system"]}}})
    assert read.forward.zones == {"corp.example.": [Endpoint("10.0.0.53", 53), "system"]}


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


def test_an_acr_registry_expands_with_its_overrides() -> None:
    pinned = {"name": "dockerauth-vpc.cn-hangzhou.aliyuncs.com", "role": "auth", "addresses": ["10.1.2.3"]}
    read = Settings.model_validate({"registries": [{**ACR, "chart": True, "names": [pinned]}]})
    wanted = {entry.name: entry for entry in read.wanted()}
    assert len(wanted) == 5
    assert wanted["dockerauth-vpc.cn-hangzhou.aliyuncs.com."].addresses == ("10.1.2.3",)


def test_schema_is_json_and_lists_the_sections() -> None:
    document = settings.schema()
    assert json.loads(json.dumps(document)) == document
    assert set(document["properties"]) == set(Settings.model_fields)
