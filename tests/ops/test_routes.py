from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.ops.known import Known, KnownName, Network
from dnsproxy.ops.routes import MAX_CUSTOM_ROUTES, Plan, Uncovered, plan_routes

REGISTRY = "xxxxxx-registry-vpc.cn-hangzhou.cr.aliyuncs.com."
AUTH = "dockerauth-vpc.cn-hangzhou.aliyuncs.com."
OSS = "oss-cn-hangzhou-internal.aliyuncs.com."
HANGZHOU = ["100.98.170.0/24", "100.114.102.0/24", "100.118.28.0/24", "100.118.31.0/24"]


def name(text: str, *addresses: str, role: str = "registry", registry: str = "hz") -> KnownName:
    return KnownName(text, role, registry, addresses, "helper-a", 7, 3.0)


def known(*entries: KnownName) -> Known:
    return Known("test", True, 7, entries)


def ranges(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


def plan(*entries: KnownName, routed: tuple[str, ...] = ()) -> Plan:
    return plan_routes(known(*entries), {"hz": ranges(*routed)})


def destinations(made: Plan) -> list[str]:
    return [str(route.destination) for route in made.routes]


EXAMPLE = (
    name(REGISTRY, "10.94.205.198"),
    name(AUTH, "100.103.7.181", role="auth"),
    name(OSS, "100.118.28.43", role="storage"),
    name(f"*.{OSS}", "100.118.28.43", role="storage"),
)


def test_hosts_for_registry_and_auth_and_all_ranges_of_the_region_for_storage() -> None:
    made = plan(*EXAMPLE, routed=("10.0.0.0/8", "100.118.28.0/24"))
    assert destinations(made) == [
        *("10.94.205.198/32", "100.98.170.0/24", "100.103.7.181/32"),
        *("100.114.102.0/24", "100.118.28.0/24", "100.118.31.0/24"),
    ]
    assert [str(route.destination) for route in made.missing] == [
        *("100.98.170.0/24", "100.103.7.181/32", "100.114.102.0/24", "100.118.31.0/24"),
    ]
    storage = made.routes[4]
    assert (storage.names, storage.addresses) == ((OSS, f"*.{OSS}"), ("100.118.28.43",))
    assert made.uncovered == (Uncovered(AUTH, "hz", "100.103.7.181"),)


def test_a_range_that_holds_no_address_now_is_missing_and_no_address_is_uncovered() -> None:
    made = plan(name(OSS, "100.118.28.43", role="storage"), routed=("100.118.28.43/32",))
    assert made.uncovered == ()
    assert [str(route.destination) for route in made.missing] == HANGZHOU


def test_two_stated_halves_cover_a_range() -> None:
    made = plan(name(OSS, "100.118.28.43", role="storage"), routed=("100.118.28.0/25", "100.118.28.128/25"))
    assert [str(route.destination) for route in made.missing] == [HANGZHOU[0], HANGZHOU[1], HANGZHOU[3]]


def test_ranges_are_known_before_any_address_is() -> None:
    made = plan(name(OSS, role="storage"))
    assert destinations(made) == HANGZHOU
    assert any("no address is known yet" in line for line in made.unknown)


def test_storage_through_private_link_needs_its_addresses_only() -> None:
    made = plan(name(f"b.{OSS}", "10.0.3.4", "fd00::4", role="storage"))
    assert destinations(made) == ["10.0.3.4/32", "fd00::4/128"]
    assert any("PrivateLink" in note and "10.0.3.4, fd00::4" in note for note in made.notes)


def test_an_address_beyond_the_known_ranges_is_added_to_them() -> None:
    made = plan(name(OSS, "100.118.28.43", "100.118.99.1", role="storage"))
    assert set(destinations(made)) == {*HANGZHOU, "100.118.99.1/32"}


def test_a_region_without_known_ranges_is_named() -> None:
    made = plan(name("oss-xx-moon-1-internal.aliyuncs.com.", "100.64.9.9", role="storage"))
    assert destinations(made) == ["100.64.9.9/32"]
    assert any("xx-moon-1" in note for note in made.notes)


def test_adjacent_ranges_become_one_and_neighbouring_addresses_do_not() -> None:
    made = plan(
        name("oss-cn-qingdao-internal.aliyuncs.com.", "100.99.114.9", role="storage"),
        name(REGISTRY, "10.0.0.2"),
        name(AUTH, "10.0.0.3"),
    )
    assert destinations(made) == [
        *("10.0.0.2/32", "10.0.0.3/32", "100.99.113.0/24", "100.99.114.0/23", "100.115.173.0/24"),
    ]


def test_an_address_inside_a_storage_range_needs_no_entry_of_its_own() -> None:
    made = plan(name(AUTH, "100.118.28.7"), name(OSS, "100.118.28.43", role="storage"))
    assert destinations(made) == HANGZHOU
    assert made.routes[2].roles == ("registry", "storage")


def test_each_registry_is_held_against_its_own_ranges() -> None:
    entries = (name(REGISTRY, "10.0.0.1"), name("other.example.", "10.0.0.1", registry="bj"))
    made = plan_routes(known(*entries), {"hz": ranges("10.0.0.0/8")})
    assert made.uncovered == (Uncovered("other.example.", "bj", "10.0.0.1"),)
    assert [route.covered for route in made.routes] == [False]
    assert any(note.startswith("registry bj: network.routed is empty") for note in made.notes)


def test_an_address_that_is_held_back_needs_its_route_all_the_more() -> None:
    entry = replace(name(REGISTRY, "10.0.0.1"), waiting=("10.6.0.2", "10.0.0.1"))
    made = plan(entry, routed=("10.0.0.0/16",))
    assert destinations(made) == ["10.0.0.1/32", "10.6.0.2/32"]
    assert made.uncovered == (Uncovered(REGISTRY, "hz", "10.6.0.2"),)


def test_limits_of_the_cloud_are_told_where_they_apply() -> None:
    few = plan(name(REGISTRY, "10.0.0.1"), routed=("10.0.0.0/8",))
    assert few.notes == ()
    many = plan(*(name(f"n{i}.example.", f"10.0.{i}.1") for i in range(MAX_CUSTOM_ROUTES + 1)))
    assert any(f"takes {MAX_CUSTOM_ROUTES} custom ones" in note for note in many.notes)
    services = plan(name(AUTH, "100.103.7.181"))
    assert any("100.64.0.0/10" in note and "attachment" in note for note in services.notes)
    # Another cloud's services there have other rules.
    huawei = plan(name("swr.cn-north-4.myhuaweicloud.com.", "100.125.4.7"))
    assert not any("attachment" in note for note in huawei.notes)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([REGISTRY, OSS, "oss-cn-qingdao-internal.aliyuncs.com."]),
            st.lists(st.ip_addresses().map(str), max_size=4),
        ),
        max_size=4,
    )
)
def test_every_address_is_in_exactly_one_entry(pairs: list[tuple[str, list[str]]]) -> None:
    entries = tuple(name(text, *listed) for text, listed in pairs)
    made = plan(*entries)
    for entry in entries:
        for address in entry.addresses:
            assert sum(ip_address(address) in route.destination for route in made.routes) == 1


@pytest.mark.parametrize("routed", [(), ("10.0.0.0/8",)])
def test_without_names_nothing_is_needed(routed: tuple[str, ...]) -> None:
    made = plan(routed=routed)
    assert (made.routes, made.uncovered, made.notes) == ((), (), ())


def test_what_is_not_known_and_not_probed() -> None:
    registry = replace(name(REGISTRY, "10.0.0.1"), unprobed=("10.0.0.1",))
    held = replace(known(registry, name(AUTH, role="auth")), undiscovered=(("hz", "storage"),))
    made = plan_routes(held, {"hz": ranges("10.0.0.0/8")})
    assert made.uncovered == ()
    assert made.unknown == (
        "registry hz: role storage is not discovered yet, so its routes are not known",
        f"{AUTH[:-1]}: no address is known yet",
    )
    assert made.unprobed == (f"{REGISTRY[:-1]}: 10.0.0.1 is not probed yet",)
    (line,) = plan_routes(replace(held, exact=False), {}).unprobed
    assert line.endswith("10.0.0.1 is not known to be probed: test has no results")
