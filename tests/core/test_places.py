from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from dnsproxy.core.clients import Clients
from dnsproxy.core.places import Place, Places
from dnsproxy.errors import DropReason

ONE, OTHER, THIRD = (ip_address(f"192.0.2.{number}").packed for number in (1, 2, 3))


def packed(text: str) -> bytes:
    return ip_address(text).packed


class Held:
    """A connection that was last used at ``active``."""

    def __init__(self, active: float) -> None:
        self.active = active

    def abort(self) -> None:
        raise AssertionError("the listener does that")


def take(places: Places, source: bytes, active: float = 0.0) -> Place:
    place = places.take(source)
    assert isinstance(place, Place), place
    place.holder = Held(active)
    return place


def test_p17_all_places_are_taken() -> None:
    places = Places(2, 2)
    first, _ = take(places, ONE), take(places, OTHER)
    assert places.take(THIRD) is DropReason.TCP_CLIENTS
    places.leave(first)
    assert take(places, THIRD).displaced is None


def test_p17_one_client_does_not_take_all_places() -> None:
    places = Places(10, 2)
    first, _ = take(places, ONE), take(places, ONE)
    assert places.take(ONE) is DropReason.TCP_PER_CLIENT
    take(places, OTHER)
    places.leave(first)
    take(places, ONE)
    assert places.taken == 3


def test_p43_the_longest_idle_connection_of_the_client_with_the_most_makes_room() -> None:
    places = Places(4, 4)
    old, *_ = [take(places, ONE, active) for active in (2.0, 1.0, 3.0, 4.0)]
    idle = take(places, OTHER).displaced
    assert isinstance(idle, Held)
    assert (idle.active, places.taken) == (1.0, 4)
    # Now three against one, then two against two: nothing would be gained by another.
    assert take(places, OTHER).displaced is old.holder
    assert places.take(OTHER) is DropReason.TCP_CLIENTS
    places.leave(old)  # when its listener has closed it: it has no place any more
    assert places.taken == 4


def test_p43_a_connection_that_is_only_being_made_is_not_closed_for_another() -> None:
    places = Places(3, 3)
    assert [isinstance(places.take(ONE), Place) for _ in range(3)] == [True] * 3
    assert places.take(OTHER) is DropReason.TCP_CLIENTS


def test_p43_a_client_is_what_it_is_to_the_rate_limit() -> None:
    places = Places(10, 1, Clients(24, 48))
    for one, same, other in (
        ("2001:db8::1", "2001:db8:0:1::1", "2001:db8:1::1"),
        ("10.0.0.1", "10.0.0.2", "10.0.1.1"),
    ):
        take(places, packed(one))
        assert places.take(packed(same)) is DropReason.TCP_PER_CLIENT
        take(places, packed(other))


@given(st.lists(st.integers(0, 3)))
def test_nothing_is_remembered_of_clients_that_have_left(clients: list[int]) -> None:
    places = Places(8, 3)
    held = [place for client in clients if isinstance(place := places.take(bytes((0, 0, 0, client))), Place)]
    assert places.taken == len(held)
    for place in held:
        places.leave(place)
    assert (places.taken, places._shares._entries) == (0, {})


def test_other_limits_hold_for_those_that_come_later() -> None:
    places = Places(2, 2)
    first, second = take(places, ONE), take(places, ONE)
    clients = Clients(24)
    places.resize(1, 1, clients)
    assert places.buffers.clients is clients
    assert places.taken == 2
    places.leave(first)
    assert places.take(OTHER) is DropReason.TCP_CLIENTS
    places.leave(second)
    take(places, OTHER)
