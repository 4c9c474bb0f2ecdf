from __future__ import annotations

from typing import Any

import pytest

from tests.settings.mistakes import complaints


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"serve": {"listen": ["127.0.0.1"]}}, "no port"),
        ({"serve": {"listen": []}}, "at least 1 item"),
        ({"serve": {"allow": ["10.0.0.1/8"]}}, "has host bits set"),
        ({"serve": {"allow": [10]}}, "not a range"),
        ({"forward": {"upstreams": ["dns.example"]}}, "not an IP address"),
        ({"forward": {"timeout": {"attempt": "0s"}}}, "greater than or equal to 0.01"),
        ({"cache": {"size": -1}}, "greater than or equal to 0"),
        ({"cache": {"max_ttl": "forever"}}, "less than or equal to 604800"),
        ({"log": {"format": "xml"}}, "'auto', 'console' or 'json'"),
    ],
)
def test_values_out_of_range(sections: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(**sections)
