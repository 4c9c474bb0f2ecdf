from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from dnsproxy.admin.registries import registries_document
from dnsproxy.config import parse
from dnsproxy.ops.known import Known, NothingKnownError
from dnsproxy.ops.proxy_settings import from_document, from_settings

TEXT = """\
registries:
  - {name: hz, region: cn-hangzhou, instance: xxxxxx, network: {routed: [10.0.0.0/8]}}
  - {name: other, provider: generic, names: [{name: a.example, addresses: [10.1.2.3]}]}
learn: {verify: {ports: [443, 8443], ca_file: /etc/ca.pem}}
"""
KNOWN = Known("http://127.0.0.1:1", True, 7, ())


def test_a_configuration() -> None:
    made = from_settings(parse(TEXT))
    assert made.routed == {"hz": (ip_network("10.0.0.0/8"),), "other": ()}
    assert [(r.provider, r.discovers_auth) for r in made.registries] == [("acr", True), ("generic", False)]
    assert (made.ports, made.tls, made.ca_file, made.is_remote) == (
        (443, 8443),
        True,
        Path("/etc/ca.pem"),
        False,
    )
    assert "a.example." in [entry.name for entry in made.names.names]


def test_the_document_of_a_proxy_says_the_same() -> None:
    document = json.loads(json.dumps(registries_document(parse(TEXT))))
    made, local = from_document(document, KNOWN), from_settings(parse(TEXT))
    assert (made.registries, made.ports, made.tls, made.ca_file) == (
        local.registries,
        local.ports,
        local.tls,
        local.ca_file,
    )
    assert (made.names, made.is_remote) == (KNOWN, True)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"registries": 1, "verify": {}},
        {
            "registries": [{"name": "a", "provider": "acr", "discovers_auth": True, "routed": ["x"]}],
            "verify": {"ports": [], "tls": True, "ca_file": None},
        },
    ],
)
def test_another_document_is_none(document: dict[str, Any]) -> None:
    with pytest.raises(NothingKnownError, match=r"http://127\.0\.0\.1:1: not a document of registries"):
        from_document(document, KNOWN)
