"""Alibaba Cloud Container Registry, Enterprise Edition, inside its VPC."""

from __future__ import annotations

from dnsproxy.core.provider import Parameter, Provider, Variant
from dnsproxy.core.vip_ranges import vip_ranges

ACR = Provider(
    key="acr",
    title="Alibaba Cloud Container Registry (ACR), Enterprise Edition",
    # No patterns: what makes a valid name is left to the cloud.
    parameters=(Parameter("region", "cn-hangzhou"), Parameter("instance", "xxxxxx")),
    variants={
        "vpc": Variant(
            registry="{instance}-registry-vpc.{region}.cr.aliyuncs.com",
            chart="{instance}-chart-vpc.{region}.cr.aliyuncs.com",
            auth=("dockerauth-vpc.{region}.aliyuncs.com",),
            # OSS serves every bucket of a region from the addresses of the regional endpoint.
            storage=("oss-{region}-internal.aliyuncs.com", "*.oss-{region}-internal.aliyuncs.com"),
        )
    },
    storage=("regional",),
    realm_suffixes=("aliyuncs.com",),
    storage_suffixes=("aliyuncs.com",),
    public=False,
    tells_bucket=True,
    regions=frozenset(vip_ranges())
    | frozenset(
        # Without ranges in that table.
        {
            *("ap-south-1", "ap-southeast-2", "cn-beijing-finance-1", "cn-hangzhou-finance"),
            *("cn-heyuan-acdr-1", "cn-north-2-gov-1", "cn-shanghai-finance-1", "cn-shenzhen-finance-1"),
        }
    ),
    notes="""
- The auth host may be of another region than the registry, so it is asked for.
- OSS switches between the addresses of its VIP ranges: route the ranges (`dnsproxy routes`).
""",
    sources=(
        "https://help.aliyun.com/zh/acr/",
        "https://help.aliyun.com/zh/oss/user-guide/internal-endpoints-of-oss-buckets-and-vip-ranges",
    ),
)
