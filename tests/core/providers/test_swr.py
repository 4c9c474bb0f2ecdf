from __future__ import annotations

from dnsproxy.core.providers.swr import SWR

GIVEN = {"region": "cn-north-4"}


def test_the_service_of_a_region_and_an_instance() -> None:
    assert SWR.host(GIVEN, "basic") == "swr.cn-north-4.myhuaweicloud.com."
    enterprise = {**GIVEN, "instance": "demo-ab12cd"}
    assert SWR.host(enterprise, "enterprise") == "demo-ab12cd.swr-pro.myhuaweicloud.com."
    assert (SWR.needed("basic"), SWR.needed("enterprise")) == (["region"], ["region", "instance"])
    assert set(SWR.complaints(enterprise, "basic")) == {"instance"}


def test_the_european_cloud_has_a_domain_of_its_own() -> None:
    given = {"region": "eu-west-101"}
    assert SWR.host(given, "basic") == "swr.eu-west-101.myhuaweicloud.eu."
    assert SWR.suffixes("storage", given) == ["obs.eu-west-101.myhuaweicloud.eu"]


def test_only_buckets_of_the_region_are_believed_and_no_wildcard_is_made() -> None:
    assert SWR.suffixes("auth", GIVEN) == ["myhuaweicloud.com"]
    assert SWR.suffixes("storage", GIVEN) == ["obs.cn-north-4.myhuaweicloud.com"]
    assert SWR.default_storage(GIVEN, "basic") == "discover"
    assert not SWR.has_regional("storage", GIVEN, "basic")
