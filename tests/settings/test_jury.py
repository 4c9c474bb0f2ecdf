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
        ({"helper": {"canary": {"proxies": ["http://a:1", "http://a:1/"]}}}, "two are the same"),
        ({"helper": {"canary": {"proxies": ["http://a:1"], "quorum": 2}}}, "a quorum of 2 cannot be had"),
    ],
)
def test_what_makes_no_sense(sections: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(**sections)


def test_endpoints() -> None:
    urls = ["http://10.0.0.1:9153/", "https://proxy.internal", "http://[fd00::1]:9153"]
    assert JurySettings(proxies=urls, quorum=3).proxies == [
        "http://10.0.0.1:9153",
        "https://proxy.internal",
        "http://[fd00::1]:9153",
    ]
