from __future__ import annotations

import pytest

from dnsproxy.core.providers.azure import AZURE

GIVEN = {"instance": "contoso", "region": "westeurope"}


def names(variant: str, **given: str) -> list[str]:
    wanted = AZURE.wanted("a", {**GIVEN, **given}, variant, chart=False, auth="discover", storage="regional")
    return [entry.name for entry in wanted]


@pytest.mark.parametrize(
    ("region", "domain", "blob"),
    [
        ("westeurope", "azurecr.io", "blob.core.windows.net"),
        ("chinaeast2", "azurecr.cn", "blob.core.chinacloudapi.cn"),
        ("usgovvirginia", "azurecr.us", "blob.core.usgovcloudapi.net"),
        ("usdodeast", "azurecr.us", "blob.core.usgovcloudapi.net"),
    ],
)
def test_the_endpoints_of_the_documentation_in_each_cloud(region: str, domain: str, blob: str) -> None:
    given = {**GIVEN, "region": region}
    data = f"contoso.{region}.data.{domain}."
    assert names("global", region=region) == [f"contoso.{domain}.", data]
    assert names("regional", region=region) == [f"contoso.{region}.geo.{domain}.", data]
    assert AZURE.suffixes("auth", given) == [domain]
    assert AZURE.suffixes("storage", given) == [f"data.{domain}", blob]


def test_defaults() -> None:
    assert (AZURE.auth, AZURE.default_storage(GIVEN, "global")) == ("discover", "regional")


@pytest.mark.parametrize("instance", ["contoso", "Contoso01", "contosoacr-e7ggejfuhzhgedc8"])
def test_names_of_registries(instance: str) -> None:
    assert AZURE.complaints({**GIVEN, "instance": instance}, "global") == {}


@pytest.mark.parametrize("instance", ["abcd", "contoso.azurecr.io", "con_toso", "x" * 51])
def test_what_is_no_name_of_a_registry(instance: str) -> None:
    assert set(AZURE.complaints({**GIVEN, "instance": instance}, "global")) == {"instance"}


def test_a_region_as_the_portal_shows_it_is_refused() -> None:
    assert set(AZURE.complaints({**GIVEN, "region": "West Europe"}, "global")) == {"region"}
