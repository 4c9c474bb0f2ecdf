from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dnsproxy.core import names, seal
from dnsproxy.core.learned import Scope
from dnsproxy.core.registry import Sought
from dnsproxy.core.trust import Limited
from dnsproxy.errors import StartError
from dnsproxy.keys import read_trusted_keys, write_key_pair
from dnsproxy.settings import Settings
from dnsproxy.trust import limit, read_trust, with_own

ONE = {"name": "one", "provider": "harbor", "hostname": "one.example"}
SHARED = {"name": "shared.example", "role": "auth"}
TWO = {"name": "two", "provider": "generic", "names": [{"name": "two.example"}, SHARED]}


def settings(*trusted: Any, **learn: Any) -> Settings:
    registries = [{**ONE, "names": [SHARED]}, TWO]
    return Settings.model_validate({"registries": registries, "learn": {"trusted_keys": trusted, **learn}})


def key(folder: Path, name: str) -> tuple[str, str]:
    _, public = write_key_pair(folder / name)
    (key_id,) = read_trusted_keys([public])
    return str(public), key_id


def wire(*texts: str) -> frozenset[bytes]:
    return frozenset(map(names.to_key, texts))


def test_a_limited_key_has_the_names_of_its_registries_also_those_that_others_use_too() -> None:
    sought = (Sought("one", "auth", ()),)
    mine, others = wire("one.example", "shared.example"), wire("two.example")
    assert limit(settings(), frozenset({"one"})) == Limited(mine, sought, frozenset({"one"}), others)


def test_keys_are_read_with_their_limits(tmp_path: Path) -> None:
    (free, free_id), (tied, tied_id) = key(tmp_path, "free"), key(tmp_path, "tied")
    trust = read_trust(settings(free, {"file": tied, "registries": ["two"]}))
    assert set(trust.keys) == {free_id, tied_id}
    assert trust.scope == Scope(
        wire("one.example", "two.example", "shared.example"), (Sought("one", "auth", ()),)
    )
    assert {key_id: scope.label for key_id, scope in trust.limited.items()} == {tied_id: "two"}


def test_a_key_that_is_listed_twice_may_do_what_either_entry_says(tmp_path: Path) -> None:
    public, key_id = key(tmp_path, "k")
    one, two = ({"file": public, "registries": [label]} for label in ("one", "two"))
    assert read_trust(settings(one, two)).limited[key_id].registries == {"one", "two"}
    assert read_trust(settings(one, public)).limited == read_trust(settings(public, one)).limited == {}


def test_the_keys_of_this_host_are_not_limited(tmp_path: Path) -> None:
    public, key_id = key(tmp_path, "k")
    (own,) = read_trusted_keys([Path(public)]).values()
    trust = with_own(read_trust(settings({"file": public, "registries": ["one"]})), {seal.key_id(own): own})
    assert (set(trust.keys), trust.limited) == ({key_id}, {})


def test_every_key_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    absent = [str(tmp_path / "a.pub"), {"file": str(tmp_path / "b.pub"), "registries": ["one"]}]
    with pytest.raises(StartError) as caught:
        read_trust(settings(*absent))
    assert [Path(reason.partition(":")[0]).name for reason in caught.value.reasons] == ["a.pub", "b.pub"]
