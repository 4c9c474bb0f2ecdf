from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.upstreams import Source
from dnsproxy.settings.values import (
    Endpoint,
    Share,
    parse_duration,
    parse_endpoint,
    parse_share,
    parse_source,
    parse_upstream,
)
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


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        ("10.0.0.2", Endpoint("10.0.0.2", 53)),
        ("tcp://[fd00::2]:5353", Endpoint("fd00::2", 5353, "tcp")),
        ("tls://10.0.0.5#dns.example", Endpoint("10.0.0.5", 853, "tls", "dns.example")),
        ("tls://[FD00::5]:8853#DNS.Example.", Endpoint("fd00::5", 8853, "tls", "dns.example")),
        ("tls://10.0.0.5", Endpoint("10.0.0.5", 853, "tls", "10.0.0.5")),
        ("tls://dns.example", Endpoint("dns.example", 853, "tls", "dns.example")),
        ("tls://dns.example:853#other.example", Endpoint("dns.example", 853, "tls", "other.example")),
        ("tls://10.0.0.5#10.0.0.6", Endpoint("10.0.0.5", 853, "tls", "10.0.0.6")),
        (
            "https://10.0.0.5/dns-query#dns.example",
            Endpoint("10.0.0.5", 443, "https", "dns.example", "/dns-query"),
        ),
        ("https://dns.example", Endpoint("dns.example", 443, "https", "dns.example", "/dns-query")),
        ("https://[::1]:8443/q/", Endpoint("::1", 8443, "https", "::1", "/q/")),
    ],
)
def test_upstreams(value: str, endpoint: Endpoint) -> None:
    assert parse_upstream(value) == endpoint
    assert parse_upstream(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("quic://10.0.0.5", "known are udp, tcp, tls and https"),
        ("dns.example", "not an IP address"),
        ("tls://", "cannot read 'tls://'; write for example tls://10.0.0.5#dns.example"),
        ("tls://#dns.example", "cannot read"),
        ("tls://user@10.0.0.5", "a user name or password has no place here"),
        ("tls://10.0.0.5:0", "not a port"),
        ("tls://10.0.0.5:", "not a port"),
        ("tls://10.0.0.5/dns-query#dns.example", "only https:// has a path"),
        ("tls://10.0.0.5#", "empty name"),
        ("tls://10.0.0.5#a..b", "a label that is empty"),
        ("tls://*.example", "not the name of a host"),
        ("tls://[dns.example]", "not an IPv6 address"),
        ("tls://[10.0.0.5]", "not an IPv6 address"),
        ("https://10.0.0.5/dns-query{?dns}#dns.example", "without {?dns}"),
        ("https://10.0.0.5/dns-query?x=1", "not a path"),
        ("https://10.0.0.5/a b", "not a path"),
    ],
)
def test_no_upstreams(value: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        parse_upstream(value)
    assert complaint in str(caught.value)


@given(
    st.text(max_size=40).map(lambda text: f"tls://{text}") | st.from_regex(r"https://[^ ]*", fullmatch=True)
)
def test_whatever_is_read_is_read_back(value: str) -> None:
    try:
        endpoint = parse_upstream(value)
    except ValueError:
        return
    assert parse_upstream(str(endpoint)) == endpoint


@given(st.one_of(st.text(max_size=30), strategies.json_values))
def test_anything_is_a_value_or_a_value_error(value: object) -> None:
    for parse in (parse_duration, lambda given_value: parse_endpoint(given_value, 53)):
        try:
            parse(value)
        except ValueError as exc:
            assert str(exc)  # noqa: PT017 - both outcomes are allowed


@pytest.mark.parametrize(
    "value",
    [
        *("10.0.0.2@x", "user:hunter2@10.0.0.2", "tcp://user:hunter2@10.0.0.2:53"),
        *("tls://user:hunter2@10.0.0.2", "https://user:hunter2@10.0.0.2/dns-query", "https://a/hunter2@x"),
    ],
)
def test_a_password_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match="a user name or password has no place here") as caught:
        parse_upstream(value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"), [("5%", 0.05), ("0%", 0.0), ("100%", 1.0), ("0.5%", 0.005), ("12.3456%", 0.123456)]
)
def test_shares(text: str, part: float) -> None:
    share = parse_share(text)
    assert share.part == part
    assert str(share) == text
    assert parse_share(share) is share


@pytest.mark.parametrize(
    "value", ["", "5", "5 %", "-1%", "101%", "100.1%", "5.%", "x%", 5, 0.05, None, True, []]
)
def test_what_is_no_share_is_told(value: object) -> None:
    with pytest.raises(ValueError, match="not a share; write for example 5%"):
        parse_share(value)


def test_a_share_is_what_it_was_made_of() -> None:
    assert Share(50_000) == parse_share("5%")


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ("10.0.0.5", Source("10.0.0.5")),
        ("FD00:0::5", Source("", "fd00::5")),
        ("eth0.100", Source("", "", "eth0.100")),
        (["eth0", "fd00::5", "10.0.0.5"], Source("10.0.0.5", "fd00::5", "eth0")),
    ],
)
def test_sources(value: object, source: Source) -> None:
    assert parse_source(value) == source


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (5, "write for example 10.0.0.5 or eth0"),
        ([], "an empty list"),
        ("10.0.0.300", "neither an IP address nor the name of an interface"),
        ("10.0.0.5:53", "neither an IP address nor"),
        ("an-interface-of-16", "neither an IP address nor"),
        ("eth0/1", "neither an IP address nor"),
        ("fe80::1%eth0", "zone id"),
        ("0.0.0.0", "not an address that a host sends from"),
        ("ff02::1", "not an address that a host sends from"),
        (["10.0.0.5", "10.0.0.6"], "10.0.0.5 is given already"),
        (["eth0", "eth1"], "eth0 is given already"),
        ([["eth0"]], "not an address or interface"),
    ],
)
def test_no_sources(value: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        parse_source(value)
    assert complaint in str(caught.value)
