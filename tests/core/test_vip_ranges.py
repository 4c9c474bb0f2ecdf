from __future__ import annotations

from ipaddress import IPv4Network
from itertools import combinations

import pytest

from dnsproxy.core.vip_ranges import ranges_for, storage_region, vip_ranges


def test_the_table_is_whole() -> None:
    ranges = vip_ranges()
    assert len(ranges) == 30
    assert sum(map(len, ranges.values())) == 74
    assert len(ranges["cn-beijing"]) == 6


def test_every_range_is_in_the_shared_address_space_and_in_one_region_only() -> None:
    networks = [network for held in vip_ranges().values() for network in held]
    assert all(network.subnet_of(IPv4Network("100.64.0.0/10")) for network in networks)
    assert [pair for pair in combinations(networks, 2) if pair[0].overlaps(pair[1])] == []


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("oss-cn-hangzhou-internal.aliyuncs.com", "cn-hangzhou"),
        ("oss-cn-hangzhou-internal.aliyuncs.com.", "cn-hangzhou"),
        ("*.oss-cn-hangzhou-internal.aliyuncs.com.", "cn-hangzhou"),
        ("CRI-x-registry.OSS-us-east-1-internal.aliyuncs.com", "us-east-1"),
        ("oss-cn-hangzhou.aliyuncs.com", None),
        ("oss-cn-hangzhou-internal.aliyuncs.com.attacker.example", None),
        ("dockerauth-vpc.cn-hangzhou.aliyuncs.com", None),
    ],
)
def test_the_region_stands_in_the_name(name: str, region: str | None) -> None:
    assert storage_region(name) == region


def test_ranges_for_a_name() -> None:
    shown = [str(network) for network in ranges_for("*.oss-eu-west-1-internal.aliyuncs.com.")]
    assert shown == ["100.114.114.128/25"]
    assert ranges_for("oss-xx-nowhere-1-internal.aliyuncs.com") == ()
    assert ranges_for("www.example") == ()
