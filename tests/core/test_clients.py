from __future__ import annotations

from ipaddress import ip_address

import pytest

from dnsproxy.core.clients import Clients


def packed(text: str) -> bytes:
    return ip_address(text).packed


@pytest.mark.parametrize(
    ("prefixes", "source", "client"),
    [
        ((32, 64), "192.0.2.77", "192.0.2.77"),
        ((24, 64), "192.0.2.77", "192.0.2.0"),
        ((8, 64), "10.9.8.7", "10.0.0.0"),
        ((32, 64), "2001:db8::1:2:3:4", "2001:db8::"),
        ((32, 56), "2001:db8:0:ff12::1", "2001:db8:0:ff00::"),
        ((32, 128), "2001:db8::1", "2001:db8::1"),
    ],
)
def test_addresses_with_the_same_first_bits_are_one_client(
    prefixes: tuple[int, int], source: str, client: str
) -> None:
    assert Clients(*prefixes).of(packed(source)) == packed(client)
