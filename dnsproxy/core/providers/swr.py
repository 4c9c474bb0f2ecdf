"""Huawei Cloud SoftWare Repository for Container."""

from __future__ import annotations

from dnsproxy.core.provider import Parameter, Partition, Provider, Variant

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
