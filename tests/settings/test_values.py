from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.settings.values import Endpoint, parse_duration, parse_endpoint
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
