from __future__ import annotations

import pytest

from dnsproxy.core.providers.acr import ACR
from dnsproxy.core.registry import Wanted

GIVEN = {"instance": "corp", "region": "cn-hangzhou"}


def made(*, chart: bool = False, auth: str = "none", storage: str = "none") -> list[Wanted]:
    return ACR.wanted("hz", GIVEN, "vpc", chart=chart, auth=auth, storage=storage)


def roles(wanted: list[Wanted]) -> dict[str, str]:
    return {entry.name: entry.role for entry in wanted}


def test_the_registry_the_regional_auth_and_the_regional_storage() -> None:
    wanted = made(auth="regional", storage="regional")
    assert roles(wanted) == {
        "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com.": "registry",
        "dockerauth-vpc.cn-hangzhou.aliyuncs.com.": "auth",
        "oss-cn-hangzhou-internal.aliyuncs.com.": "storage",
        "*.oss-cn-hangzhou-internal.aliyuncs.com.": "storage",
    }
    assert {entry.registry for entry in wanted} == {"hz"}


def test_chart_is_one_name_more() -> None:
    assert set(roles(made(chart=True)).items()) - set(roles(made()).items()) == {
        ("corp-chart-vpc.cn-hangzhou.cr.aliyuncs.com.", "chart")
    }


@pytest.mark.parametrize("value", ["none", "discover"])
def test_none_and_discover_leave_auth_and_storage_out(value: str) -> None:
    assert set(roles(made(auth=value, storage=value)).values()) == {"registry"}


def test_hosts_for_auth_and_storage() -> None:
    wanted = roles(made(auth="Auth.Example", storage="bucket.example."))
    assert (wanted["auth.example."], wanted["bucket.example."]) == ("auth", "storage")


def test_the_host_of_an_instance() -> None:
    assert ACR.host({**GIVEN, "instance": "Corp"}, "vpc") == "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com."


def test_defaults_and_whom_to_believe() -> None:
    assert (ACR.auth, ACR.default_storage(GIVEN, "vpc")) == ("discover", "regional")
    assert ACR.suffixes("auth", GIVEN) == ACR.suffixes("storage", GIVEN) == ["aliyuncs.com"]
    assert not ACR.public
    assert ACR.tells_bucket
