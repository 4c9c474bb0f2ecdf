from __future__ import annotations

import pytest

from dnsproxy.core.acr_patterns import Recognised, recognise
from dnsproxy.core.providers.acr import ACR

HANGZHOU = "cn-hangzhou"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("xxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com", Recognised("registry", HANGZHOU, "xxx", True)),
        ("my-own-registry.cn-hangzhou.cr.aliyuncs.com", Recognised("registry", HANGZHOU, "my-own", False)),
        ("XXX-Chart-VPC.cn-hangzhou.cr.aliyuncs.com.", Recognised("chart", HANGZHOU, "xxx", True)),
        ("crpi-ab12-vpc.cn-hangzhou.personal.cr.aliyuncs.com", Recognised("registry", HANGZHOU, None, True)),
        ("registry-vpc.cn-hangzhou.aliyuncs.com", Recognised("registry", HANGZHOU, None, True)),
        ("registry-internal.cn-hangzhou.aliyuncs.com", Recognised("registry", HANGZHOU, None, True)),
        ("registry.cn-hangzhou.aliyuncs.com", Recognised("registry", HANGZHOU, None, False)),
        ("registry-cn-hangzhou-vpc.ack.aliyuncs.com", Recognised("registry", HANGZHOU, None, True)),
        ("dockerauth-vpc.cn-hangzhou.aliyuncs.com", Recognised("auth", HANGZHOU, None, True)),
        ("dockerauth-ee-vpc.cn-hangzhou.aliyuncs.com", Recognised("auth", HANGZHOU, None, True)),
        ("dockerauth.cn-hangzhou.aliyuncs.com", Recognised("auth", HANGZHOU, None, False)),
        ("dockerauth-cn-zhangjiakou.aliyuncs.com", Recognised("auth", "cn-zhangjiakou", None, False)),
        ("oss-cn-wuhan-lr-internal.aliyuncs.com", Recognised("storage", "cn-wuhan-lr", None, True)),
        ("b.oss-us-east-1-internal.aliyuncs.com", Recognised("storage", "us-east-1", None, True)),
        ("aliregistry.oss-cn-hangzhou.aliyuncs.com", Recognised("storage", HANGZHOU, None, False)),
        ("xxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com.attacker.example", None),
        ("xxx-registry-vpc.cn-hangzhou.cr.aliyuncs.company", None),
        ("-registry-vpc.cn-hangzhou.cr.aliyuncs.com", None),
        ("aliyuncs.com", None),
        ("localhost", None),
        ("", None),
    ],
)
def test_a_name_says_what_it_is(name: str, expected: Recognised | None) -> None:
    assert recognise(name) == expected


@pytest.mark.parametrize("instance", ["xxxxxx", "my-own-1"])
@pytest.mark.parametrize("region", ["cn-hangzhou", "ap-southeast-1", "cn-wuhan-lr"])
def test_every_name_that_a_configuration_makes_is_recognised(instance: str, region: str) -> None:
    given = {"instance": instance, "region": region}
    for wanted in ACR.wanted("hz", given, "vpc", chart=True, auth="regional", storage="regional"):
        found = recognise(wanted.name)
        assert found is not None, wanted.name
        assert (found.role, found.region, found.internal) == (wanted.role, region, True)
        if wanted.role in {"registry", "chart"}:
            assert found.instance == instance
