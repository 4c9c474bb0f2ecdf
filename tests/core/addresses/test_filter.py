from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.addresses.filter import Limits, LimitTable, Refusal, is_routed, refusal, usable_part
from tests.strategies import statement


def ranges(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in texts)


def reason(address: str, **limits: object) -> Refusal | None:
    found = refusal(address, Limits(**limits))  # type: ignore[arg-type]  # one line per case
    assert found is None or found.address == address
    return found.reason if found else None


@pytest.mark.parametrize(
    "address",
    [
        *("10.94.205.198", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("100.64.0.0", "100.103.7.181", "100.118.28.43", "100.127.255.255", "fd00::1"),
    ],
)
def test_internal_addresses_pass(address: str) -> None:
    assert reason(address) is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0.0.0.0", Refusal.UNSPECIFIED),
        ("0.1.2.3", Refusal.UNSPECIFIED),
        ("::", Refusal.UNSPECIFIED),
        ("127.0.0.1", Refusal.LOOPBACK),
        ("127.255.255.254", Refusal.LOOPBACK),
        ("::1", Refusal.LOOPBACK),
        ("169.254.1.1", Refusal.LINK_LOCAL),
        ("169.254.169.254", Refusal.METADATA),
        ("100.100.100.200", Refusal.METADATA),
        ("100.100.2.136", Refusal.METADATA),
        ("100.100.2.138", Refusal.METADATA),
        ("fd00:ec2::254", Refusal.METADATA),
        ("fd00:ec2::123", Refusal.METADATA),
        ("168.63.129.16", Refusal.METADATA),
        ("100.96.0.96", Refusal.METADATA),
        ("100.80.80.80", Refusal.METADATA),
        ("100.125.129.250", Refusal.METADATA),
        ("169.254.170.23", Refusal.METADATA),
        ("169.254.0.23", Refusal.METADATA),
        ("fd00:100::100:200", Refusal.METADATA),
        ("fd00:c1::a9fe:a9fe", Refusal.METADATA),
        ("fd00:a9fe:a9fe::1", Refusal.METADATA),
        ("fd00:42::42", Refusal.METADATA),
        ("fe80::1", Refusal.LINK_LOCAL),
        ("224.0.0.1", Refusal.MULTICAST),
        ("ff02::1", Refusal.MULTICAST),
        ("240.0.0.1", Refusal.RESERVED),
        ("255.255.255.255", Refusal.RESERVED),
        ("::ffff:127.0.0.1", Refusal.RESERVED),
        ("::ffff:10.0.0.1", Refusal.RESERVED),
        ("64:ff9b::a00:1", Refusal.RESERVED),
        ("fec0::1", Refusal.RESERVED),
        ("100.63.255.255", Refusal.PUBLIC),
        ("100.128.0.0", Refusal.PUBLIC),
        ("172.32.0.1", Refusal.PUBLIC),
        ("47.97.242.13", Refusal.PUBLIC),
        ("2001:db8::1", Refusal.PUBLIC),
    ],
)
def test_addresses_that_no_internal_name_has(address: str, expected: Refusal) -> None:
    assert reason(address) is expected
    found = refusal(address, Limits())
    assert found is not None
    assert found.detail.startswith(address)


def test_public_addresses_pass_where_they_are_allowed() -> None:
    assert reason("47.97.242.13", internal=False) is None
    assert reason("127.0.0.1", internal=False) is Refusal.LOOPBACK


def test_what_this_side_uses_itself_is_refused() -> None:
    conflicts = ranges("100.103.0.0/16", "fd00::/16")
    assert reason("100.103.7.181", conflicts=conflicts) is Refusal.CONFLICT
    assert reason("fd00::1", conflicts=conflicts) is Refusal.CONFLICT
    assert reason("100.118.28.43", conflicts=conflicts) is None


@pytest.mark.parametrize(
    ("routed", "expected"),
    [
        ((), Refusal.CONFLICT),
        (("100.64.0.0/10",), Refusal.CONFLICT),
        (("100.0.0.0/8",), Refusal.CONFLICT),
        (("100.118.28.0/24",), Refusal.CONFLICT),
        (("100.0.0.0/8", "100.103.7.181/32"), None),
    ],
)
def test_a_more_specific_route_wins_over_a_conflict(
    routed: tuple[str, ...], expected: Refusal | None
) -> None:
    limits = {"conflicts": ranges("100.64.0.0/10"), "routed": ranges(*routed)}
    assert reason("100.103.7.181", **limits) is expected


def test_a_name_stays_in_its_allowed_ranges() -> None:
    allowed = ranges("100.118.28.0/24", "47.97.0.0/16")
    assert reason("100.118.28.43", allowed=allowed) is None
    assert reason("100.118.29.43", allowed=allowed) is Refusal.NOT_ALLOWED
    # Written down for this name: no need to allow the whole of the Internet for its registry.
    assert reason("47.97.242.13", allowed=allowed) is None


@pytest.mark.parametrize(
    ("address", "allowed", "expected"),
    [
        ("127.0.0.2", ("127.0.0.0/30",), None),
        ("127.0.0.2", ("127.0.0.0/8",), None),
        ("::1", ("::1/128",), None),
        ("240.0.0.1", ("240.0.0.0/4",), None),
        ("127.0.0.2", ("0.0.0.0/0",), Refusal.LOOPBACK),
        ("127.0.0.2", ("126.0.0.0/7",), Refusal.LOOPBACK),
        ("::1", ("::/0",), Refusal.LOOPBACK),
        ("0.0.0.0", ("0.0.0.0/32",), Refusal.UNSPECIFIED),
        ("100.100.2.136", ("100.64.0.0/10",), Refusal.METADATA),
        ("100.100.2.136", ("100.100.2.136/32",), None),
        ("224.0.0.1", ("224.0.0.1/32",), Refusal.MULTICAST),
    ],
)
def test_a_special_range_must_be_allowed_by_name(
    address: str, allowed: tuple[str, ...], expected: Refusal | None
) -> None:
    assert reason(address, allowed=ranges(*allowed)) is expected


@pytest.mark.parametrize(
    ("address", "allowed", "expected"),
    [
        ("64:ff9b::a00:1", "64:ff9b::/96", None),
        ("64:ff9b::6464:64c8", "64:ff9b::/96", Refusal.METADATA),
        ("64:ff9b::6464:64c8", "64:ff9b::6464:64c8/128", None),
        ("64:ff9b::7f00:1", "64:ff9b::/96", Refusal.LOOPBACK),
        ("64:ff9b::7f00:1", "64:ff9b::7f00:0/104", None),
        ("64:ff9b::e000:1", "64:ff9b::e000:1/128", Refusal.MULTICAST),
        ("64:ff9b:1::a9fe:a9fe", "64:ff9b:1::/48", Refusal.METADATA),
        ("::ffff:100.100.100.200", "::ffff:0:0/96", Refusal.METADATA),
        ("2002:6464:64c8::1", "2002::/16", Refusal.METADATA),
        ("2002:6464:64c8::1", "2002:6464:64c8::/48", None),
        ("2002:2f61:f20d::1", "2002::/16", None),
    ],
)
def test_ipv4_written_as_ipv6_is_judged_as_both(address: str, allowed: str, expected: Refusal | None) -> None:
    assert reason(address, allowed=ranges(allowed)) is expected


def test_6to4_of_a_special_address_is_not_public() -> None:
    assert reason("2002:6464:64c8::1", internal=False) is Refusal.METADATA
    assert reason("2002:7f00:1::1", internal=False) is Refusal.LOOPBACK
    assert reason("2002:2f61:f20d::1", internal=False) is None


def test_routes() -> None:
    routed = ranges("10.0.0.0/8", "100.103.7.181/32", "fd00::/8")
    assert is_routed("10.94.205.198", routed) is True
    assert is_routed("100.103.7.181", routed) is True
    assert is_routed("100.103.7.182", routed) is False
    assert is_routed("fd00::1", routed) is True
    assert is_routed("fe80::1", routed) is False


def test_where_no_route_is_stated_nothing_is_known() -> None:
    assert is_routed("10.0.0.1", ()) is None


def test_limits_of_names_that_are_not_configured_are_those_of_their_registry() -> None:
    of_name, of_registry = Limits(internal=False), Limits(routed=ranges("10.0.0.0/8"))
    table = LimitTable({"a.example.": of_name}, {"hangzhou": of_registry})
    assert table.of("a.example.", "hangzhou") is of_name
    assert table.of("b.example.", "hangzhou") is of_registry
    assert table.of("b.example.", "elsewhere") == Limits()


def test_only_addresses_can_be_asked_about() -> None:
    with pytest.raises(ValueError, match="a.example"):
        is_routed("a.example", ranges("10.0.0.0/8"))
    with pytest.raises(ValueError, match="a.example"):
        refusal("a.example", Limits())


@given(st.ip_addresses().map(str), st.booleans())
def test_what_passes_could_be_the_far_end_of_a_connection(address: str, internal: bool) -> None:
    if reason(address, internal=internal) is None:
        parsed = ip_address(address)
        kinds = ("loopback", "unspecified", "multicast", "link_local", "reserved")
        assert [kind for kind in kinds if getattr(parsed, f"is_{kind}")] == []
        assert not internal or not parsed.is_global


TABLE = LimitTable({"a.example.": Limits(conflicts=ranges("10.9.0.0/16"))})


@pytest.mark.parametrize(
    ("addresses", "left", "refused"),
    [
        (("10.0.0.1", "10.9.0.1", "127.0.0.1"), ("10.0.0.1",), [Refusal.CONFLICT, Refusal.LOOPBACK]),
        (("127.0.0.1",), None, [Refusal.LOOPBACK]),
    ],
)
def test_refused_addresses_are_removed_from_a_set(
    addresses: tuple[str, ...], left: tuple[str, ...] | None, refused: list[Refusal]
) -> None:
    stated = statement("a.example.", addresses, cname="c.example.")
    usable, findings = usable_part(stated, TABLE.of("a.example.", "hangzhou"))
    assert (usable and usable.learned.addresses) == left
    assert usable is None or (usable.snapshot, usable.learned.cname) == (stated.snapshot, "c.example.")
    assert [finding.reason for finding in findings] == refused


def test_a_set_without_refused_addresses_stays_the_same_object() -> None:
    stated = statement("a.example.", ("10.0.0.1", "10.0.0.2"))
    assert usable_part(stated, TABLE.of("a.example.", "hangzhou")) == (stated, ())
    assert usable_part(stated, Limits())[0] is stated
