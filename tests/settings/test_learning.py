from __future__ import annotations

from typing import Any

import pytest

from dnsproxy.settings.learning import LearnSettings, SourceSettings
from dnsproxy.settings.values import Endpoint
from tests.settings.mistakes import complaints


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"helper": {"tls": {"cert_file": "c.pem"}}}, "cert_file and key_file together"),
        ({"helper": {"tls": {"client_ca_file": "ca.pem"}}}, "client_ca_file needs"),
        ({"helper": {"interval": "100ms"}}, "greater than or equal to 1"),
        ({"helper": {"resolvers": []}}, "at least 1 item"),
        ({"learn": {"sources": [{"url": "https://h:1/v1/snapshot"}]}}, "sources need trusted_keys"),
        ({"learn": {"sources": [{"url": "ftp://h/x"}], "trusted_keys": ["k"]}}, "not an http://"),
        ({"learn": {"ttl": 0}}, "greater than or equal to 1"),
        ({"learn": {"verify": {"ports": [70_000]}}}, "less than or equal to 65535"),
        ({"learn": {"verify": {"timeout": "0s"}}}, "greater than or equal to 0.1"),
        ({"learn": {"verify": {"on_failure": "hope"}}}, "'keep' or 'accept'"),
        ({"learn": {"history": -1}}, "greater than or equal to 0"),
        ({"learn": {"history": 101}}, "less than or equal to 100"),
        ({"learn": {"canary": {"share": "5"}}}, "not a share"),
        ({"learn": {"canary": {"hold": "500ms"}}}, "greater than or equal to 1"),
        ({"learn": {"canary": {"hold": "forever"}}}, "less than or equal to 604800"),
        ({"learn": {"canary": {"fall": 1}}}, "greater than or equal to 2"),
        ({"learn": {"canary": {"clients": ["10.0.0.0/8"]}}}, "Extra inputs are not permitted"),
        ({"learn": {"canary": {"part": "5%"}}}, "Extra inputs are not permitted"),
    ],
)
def test_values_out_of_range(sections: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(**sections)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({}, "give a url, or type: embedded"),
        ({"url": ""}, "give a url"),
        ({"url": "embedded:"}, "give a url"),
        ({"type": "embedded", "url": "file:///x"}, "type: embedded without one"),
        ({"type": "embedded", "url": ""}, "give a url"),
        ({"type": "other"}, "known are url, embedded"),
        ({"url": "dns://resolver.example"}, "not an IP address"),
        ({"url": "dns://10.0.0.5:0"}, "not a port"),
        ({"url": "dns://10.0.0.5/x"}, "not an IP address"),
        ({"url": "dns://tcp://10.0.0.5"}, "write for example dns://10.0.0.5"),
        ({"url": "dns://"}, "not an IP address"),
        ({"url": "https://h.example/ x"}, "not an http://"),
        ({"url": "dns://10.0.0.5", "token_file": "t"}, "for http sources"),
        ({"type": "embedded", "ca_file": "c"}, "for http sources"),
    ],
)
def test_sources_that_make_no_sense(source: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(learn={"sources": [source], "trusted_keys": ["k"]})


@pytest.mark.parametrize(
    ("source", "resolver"),
    [
        ({"url": "dns://10.0.0.5"}, Endpoint("10.0.0.5", 53)),
        ({"url": "dns://10.0.0.5:5353"}, Endpoint("10.0.0.5", 5353)),
        ({"url": "dns://[fd00::5]:5353"}, Endpoint("fd00::5", 5353)),
        ({"type": "embedded"}, None),
    ],
)
def test_a_source_that_this_host_makes_itself_needs_no_key(
    source: dict[str, Any], resolver: Endpoint | None
) -> None:
    (read,) = LearnSettings.model_validate({"sources": [source]}).sources
    assert isinstance(read, SourceSettings)
    assert (read.is_local, read.resolver) == (True, resolver)


def test_a_source_from_elsewhere() -> None:
    read = SourceSettings(url="file:///var/lib/x.jws")
    assert (read.is_local, read.resolver) == (False, None)


def test_one_source_is_listed_once() -> None:
    for source in ({"type": "embedded"}, {"url": "dns://10.0.0.5"}, {"url": "file:///x"}):
        assert "two sources are the same" in complaints(
            learn={"sources": [source] * 2, "trusted_keys": ["k"]}
        )
