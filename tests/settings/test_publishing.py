from __future__ import annotations

from typing import Any

import pytest

from dnsproxy import config
from dnsproxy.errors import ConfigError
from dnsproxy.settings.learning import HelperSettings
from tests.settings.mistakes import complaints

FILE = {"type": "file", "path": "/var/lib/dnsproxy/snapshot.jws"}


def test_a_file() -> None:
    (target,) = HelperSettings.model_validate({"publish": [FILE]}).publish
    assert target.name == "file:///var/lib/dnsproxy/snapshot.jws"


@pytest.mark.parametrize(
    ("targets", "complaint"),
    [
        ([FILE, FILE], "two targets are the same"),
        ([{"type": "file"}], "Field required"),
        ([FILE | {"colour": "blue"}], "Extra inputs"),
    ],
)
def test_targets_that_make_no_sense(targets: list[dict[str, Any]], complaint: str) -> None:
    assert complaint in complaints(helper={"publish": targets})


def test_mistakes_in_a_target_have_the_line_and_the_key() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse("helper:\n  publish:\n    - type: file\n      colour: blue\n", "c.yaml")
    assert str(caught.value).splitlines() == [
        "c.yaml:3: helper.publish[0].path: must be given",
        "c.yaml:4: helper.publish[0].colour: unknown key",
    ]
