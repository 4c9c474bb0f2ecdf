from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dnsproxy import config
from dnsproxy.settings import Settings, schema
from dnsproxy.settings.schema import as_written, duration_text
from dnsproxy.settings.values import Endpoint, parse_duration

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
DOCUMENT = schema()


def mistakes(text: str) -> list[str]:
    found = Draft202012Validator(DOCUMENT).iter_errors(yaml.safe_load(text))
    return sorted(".".join(str(step) for step in error.absolute_path) for error in found)


def keys() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, model in [("", DOCUMENT), *DOCUMENT["$defs"].items()]:
        for key, entry in model["properties"].items():
            yield f"{name}.{key}", entry


def test_it_is_valid_json_and_a_valid_schema() -> None:
    # Infinity is no JSON, though Python writes it.
    assert json.loads(json.dumps(DOCUMENT, allow_nan=False)) == DOCUMENT
    Draft202012Validator.check_schema(DOCUMENT)
    assert DOCUMENT["title"] == "Configuration of dnsproxy"


def test_every_key_says_what_it_means() -> None:
    wrong = [path for path, entry in keys() if not entry.get("description", "").endswith(".")]
    assert wrong == [], "a string below the field in dnsproxy/settings is its meaning; full sentences"


def test_every_key_but_the_names_and_sections_has_a_default() -> None:
    without = [path for path, entry in keys() if "default" not in entry and "$ref" not in json.dumps(entry)]
    chosen = re.compile(r"\w+(Target|Source)\.")  # what `type` chooses has keys that must be given
    assert [path for path in without if not chosen.match(path)] == [
        "NameSettings.name",
        "RegistrySettings.name",
        "KeySettings.file",
        "KeySettings.registries",
    ]


def defaults_of(model: dict[str, Any]) -> dict[str, Any]:
    """What a file would hold that spells out every default."""
    found: dict[str, Any] = {}
    for key, entry in model["properties"].items():
        reference = entry.get("$ref") or entry.get("anyOf", [{}])[0].get("$ref")
        if reference and "default" not in entry:
            found[key] = defaults_of(DOCUMENT["$defs"][reference.rpartition("/")[2]])
        else:
            found[key] = entry["default"]
    return found


def test_the_defaults_written_out_are_the_defaults() -> None:
    assert config.parse(json.dumps(defaults_of(DOCUMENT))) == Settings()


def test_the_example_fits() -> None:
    assert mistakes(EXAMPLE.read_text(encoding="utf-8")) == []


def test_empty_sections_fit_as_they_are_left_out() -> None:
    assert mistakes("helper:\ncache:\n") == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("log: {level: loud}", "log"),
        ("cache: {size: -1}", "cache"),
        ("cache: {stale: soon}", "cache"),
        ("learn: {refresh: 0.01}", "learn"),
        ("serve: {listen: 53}", "serve"),
        ("serve: {workers: 65}", "serve"),
        ("registries: [{region: cn-hangzhou}]", "registries.0"),
        ("colour: blue", ""),
    ],
)
def test_mistakes_are_found(text: str, place: str) -> None:
    assert mistakes(text) == [place]


def test_bounds_of_durations_are_stated() -> None:
    timeout = DOCUMENT["$defs"]["TimeoutSettings"]["properties"]["attempt"]
    assert (timeout["minimum"], timeout["maximum"]) == (0.01, 30)
    assert "maximum" not in DOCUMENT["$defs"]["LearnSettings"]["properties"]["max_stale"]


def test_values_as_they_stand_in_the_file() -> None:
    assert as_written(Endpoint("::", 53)) == "[::]:53"
    assert as_written(["system", Endpoint("10.0.0.5", 853, "tls", "dns.example")]) == [
        "system",
        "tls://10.0.0.5:853#dns.example",
    ]
    assert as_written({"a": [0.8, True, 3, None]}) == {"a": ["800ms", True, 3, None]}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.8, "800ms"),
        (1.8, "1800ms"),
        (30.0, "30s"),
        (60.0, "60s"),
        (300.0, "5m"),
        (3600.0, "1h"),
        (86_400.0, "24h"),
        (604_800.0, "7d"),
        (math.inf, "forever"),
    ],
)
def test_durations_as_people_write_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@given(st.integers(0, 10**12))
def test_a_written_duration_is_the_duration(milliseconds: int) -> None:
    assert parse_duration(duration_text(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)
