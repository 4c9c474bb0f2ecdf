from __future__ import annotations

from typing import Any

import pytest

from dnsproxy.settings import Settings
from dnsproxy.settings.schema import as_written
from dnsproxy.settings.serving import CacheSettings, ServeSettings
from tests.settings.mistakes import complaints


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"serve": {"listen": ["127.0.0.1"]}}, "no port"),
        ({"serve": {"listen": []}}, "at least 1 item"),
        ({"serve": {"allow": ["10.0.0.1/8"]}}, "has host bits set"),
        ({"serve": {"allow": [10]}}, "not a range"),
        ({"serve": {"proxy_protocol": ["10.0.0.1/8"]}}, "has host bits set"),
        ({"serve": {"proxy_protocol": ["2001:db8::/32"]}}, "2001:db8::/32 is in no range of allow"),
        ({"forward": {"upstreams": ["dns.example"]}}, "not an IP address"),
        ({"forward": {"timeout": {"attempt": "0s"}}}, "greater than or equal to 0.01"),
        (
            {"forward": {"upstreams": ["tls://dns.example"]}},
            "tls://dns.example:853: its address is not known",
        ),
        ({"forward": {"zones": {"a.example": ["https://dns.example"]}}}, "or give forward.bootstrap"),
        ({"forward": {"bootstrap": ["system"]}}, "not an IP address"),
        ({"forward": {"https_method": "put"}}, "'post' or 'get'"),
        ({"helper": {"resolvers": ["tls://10.0.0.5"]}}, "known are udp and tcp"),
        ({"serve": {"tls": {"listen": ["127.0.0.1:853"]}}}, "needs cert_file and key_file"),
        ({"serve": {"tls": {"path": "dns-query"}}}, "not a path"),
        ({"serve": {"max_tcp_per_client": 0}}, "greater than or equal to 1"),
        ({"cache": {"size": -1}}, "write 0 to 10000000 entries, or for example 64MiB"),
        ({"cache": {"size": "64MB"}}, "write for example 512KiB, 64MiB or 1GiB"),
        ({"cache": {"size": "99GiB"}}, "larger than"),
        ({"cache": {"size": True}}, "not a size"),
        ({"cache": {"max_ttl": "forever"}}, "less than or equal to 604800"),
        ({"forward": {"policy": "best"}}, "'fastest', 'sequential', 'random' or 'race'"),
        ({"forward": {"probe": {"interval": "0s"}}}, "greater than or equal to 1"),
        ({"forward": {"probe": {"rise": 0}}}, "greater than or equal to 1"),
        ({"cache": {"stale": "8d"}}, "less than or equal to 604800"),
        ({"serve": {"rate_limit": {"per_client": -1}}}, "greater than or equal to 0"),
        ({"serve": {"rate_limit": {"ipv4_prefix": 33}}}, "less than or equal to 32"),
        ({"serve": {"rate_limit": {"exempt": ["10.0.0.1/8"]}}}, "has host bits set"),
        ({"serve": {"identity": {"version": "x" * 256}}}, "at most 255 characters"),
        ({"serve": {"identity": {"server": ""}}}, "at least 1 character"),
        ({"log": {"format": "xml"}}, "'auto', 'console' or 'json'"),
    ],
)
def test_values_out_of_range(sections: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(**sections)


def test_names_of_upstreams_need_somebody_who_knows_them() -> None:
    given = Settings.model_validate(
        {"forward": {"upstreams": ["tls://dns.example"], "bootstrap": ["10.0.0.2", "tcp://[fd00::2]"]}}
    )
    assert [str(entry) for entry in given.forward.upstreams] == ["tls://dns.example:853"]
    assert [str(entry) for entry in given.forward.bootstrap] == ["10.0.0.2:53", "tcp://[fd00::2]:53"]


@pytest.mark.parametrize("workers", [0, 65, -1, True, "two", "2", 1.5, None])
def test_a_number_of_workers_that_is_none(workers: object) -> None:
    assert complaints(serve={"workers": workers}).endswith("write 1 to 64, or auto")


@pytest.mark.parametrize("workers", [1, 2, 64, "auto"])
def test_a_number_of_workers(workers: int | str) -> None:
    assert ServeSettings.model_validate({"workers": workers}).workers == workers


@pytest.mark.parametrize(
    ("written", "entries", "max_bytes"),
    [(1000, 1000, 1_024_000), (0, 0, 0), ("20MiB", 43_690, 20 << 20), ("1GiB", 2_236_962, 1 << 30)],
)
def test_the_size_of_the_cache_is_entries_or_bytes(written: object, entries: int, max_bytes: int) -> None:
    cache = CacheSettings.model_validate({"size": written})
    assert (cache.entries, cache.max_bytes) == (entries, max_bytes)
    assert str(as_written(cache.size)) == str(written)
