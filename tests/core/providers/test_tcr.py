from __future__ import annotations

from dnsproxy.core.providers.tcr import TCR

GIVEN = {"instance": "demo", "region": "ap-guangzhou"}


def test_an_instance_has_a_name_for_each_network() -> None:
    assert TCR.host(GIVEN, "vpc") == "demo-vpc.tencentcloudcr.com."
    assert TCR.host(GIVEN, "default") == "demo.tencentcloudcr.com."
    assert TCR.default_variant == "vpc"


def test_only_a_redirect_tells_the_bucket() -> None:
    assert (TCR.auth, TCR.default_storage(GIVEN, "vpc")) == ("discover", "discover")
    assert not TCR.has_regional("storage", GIVEN, "vpc")
    assert not TCR.tells_bucket
    assert TCR.suffixes("auth", GIVEN) == ["tencentcloudcr.com"]
    assert TCR.suffixes("storage", GIVEN) == [
        "cos.ap-guangzhou.myqcloud.com",
        "cos.ap-guangzhou.tencentcos.cn",
    ]


def test_values() -> None:
    assert TCR.complaints(GIVEN, "vpc") == {}
    assert set(TCR.complaints({"region": "guangzhou", "instance": "demo."}, "vpc")) == {"region", "instance"}
