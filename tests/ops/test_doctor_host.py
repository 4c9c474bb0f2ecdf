from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.ops.doctor_host import (
    DEFAULT_SERVICES,
    ResolvConf,
    dns_is_reached,
    parse_nsswitch,
    parse_resolv_conf,
)
from dnsproxy.settings.values import Endpoint


def servers(*hosts: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(host, 53) for host in hosts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ResolvConf(servers("127.0.0.1"), (), rotate=False)),
        ("nameserver 10.0.0.1\nsearch example\n", ResolvConf(servers("10.0.0.1"), (), rotate=False)),
        (
            "nameserver 10.0.0.1\nnameserver 10.0.0.1\nnameserver fd00::1\noptions ndots:2 rotate\n",
            ResolvConf(servers("10.0.0.1", "fd00::1"), (), rotate=True),
        ),
        (
            "".join(f"nameserver 10.0.0.{i}\n" for i in range(1, 5)),
            ResolvConf(servers("10.0.0.1", "10.0.0.2", "10.0.0.3"), ("10.0.0.4",), rotate=False),
        ),
        (
            "nameserver dns.example\n nameserver\n#nameserver 10.0.0.9\n",
            ResolvConf(servers("127.0.0.1"), ("dns.example",), rotate=False),
        ),
    ],
)
def test_resolv_conf(text: str, expected: ResolvConf) -> None:
    assert parse_resolv_conf(text) == expected


@given(st.text())
def test_any_text_gives_a_server_and_services(text: str) -> None:
    assert 1 <= len(parse_resolv_conf(text).nameservers) <= 3
    dns_is_reached(parse_nsswitch(text))


@pytest.mark.parametrize(
    ("text", "services"),
    [
        ("", DEFAULT_SERVICES),
        ("passwd: files\nhosts:files dns # usual\n", ("files", "dns")),
        (
            "hosts:  files mdns4_minimal [NOTFOUND=return] dns\n",
            ("files", "mdns4_minimal", "[NOTFOUND=return]", "dns"),
        ),
        ("hosts: files [ NOTFOUND=return ] dns", ("files", "[NOTFOUND=return]", "dns")),
        ("#hosts: files\nhosts:\n", ()),
    ],
)
def test_nsswitch(text: str, services: tuple[str, ...]) -> None:
    assert parse_nsswitch(text) == services


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("files dns", None),
        ("files mdns4_minimal [NOTFOUND=return] dns", None),
        ("files resolve [!UNAVAIL=return] dns", None),
        ("mymachines [!NOTFOUND=return] files dns", None),
        ("files myhostname", "neither dns nor resolve is in the hosts line"),
        ("files [NOTFOUND=return] dns", "files [NOTFOUND=return] ends the lookup before dns"),
        ("files [SUCCESS=return notfound=RETURN] dns", "files [SUCCESS=return,notfound=RETURN] ends"),
        ("", "neither dns nor resolve"),
    ],
)
def test_whether_a_lookup_comes_to_dns(line: str, reason: str | None) -> None:
    found = dns_is_reached(parse_nsswitch(f"hosts: {line}"))
    assert (found is None) == (reason is None)
    if reason is not None:
        assert found is not None
        assert found.startswith(reason)
