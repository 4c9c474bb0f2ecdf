from __future__ import annotations

import re
from typing import Any

import pytest

from dnsproxy.settings import Settings, schema
from docgen import configuration
from docgen.configuration import Key
from tests.test_config import keys_of

KEYS = {key.path: key for key in configuration.keys(schema())}


def test_every_key_of_the_models_is_on_the_page() -> None:
    paths = {re.sub(r"\[\w*\]", "", path).removesuffix(".ZONE") for path in KEYS}
    assert paths == set(keys_of(Settings))


@pytest.mark.parametrize(
    "wanted",
    [
        ("registries[].name", "text, must be given", "", "1 to 64 characters"),
        (
            "registries[].provider",
            "`acr`, `ecr`, `azure`, `tcr`, `swr`, `harbor`, `generic`",
            "acr",
            "",
        ),
        ("registries[].auth", "`discover`, `regional`, `none` or domain name", "discover", ""),
        ("registries[].chart", "`true`, `false`", "false", ""),
        ("registries[].names[].ports", "list: integer or `null`", "null", "each 1 to 65535"),
        ("helper.interval", "duration", "30s", "1s to 1h"),
        ("helper.signing_key_file", "file", "/etc/dnsproxy/helper.key", ""),
        ("helper.publish[file].path", "file, must be given", "", ""),
        ("learn.max_stale", "duration", "forever", ""),
        ("serve.listen", "list: address with port", '["0.0.0.0:53", "[::]:53"]', "at least 1 entry"),
        ("serve.workers", "integer or `auto`", "1", "1 to 64"),
        ("forward.zones.ZONE", "mapping to list: upstream", "{}", ""),
        ("forward.probe.interval", "duration", "60s", "at least 1s"),
        ("cache.min_ttl", "duration", "0s", "at most 1h"),
        ("admin.listen", "address with port or `null`", "127.0.0.1:9153", ""),
    ],
    ids=lambda wanted: wanted[0],
)
def test_kind_default_and_bounds(wanted: tuple[str, str, str, str]) -> None:
    key = KEYS[wanted[0]]
    assert (key.path, key.kind, key.default, key.bounds) == wanted
    assert key.meaning.endswith(".")


def test_a_section_stands_before_its_keys() -> None:
    order = list(KEYS)
    for path, key in KEYS.items():
        if key.is_section:
            assert order[order.index(path) + 1].startswith((f"{path}.", f"{path.removesuffix(']')}"))
            assert key.default == ""


def test_the_page_has_an_anchor_for_each_key() -> None:
    text = configuration.page(schema())
    assert "\n### registries[].names[].allowed { #registries.names.allowed }\n" in text
    assert "\n## cache { #cache }\n" in text
    assert text.count(" { #") == len(KEYS)


def test_a_plain_document() -> None:
    document: dict[str, Any] = {
        "properties": {"depth": {"type": "integer", "maximum": 9, "default": 3, "description": "How deep."}}
    }
    assert list(configuration.keys(document)) == [
        Key("depth", "integer", "How deep.", "3", "at most 9", is_section=False)
    ]
    assert configuration.page(document).endswith(
        "\n## depth { #depth }\n\n*integer* · at most 9 · default `3`\n\nHow deep.\n"
    )
