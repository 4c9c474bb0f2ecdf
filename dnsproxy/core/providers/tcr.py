"""Tencent Container Registry, Enterprise Edition."""

from __future__ import annotations

from dnsproxy.core.provider import Parameter, Provider, Variant

_REGIONS = """
ap-bangkok ap-beijing ap-beijing-fsi ap-chengdu ap-chongqing ap-guangzhou ap-hongkong ap-jakarta
ap-mumbai ap-nanjing ap-seoul ap-shanghai ap-shanghai-fsi ap-shenzhen ap-shenzhen-fsi ap-singapore
ap-taipei ap-tokyo ap-zhongwei eu-frankfurt me-saudi-arabia na-ashburn na-siliconvalley na-toronto
sa-saopaulo
"""

TCR = Provider(
    key="tcr",
    title="Tencent Container Registry (TCR), Enterprise Edition",
    parameters=(
        Parameter("region", "ap-guangzhou", "a region of Tencent Cloud", r"[a-z]+(?:-[a-z0-9]+)+"),
        Parameter("instance", "demo", "the name of an instance", r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"),
    ),
    variants={
        "vpc": Variant("{instance}-vpc.tencentcloudcr.com", meaning="the name of the private network"),
        "default": Variant(
            "{instance}.tencentcloudcr.com",
            meaning="the instance's own name, where the VPC resolves that to its access link",
        ),
    },
    realm_suffixes=("tencentcloudcr.com",),
    storage_suffixes=("cos.{region}.myqcloud.com", "cos.{region}.tencentcos.cn"),
    regions=frozenset(_REGIONS.split()),
    notes="""
- The token service is Harbor's: `/service/token` of the instance's name.
- Inside a VPC, COS names resolve to 10.0.0.0/8, 100.64.0.0/10 or 169.254.0.0/16, and from another region
  to public addresses. 169.254.0.0/16 cannot be routed from elsewhere, so such an address is refused: have
  the layers come through an address that this side can reach, and give the bucket's name `addresses`, or
  `allowed` ranges where they are routed after all.
- To which COS host layers are redirected is not documented; `discover` finds it out.
""",
    sources=(
        "https://cloud.tencent.com/document/api/1141/53131",
        "https://www.tencentcloud.com/document/product/1051/50732",
        "https://www.tencentcloud.com/document/product/436/30613",
        "https://github.com/goharbor/harbor/tree/main/src/pkg/reg/adapter/tencentcr",
    ),
)
