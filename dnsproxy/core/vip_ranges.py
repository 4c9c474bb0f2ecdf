"""The virtual IPs of OSS internal endpoints, per region of Alibaba Cloud.

Object storage answers from any address of its region's ranges and switches between them at
will, so a route to the address of today is not enough: all of them are to be routed.

Source: the table of internal endpoints and VIP ranges in the OSS user guide
(help.aliyun.com/zh/oss/user-guide/internal-endpoints-of-oss-buckets-and-vip-ranges), as of 2026.
Finance and government clouds are not in it. An address outside is no error, only unknown.
"""

from __future__ import annotations

import re
from functools import cache
from ipaddress import IPv4Network, ip_network

_TABLE = """
cn-hangzhou    100.118.28.0/24 100.114.102.0/24 100.98.170.0/24 100.118.31.0/24
cn-shanghai    100.98.35.0/24 100.98.110.0/24 100.98.169.0/24 100.118.102.0/24
cn-nanjing     100.114.142.0/24
cn-fuzhou      100.115.21.0/24
cn-wuhan-lr    100.115.89.0/24
cn-qingdao     100.115.173.0/24 100.99.113.0/24 100.99.114.0/24 100.99.115.0/24
cn-beijing     100.118.58.0/24 100.118.167.0/24 100.118.170.0/24 100.118.171.0/24 100.118.172.0/24
cn-beijing     100.118.173.0/24
cn-zhangjiakou 100.118.90.0/24 100.98.159.0/24 100.114.0.0/24 100.114.1.0/24
cn-huhehaote   100.118.195.0/24 100.99.110.0/24 100.99.111.0/24 100.99.112.0/24
cn-wulanchabu  100.114.11.0/24 100.114.12.0/24 100.114.100.0/24 100.118.214.0/24
cn-shenzhen    100.118.78.0/24 100.118.203.0/24 100.118.204.0/24 100.118.217.0/24
cn-heyuan      100.98.83.0/24 100.118.174.0/24
cn-guangzhou   100.115.33.0/24 100.114.101.0/24
cn-chengdu     100.115.155.0/24 100.99.107.0/24 100.99.108.0/24 100.99.109.0/24
cn-zhongwei    100.115.157.0/27
cn-hongkong    100.115.61.0/24 100.99.103.0/24 100.99.104.0/24 100.99.106.0/24
ap-northeast-1 100.114.211.0/24 100.114.114.0/25
ap-northeast-2 100.99.119.0/24
ap-southeast-1 100.118.219.0/24 100.99.213.0/24 100.99.116.0/24 100.99.117.0/24
ap-southeast-3 100.118.165.0/24 100.99.125.0/24 100.99.130.0/24 100.99.131.0/24
ap-southeast-5 100.114.98.0/24
ap-southeast-6 100.115.16.0/24
ap-southeast-7 100.98.249.0/24
eu-central-1   100.115.154.0/24
eu-west-1      100.114.114.128/25
us-west-1      100.115.107.0/24
us-east-1      100.115.60.0/24 100.99.100.0/24 100.99.101.0/24 100.99.102.0/24
na-south-1     100.115.112.0/27
me-east-1      100.99.235.0/24
me-central-1   100.99.121.0/24
"""
# The regional endpoint, and a bucket below it.
_INTERNAL = re.compile(r"(?:[^.]+\.)*oss-([a-z0-9-]+)-internal\.aliyuncs\.com\.?")


@cache
def vip_ranges() -> dict[str, tuple[IPv4Network, ...]]:
    """Return the ranges by region id."""
    ranges: dict[str, tuple[IPv4Network, ...]] = {}
    for line in _TABLE.strip().splitlines():
        region, *listed = line.split()
        networks = tuple(network for text in listed if isinstance(network := ip_network(text), IPv4Network))
        ranges[region] = ranges.get(region, ()) + networks
    return ranges


def storage_region(name: str) -> str | None:
    """Return the region of an OSS internal name (endpoint, bucket or wildcard); None for another name."""
    match = _INTERNAL.fullmatch(name.lower())
    return match[1] if match else None


def ranges_for(name: str) -> tuple[IPv4Network, ...]:
    """Return the ranges that an OSS internal name may answer from; none when nothing is known."""
    region = storage_region(name)
    return vip_ranges().get(region, ()) if region else ()
