from __future__ import annotations

from typing import Any

import pytest

from dnsproxy.settings.jury import JurySettings
from tests.settings.mistakes import complaints


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"helper": {"canary": {"proxies": ["10.0.0.1:9153"]}}}, "not an admin endpoint"),
        ({"helper": {"canary": {"proxies": ["http://u:p@10.0.0.1:9153"]}}}, "a user name or password"),
        ({"helper": {"canary": {"proxies": ["https://a:1", "https://a:1/"]}}}, "two are the same"),
        ({"helper": {"canary": {"proxies": ["https://a:1"], "quorum": 2}}}, "a quorum of 2 cannot be had"),
        (
            {"helper": {"canary": {"proxies": ["http://10.0.0.1:9153"]}}},
            "write https://, or a loopback address",
        ),
        ({"helper": {"canary": {"proxies": ["http://proxy.internal:9153"]}}}, "write https://"),
        ({"helper": {"canary": {"proxies": ["http://127.0.0.1.example:9153"]}}}, "write https://"),
        ({"helper": {"canary": {"proxies": ["https://a:1"], "token_file": "/t"}}}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense(sections: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(**sections)


def test_endpoints() -> None:
    urls = ["https://10.0.0.1:9153/", "https://proxy.internal", "http://[::1]:9153", "http://127.0.0.2:9153"]
    assert JurySettings(proxies=[*urls, "http://localhost:1"], quorum=3).proxies == [
        "https://10.0.0.1:9153",
        "https://proxy.internal",
        "http://[::1]:9153",
        "http://127.0.0.2:9153",
        "http://localhost:1",
    ]


@pytest.mark.parametrize(("count", "needed"), [(0, 1), (1, 1), (2, 1), (3, 2), (10, 2)])
def test_of_three_proxies_and_more_two_must_agree(count: int, needed: int) -> None:
    settings = JurySettings(proxies=[f"https://proxy{number}" for number in range(count)])
    assert settings.votes_needed == needed
    if count:
        assert JurySettings(proxies=settings.proxies, quorum=count).votes_needed == count
