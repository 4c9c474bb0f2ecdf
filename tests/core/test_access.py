from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from dnsproxy.core import access
from dnsproxy.core.access import AccessList


@pytest.mark.parametrize(
    ("client", "allowed"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("127.0.0.1", True),
        ("fd12::1", True),
        ("2001:db8::1", False),
        ("::10.0.0.1", False),
    ],
)
def test_networks_of_both_families(client: str, allowed: bool) -> None:
    rules = AccessList([ip_network("10.0.0.0/8"), ip_network("127.0.0.1/32"), ip_network("fc00::/7")])
    packed = ip_address(client).packed
    assert [rules.allows(packed), rules.allows(packed)] == [allowed, allowed]


def test_nobody_is_allowed_by_an_empty_list() -> None:
    assert not AccessList([]).allows(b"\x7f\0\0\1")


def test_verdicts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_VERDICTS", 8)
    rules = AccessList([ip_network("10.0.0.0/30")])
    verdicts = [rules.allows(bytes((10, 0, 0, last))) for last in range(100)]
    assert verdicts == [True] * 4 + [False] * 96
    assert len(rules._verdicts) <= 8
