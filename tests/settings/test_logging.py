from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, get_args

import pytest

from dnsproxy.core.querylog import FIELDS
from dnsproxy.settings import Settings
from dnsproxy.settings import logging as logging_settings
from dnsproxy.settings.logging import QueryField, QueryLogSettings
from tests.settings.mistakes import complaints


def queries(value: object) -> QueryLogSettings:
    return Settings.model_validate({"log": {"queries": value}}).log.queries


def test_nothing_is_written_by_default() -> None:
    log = Settings().log
    assert (log.queries.enabled, log.dnstap.enabled) == (False, False)


def test_true_is_all_defaults_and_any_key_turns_it_on() -> None:
    assert queries(True).enabled
    assert not queries(False).enabled
    assert queries(True) == queries({})
    assert queries({"sample": 10}).enabled
    assert not queries({"enabled": False, "sample": 10}).enabled


def test_the_fields_are_those_of_the_lines() -> None:
    assert get_args(QueryField) == tuple(FIELDS)
    assert tuple(queries(True).fields) == tuple(FIELDS)


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        ({"queries": 1}, "write true, false, or keys"),
        ({"queries": {"sample": 0}}, "greater than or equal to 1"),
        ({"queries": {"fields": []}}, "at least 1 item"),
        ({"queries": {"fields": ["mood"]}}, "Input should be 'time'"),
        ({"queries": {"clients": "hash"}}, "'full', 'prefix' or 'omit'"),
        ({"dnstap": {"socket": "/a", "file": "/b"}}, "not both"),
        ({"dnstap": {"socket": "/" + "a" * 107}}, "107 octets at most"),
        ({"dnstap": {"identity": ""}}, "at least 1 character"),
    ],
)
def test_mistakes(log: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(log=log)


def test_dnstap_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(logging_settings, "find_spec", lambda name: None if name == "fstrm" else find(name))
    expected = "needs fstrm; run: pip install 'dnstap-pb>=0.11.3,<1' 'fstrm>=0.6,<1'"
    assert expected in complaints(log={"dnstap": {"file": "/x"}})
    # Who does not use it does not need them.
    assert Settings.model_validate({"log": {"queries": True}}).log.dnstap.file is None


def test_a_relative_file_is_taken_as_it_is() -> None:
    assert queries({"file": "q.jsonl"}).file == Path("q.jsonl")
