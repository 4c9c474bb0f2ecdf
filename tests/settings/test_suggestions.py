from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dnsproxy.settings import Settings
from dnsproxy.settings.suggestions import keys_at, suggestion


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("upstream", "; did you mean upstreams?"),
        ("Upstreams", "; did you mean upstreams?"),
        ("max-ttl", "; did you mean max_ttl?"),
        ("maxttl", "; did you mean max_ttl?"),
        ("colour", ""),
        ("", ""),
    ],
)
def test_the_closest_word_is_suggested(word: str, expected: str) -> None:
    assert suggestion(word, ["upstreams", "max_ttl", "zones"]) == expected


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ((), "registries"),
        (("forward",), "upstreams"),
        (("forward", "timeout"), "attempt"),
        (("registries", 0), "region"),
        (("registries", 3, "names", 1), "allowed"),
        (("registries", 3, "discover"), "realm_suffixes"),
        (("learn", "canary"), "hold"),
        (("learn", "trusted_keys", 0, "KeySettings"), "registries"),
        (("learn", "sources", 0, "type s3"), "bucket"),
        (("learn", "sources", 0, "type etcd", "tls"), "ca_file"),
        (("helper", "publish", 0, "type kubernetes"), "kind"),
    ],
)
def test_the_keys_of_a_place(place: tuple[str | int, ...], key: str) -> None:
    assert key in keys_at(Settings, place)


def test_the_members_of_a_union_are_told_apart() -> None:
    assert "bucket" not in keys_at(Settings, ("learn", "sources", 0, "type etcd"))
    assert "long_poll" in keys_at(Settings, ("learn", "sources", 0, "type url"))


def test_a_place_that_is_no_mapping_of_keys_has_none() -> None:
    assert keys_at(Settings, ("forward", "zones")) == []
    assert keys_at(Settings, ("cache", "size", 3, "nothing")) == []


@given(st.lists(st.one_of(st.text(max_size=8), st.integers(0, 3)), max_size=4))
def test_any_place_can_be_asked_for(place: list[str | int]) -> None:
    assert isinstance(keys_at(Settings, place), list)


def _keys(model: type[BaseModel], path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield (*path, key), field.annotation
            yield from _keys(field.annotation, (*path, key))


def test_every_section_is_found() -> None:
    found = dict(_keys(Settings, ()))
    assert len(found) > 10
    for place, model in found.items():
        assert keys_at(Settings, place) == list(model.model_fields)
