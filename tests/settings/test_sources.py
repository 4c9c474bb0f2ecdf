from __future__ import annotations

from typing import Any

import pytest

from dnsproxy import config
from dnsproxy.errors import ConfigError
from dnsproxy.settings.sources import SourceSettings


@pytest.mark.parametrize(
    ("source", "can_wait"),
    [
        ({"url": "http://h.example/v1/snapshot"}, True),
        ({"url": "https://h.example/v1/snapshot"}, True),
        ({"url": "https://bucket.example/x?Signature=abc"}, False),
        ({"url": "https://cdn.example/v1/snapshot", "long_poll": False}, False),
        ({"url": "file:///x"}, False),
        ({"url": "dns://10.0.0.5:53"}, True),
        ({"type": "embedded"}, True),
    ],
)
def test_only_a_plain_http_url_and_what_is_in_here_take_a_long_poll(
    source: dict[str, Any], *, can_wait: bool
) -> None:
    assert SourceSettings.model_validate(source).can_wait is can_wait


def test_mistakes_in_a_source_have_the_line_and_the_key() -> None:
    text = """\
learn:
  trusted_keys: [helper.pub]
  sources:
    - url: http://h.example/x
      token_file: [1]
      colour: blue
    - type: pigeon
"""
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "c.yaml")
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("c.yaml:5: learn.sources[0].token_file: ")
    assert second == "c.yaml:6: learn.sources[0].colour: unknown key"
    assert third.startswith("c.yaml:7: learn.sources[1]: type: one that is not known; known are url")
