from __future__ import annotations

from typing import Any

import pytest

from dnsproxy import config
from dnsproxy.errors import ConfigError
from dnsproxy.settings.etcd import EtcdSource
from dnsproxy.settings.learning import HelperSettings
from tests.settings.mistakes import complaints

TWO = {
    "type": "etcd",
    "endpoints": ["https://10.0.0.10:2379", "https://[fd00::1]:2379/"],
    "key": "/dnsproxy/hangzhou",
}


def test_a_source_is_watched_and_named_without_secrets() -> None:
    read = EtcdSource.model_validate(TWO | {"user": "proxy", "password_file": "/secret"})
    assert read.endpoints == ["https://10.0.0.10:2379", "https://[fd00::1]:2379"]
    assert read.url == "etcd://10.0.0.10:2379,[fd00::1]:2379/dnsproxy/hangzhou"
    assert (read.is_local, read.can_wait) == (False, True)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"endpoints": []}, "at least 1 item"),
        ({"endpoints": ["10.0.0.10:2379"]}, "not the URL of a member"),
        ({"endpoints": ["http://me:hunter2@h:2379"]}, "not the URL of a member"),
        ({"endpoints": ["https://h:99999"]}, "not the URL of a member"),
        ({"endpoints": ["https://h:2379/v3"]}, "not the URL of a member"),
        ({"key": ""}, "at least 1 character"),
        ({"user": "proxy"}, "user and password_file together"),
        ({"tls": {"cert_file": "c.pem"}}, "cert_file and key_file together"),
        ({"endpoints": ["http://h:2379"], "tls": {"ca_file": "ca.pem"}}, "tls is for https endpoints"),
        ({"elect": True}, "Extra inputs"),
    ],
)
def test_sources_that_make_no_sense(more: dict[str, Any], complaint: str) -> None:
    told = complaints(learn={"sources": [TWO | more], "trusted_keys": ["k"]})
    assert complaint in told
    assert "hunter2" not in told


def test_it_needs_keys_to_trust() -> None:
    assert "sources need trusted_keys" in complaints(learn={"sources": [TWO]})


@pytest.mark.parametrize(
    ("targets", "complaint"),
    [
        ([TWO | {"elect": True}, TWO | {"elect": True, "key": "/other"}], "elect is for one target"),
        ([TWO | {"peer_keys": ["k.pub"]}], "peer_keys is for elect"),
        ([TWO | {"elect": True, "lease": "1s"}], "greater than or equal to 3"),
        ([TWO, TWO], "two targets are the same"),
    ],
)
def test_targets_that_make_no_sense(targets: list[dict[str, Any]], complaint: str) -> None:
    assert complaint in complaints(helper={"publish": targets})


def test_the_office_is_the_target_that_elects() -> None:
    plain, elects = TWO | {"key": "/other"}, TWO | {"elect": True}
    assert HelperSettings.model_validate({"publish": [plain]}).office is None
    office = HelperSettings.model_validate({"publish": [plain, elects]}).office
    assert office is not None
    assert (office.key, office.lease) == ("/dnsproxy/hangzhou", 10.0)


def test_mistakes_below_a_type_have_their_line() -> None:
    text = """\
learn:
  trusted_keys: [helper.pub]
  sources:
    - type: etcd
      endpoints: [https://10.0.0.10:2379, nonsense]
      tls:
        ca_fil: ca.pem
"""
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "c.yaml")
    places = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert places == ["learn.sources[0].key", "learn.sources[0].endpoints[1]", "learn.sources[0].tls.ca_fil"]
