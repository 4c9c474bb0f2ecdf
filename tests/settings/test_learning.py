from __future__ import annotations

from typing import Any

import pytest

from tests.settings.mistakes import complaints


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"helper": {"tls": {"cert_file": "c.pem"}}}, "cert_file and key_file together"),
        ({"helper": {"tls": {"client_ca_file": "ca.pem"}}}, "client_ca_file needs"),
        ({"helper": {"interval": "100ms"}}, "greater than or equal to 1"),
        ({"helper": {"resolvers": []}}, "at least 1 item"),
        ({"learn": {"sources": [{"url": "https://h:1/v1/snapshot"}]}}, "sources need trusted_keys"),
        ({"learn": {"sources": [{"url": "ftp://h/x"}], "trusted_keys": ["k"]}}, "match pattern"),
        ({"learn": {"ttl": 0}}, "greater than or equal to 1"),
        ({"learn": {"verify": {"ports": [70_000]}}}, "less than or equal to 65535"),
        ({"learn": {"verify": {"timeout": "0s"}}}, "greater than or equal to 0.1"),
        ({"learn": {"verify": {"on_failure": "hope"}}}, "'keep' or 'accept'"),
        ({"learn": {"history": -1}}, "greater than or equal to 0"),
    ],
)
def test_values_out_of_range(sections: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(**sections)
