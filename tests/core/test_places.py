from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.places import Places
from dnsproxy.errors import DropReason


def packed(text: str) -> bytes:
    return ip_address(text).packed


def test_p17_the_house_is_full() -> None:
    places = Places(2, 2)
    assert [places.take(packed(f"192.0.2.{n}")) for n in range(3)] == [None, None, DropReason.TCP_CLIENTS]
    places.leave(packed("192.0.2.0"))
    assert places.take(packed("192.0.2.9")) is None


def test_p17_one_client_does_not_fill_the_house() -> None:
    places = Places(10, 2)
    one, other = packed("192.0.2.1"), packed("192.0.2.2")
    assert [places.take(one) for _ in range(3)] == [None, None, DropReason.TCP_PER_CLIENT]
    assert places.take(other) is None
    places.leave(one)
    assert places.take(one) is None
    assert places.taken == 3


def test_p17_an_ipv6_client_is_its_network() -> None:
    places = Places(10, 1)
    assert places.take(packed("2001:db8::1")) is None
    assert places.take(packed("2001:db8::ffff:1")) is DropReason.TCP_PER_CLIENT
    assert places.take(packed("2001:db8:0:1::1")) is None


@given(st.lists(st.integers(0, 3)))
def test_nothing_is_remembered_of_clients_that_have_left(clients: list[int]) -> None:
    places = Places(8, 3)
    held = [bytes((0, 0, 0, client)) for client in clients if places.take(bytes((0, 0, 0, client))) is None]
    assert places.taken == len(held)
    for source in held:
        places.leave(source)
    assert (places.taken, places._by_client) == (0, {})


def test_other_bounds_hold_for_those_who_come_later() -> None:
    places = Places(2, 2)
    assert [places.take(packed("192.0.2.1")) for _ in range(2)] == [None, None]
    places.resize(1, 1)
    assert places.taken == 2
    places.leave(packed("192.0.2.1"))
    assert places.take(packed("192.0.2.2")) is DropReason.TCP_CLIENTS
    places.leave(packed("192.0.2.1"))
    assert places.take(packed("192.0.2.2")) is None
