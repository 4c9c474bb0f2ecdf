"""Huawei Cloud SoftWare Repository for Container."""

from __future__ import annotations

from dnsproxy.core.provider import Parameter, Partition, Provider, Variant

_REGIONS = """
af-north-1 af-south-1 ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 cn-east-2
cn-east-3 cn-east-4 cn-east-5 cn-north-1 cn-north-2 cn-north-4 cn-north-9 cn-north-11 cn-north-12
cn-south-1 cn-south-2 cn-south-4 cn-southwest-2 eu-west-0 eu-west-101 la-north-2 la-south-2
me-east-1 my-kualalumpur-1 na-mexico-1 ru-moscow-1 sa-brazil-1 tr-west-1
"""

SWR = Provider(
    key="swr",
    title="Huawei Cloud SoftWare Repository for Container (SWR)",
    parameters=(
        Parameter("region", "cn-north-4", "a region of Huawei Cloud", r"[a-z]+(?:-[a-z0-9]+)+"),
        Parameter(
            "instance",
            "demo-ab12cd",
            "the first label of the instance's name",
            r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
            variants=("enterprise",),
        ),
    ),
    variants={
        "basic": Variant("swr.{region}.{domain}", meaning="the service of the region, for all its users"),
        "enterprise": Variant("{instance}.swr-pro.{domain}", meaning="an instance of your own"),
    },
    partitions=(
        Partition(r"eu-west-101", {"domain": "myhuaweicloud.eu"}),
        Partition(r".*", {"domain": "myhuaweicloud.com"}),
    ),
    realm_suffixes=("{domain}",),
    storage_suffixes=("obs.{region}.{domain}",),
    regions=frozenset(_REGIONS.split()),
    notes="""
- The token service of the basic edition is the registry itself (`/swr/auth/v2/registry/auth/`).
- Layers lie in several buckets of several OBS clusters, each with addresses of its own, so no wildcard is
  made: `discover` finds the bucket of one image. List the others under `names`; a pull that fails now and
  then is one that was redirected to a bucket which is not owned.
- OBS names resolve to 100.64.0.0/10 inside the region, to public addresses elsewhere.
""",
    sources=(
        "https://support.huaweicloud.com/intl/en-us/bestpractice-ief/ief_04_0006.html",
        "https://support.huaweicloud.com/intl/zh-cn/ugobs-obs/obs_41_0003.html",
        "https://github.com/goharbor/harbor/tree/main/src/pkg/reg/adapter/huawei",
    ),
)
