from __future__ import annotations

from dnsproxy.admin.registries import registries_document
from dnsproxy.config import parse


def test_what_other_hosts_need_of_the_configuration() -> None:
    settings = parse(
        "registries: [{name: hz, region: cn-hangzhou, instance: x, network: {routed: [10.0.0.0/8]}}]"
    )
    assert registries_document(settings) == {
        "registries": [
            {"name": "hz", "provider": "acr", "discovers_auth": True, "routed": ["10.0.0.0/8"]},
        ],
        "verify": {"ports": [443], "tls": True, "ca_file": None},
    }
