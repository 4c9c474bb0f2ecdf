from __future__ import annotations

import pytest

from dnsproxy.core.registry import Override, Wanted, acr_names, with_overrides


def roles(wanted: list[Wanted]) -> dict[str, str]:
    return {entry.name: entry.role for entry in wanted}


def test_acr_has_the_registry_the_regional_auth_and_the_regional_storage() -> None:
    wanted = acr_names("hz", "corp", "cn-hangzhou", chart=False, auth="regional", storage="regional")
    assert roles(wanted) == {
        "corp-registry-vpc.cn-hangzhou.cr.aliyuncs.com.": "registry",
        "dockerauth-vpc.cn-hangzhou.aliyuncs.com.": "auth",
        "oss-cn-hangzhou-internal.aliyuncs.com.": "storage",
        "*.oss-cn-hangzhou-internal.aliyuncs.com.": "storage",
    }
    assert {entry.registry for entry in wanted} == {"hz"}


def test_acr_chart_is_one_name_more() -> None:
    without = acr_names("hz", "corp", "cn-hangzhou", chart=False, auth="none", storage="none")
    having = acr_names("hz", "corp", "cn-hangzhou", chart=True, auth="none", storage="none")
    assert set(roles(having).items()) - set(roles(without).items()) == {
        ("corp-chart-vpc.cn-hangzhou.cr.aliyuncs.com.", "chart")
    }


def test_acr_none_leaves_auth_and_storage_out() -> None:
    wanted = acr_names("hz", "corp", "cn-hangzhou", chart=False, auth="none", storage="none")
    assert set(roles(wanted).values()) == {"registry"}


def test_acr_takes_hosts_for_auth_and_storage() -> None:
    wanted = acr_names("hz", "corp", "r", chart=False, auth="Auth.Example", storage="bucket.example.")
    assert roles(wanted)["auth.example."] == "auth"
    assert roles(wanted)["bucket.example."] == "storage"


@pytest.mark.parametrize(
    ("entry", "ask"),
    [
        (Wanted("a.example.", "other", "r"), "a.example."),
        (Wanted("*.a.example.", "other", "r"), "a.example."),
        (Wanted("a.example.", "other", "r", cname="b.example."), "b.example."),
    ],
)
def test_what_to_ask_for(entry: Wanted, ask: str) -> None:
    assert entry.ask == ask


def test_overrides_replace_their_namesakes_and_add_the_rest() -> None:
    wanted = [Wanted("a.example.", "auth", "r"), Wanted("b.example.", "storage", "r")]
    overrides = [
        Override("A.example", "other", addresses=("10.0.0.1",)),
        Override("c.example", "other", cname="Target.example"),
    ]
    assert with_overrides("r", wanted, overrides) == [
        Wanted("a.example.", "other", "r", addresses=("10.0.0.1",)),
        Wanted("b.example.", "storage", "r"),
        Wanted("c.example.", "other", "r", cname="target.example."),
    ]
