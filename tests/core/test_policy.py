from __future__ import annotations

from dataclasses import replace

import pytest

from dnsproxy.core import names, wire
from dnsproxy.core.addresses.table import ServedTable
from dnsproxy.core.policy import MAX_ROTATIONS, Owned, Ruleset, build_rules
from dnsproxy.core.registry import Wanted
from tests.strategies import learned, served_table, snapshot

RULES = Ruleset(
    [Owned("a.example."), Owned("*.a.example."), Owned("*.b.a.example."), Owned("c.b.a.example.")],
    [names.to_key("corp.example"), names.to_key("lab.corp.example"), b"\x00"],
)


LONG = "x" * 63 + "."


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        (f"{LONG}a.example.", "*.a.example."),
        (f"{LONG}{LONG}{LONG}b.a.example.", "*.b.a.example."),
        (f"{LONG}c.b.a.example.", "*.b.a.example."),
        (f"{LONG}aa.example.", None),
        (f"{LONG}c\\001b\\001a\\007example.", None),
        (f"{LONG}example.", None),
        ("a.example.", "a.example."),
        ("x.a.example.", "*.a.example."),
        ("x.y.a.example.", "*.a.example."),
        ("x.b.a.example.", "*.b.a.example."),
        ("b.a.example.", "*.a.example."),
        ("c.b.a.example.", "c.b.a.example."),
        ("example.", None),
        ("aa.example.", None),
        ("a.example.svc.cluster.local.", None),
        (".", None),
    ],
)
def test_p04_exact_then_longest_wildcard_never_its_parent(name: str, owner: str | None) -> None:
    found = RULES.find_owned(names.to_key(name))
    assert (found.name if found else None) == owner


def test_a_dot_inside_a_label_is_no_separator() -> None:
    assert RULES.find_owned(b"\x0bx.a.example\x00") is None


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("corp.example.", "corp.example."),
        ("x.corp.example.", "corp.example."),
        ("x.lab.corp.example.", "lab.corp.example."),
        ("xcorp.example.", "."),
        (".", "."),
    ],
)
def test_p23_longest_zone_wins(name: str, zone: str) -> None:
    assert RULES.find_zone(names.to_key(name)) == names.to_key(zone)


def test_p01_each_look_starts_with_the_next_rotation() -> None:
    owned = Owned("a.example.", addresses=("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    firsts = [owned.variants(wire.A)[0][1][-4 * 16 + 16 :] for _ in range(4)]
    assert len(set(firsts)) == 3
    assert firsts[0] == firsts[3]
    assert len(owned.variants(wire.A)) == len({data for _, data in owned.variants(wire.A)}) == 3


def test_long_sets_have_bounded_variants_of_all_addresses() -> None:
    owned = Owned("a.example.", addresses=tuple(f"10.0.0.{last}" for last in range(40)))
    variants = owned.variants(wire.A)
    assert len(variants) == MAX_ROTATIONS
    assert {counts for counts, _ in variants} == {(40, 0, 0)}


def test_p02_types_without_addresses_get_nodata() -> None:
    owned = Owned("a.example.", addresses=("10.0.0.1",))
    ((counts, soa),) = owned.variants(wire.AAAA)
    assert owned.variants(65) == [(counts, soa)]
    assert counts == (0, 1, 0)
    assert soa


MANAGED = (
    Wanted("pinned.example.", "other", "hz", addresses=("10.9.9.9",)),
    Wanted("learned.example.", "registry", "hz"),
    Wanted("unknown.example.", "auth", "hz"),
)


def build(table: ServedTable, earlier: Ruleset | None = None) -> Ruleset:
    return build_rules(table, [], ttl=20, max_stale=50.0, now=100.0, wall_now=1000.0, earlier=earlier)


def test_rules_from_pins_and_learned_sets() -> None:
    taken = replace(snapshot(learned("learned.example.")), expires_at=1300)
    rules = build(served_table(taken, managed=MANAGED))
    by_name = {owned.name: owned for owned in rules.owned()}
    assert by_name["pinned.example."].addresses == ("10.9.9.9",)
    assert by_name["pinned.example."].stale_at == float("inf")
    assert not by_name["unknown.example."].ready
    held = by_name["learned.example."]
    assert (held.addresses, held.ttl, held.stale_at, held.gone_at) == (("10.0.0.1",), 20, 400.0, 450.0)


def test_what_a_snapshot_only_confirms_is_not_built_again() -> None:
    def at(expires_at: int, *addresses: str, serial: int = 1) -> ServedTable:
        taken = snapshot(learned("learned.example.", addresses), serial=serial)
        return served_table(replace(taken, expires_at=expires_at))

    key = names.to_key("learned.example.")
    first = build(at(1300, "10.0.0.1"))
    made = first.find_owned(key)
    second = build(at(1400, "10.0.0.1", serial=2), first)
    assert second.find_owned(key) is made
    assert made is not None
    assert (made.stale_at, made.gone_at) == (500.0, 550.0)
    third = build(at(1400, "10.0.0.2", serial=3), second).find_owned(key)
    assert third is not made
    assert third is not None
    assert third.addresses == ("10.0.0.2",)


def test_a_name_that_is_not_managed_is_not_owned() -> None:
    table = served_table(snapshot(learned("gone.example.")), managed=MANAGED)
    assert build(table).find_owned(names.to_key("gone.example.")) is None


def test_a_managed_name_is_owned_before_it_has_an_address() -> None:
    table = ServedTable().managing([Wanted("auth.cloud.example.", "auth", "hz")])
    assert [(owned.name, owned.ready) for owned in build(table).owned()] == [("auth.cloud.example.", False)]
