from __future__ import annotations

from typing import Any

import pytest

from dnsproxy.settings import Settings
from dnsproxy.settings.discovery import DiscoverSettings
from tests.settings.mistakes import ACR, complaints


def test_defaults_are_those_of_acr() -> None:
    assert DiscoverSettings().realm_suffixes == DiscoverSettings().storage_suffixes == ["aliyuncs.com."]
    assert DiscoverSettings().port == 443


@pytest.mark.parametrize(
    ("discover", "complaint"),
    [
        ({"realm_suffixes": ["."]}, "not one domain"),
        ({"storage_suffixes": ["*.aliyuncs.com"]}, "not one domain"),
        ({"host": "*.example"}, "not one domain"),
        ({"host": "a b"}, "white space"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"credentials_file": "c.json"}, "needs a repository"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_values_that_make_no_sense(discover: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(registries=[{**ACR, "discover": discover}])


@pytest.mark.parametrize(
    "repository",
    ["app", "team/app", "team/a-p_p.2:1.0", "team/app:latest", f"team/app@sha256:{'a' * 64}"],
)
def test_repositories(repository: str) -> None:
    assert DiscoverSettings(repository=repository).repository == repository


@pytest.mark.parametrize(
    "repository",
    [
        "",
        "Team/app",
        "/app",
        "app/",
        "a//b",
        "../x",
        "a/../b",
        "app:",
        "app:a b",
        "app@sha256:12",
        "a?b",
        "a#b",
    ],
)
def test_no_repositories(repository: str) -> None:
    assert "match pattern" in complaints(registries=[{**ACR, "discover": {"repository": repository}}])


def test_settings_are_read_from_their_registry() -> None:
    read = Settings.model_validate(
        {"registries": [{**ACR, "discover": {"realm_suffixes": ["Auth.Example"], "port": 5000}}]}
    )
    discover = read.registries[0].discover
    assert (discover.realm_suffixes, discover.storage_suffixes) == (["auth.example."], ["aliyuncs.com."])
    assert discover.port == 5000
